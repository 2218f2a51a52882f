"""Tables over trials: mean, standard error, number of trials, and the paper's value beside it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

import pandas as pd

from avsi.results.store import LONGEST, plain
from avsi.results.study import Outcome, Study

# Columns of numbers are right-aligned; what is not known or diverged is no reason against it.
NUMBER = re.compile(r"[-+]?\d[\d.e+-]*( ± [\d.]+)?|diverged|")


def _estimate(values: pd.Series, digits: int = 2, sign: str = "") -> str:
    """Write a mean and its standard error (sample standard deviation / sqrt(n))."""
    if values.empty:
        return ""
    mean = f"{round(values.mean(), digits) + 0.0:{sign}.{digits}f}"  # adding 0 makes 0 of -0
    return mean if len(values) == 1 else f"{mean} ± {values.sem():.{digits}f}"


def _difference(measured: pd.Series, reported: float | None) -> str:
    """Write the mean minus the paper's value."""
    return "" if measured.empty or reported is None else _estimate(pd.Series(measured.mean() - reported), sign="+")


def _measures(study: Study, method: Outcome) -> dict[str, pd.Series]:
    """Collect what is tabulated of a method, by seed: percent, BWT a fraction."""
    accuracy = 100 * method.values("accuracy")
    return {
        "accuracy": accuracy,
        "bwt": method.values("bwt"),
        "validation_accuracy": 100 * method.values("validation_accuracy"),
        "train_accuracy": 100 * method.by_task("train_accuracy").mean(axis="columns").dropna(),
        # to the first method, over the seeds that both have
        "paired": (accuracy - 100 * study.compared[0].values("accuracy")).dropna() if study.compared else accuracy[:0],
    }


def table(rows: list[dict[str, str]]) -> pd.DataFrame:
    """Make a table whose index is the rows' first value, without empty columns."""
    frame = pd.DataFrame(rows)
    frame = frame.set_index(frame.columns[0]) if rows else frame
    return frame.loc[:, (frame != "").any()]


def _accuracy_table(study: Study) -> pd.DataFrame:
    """Tabulate mean accuracy over tasks and BWT after the last task, beside the paper's values."""
    rows = []
    for index, method in enumerate(study.compared):
        found, paper = _measures(study, method), method.reported
        rows.append(
            {
                "method": method.label,
                "n": str(len(found["accuracy"])),
                "accuracy %": _estimate(found["accuracy"]) or "diverged",
                "paired": _estimate(found["paired"], sign="+") if index else "",
                "paper": "" if paper["accuracy"] is None else f"{paper['accuracy']:.2f}",
                "diff.": _difference(found["accuracy"], paper["accuracy"]),
                "BWT": _estimate(found["bwt"], digits=3),
                "(paper)": "" if paper["bwt"] is None else f"{paper['bwt']:.2f}",
                "(diff.)": _difference(found["bwt"], paper["bwt"]),
                "train %": _estimate(found["train_accuracy"]),
                "remarks": "; ".join(filter(None, [method.diverged, "partial data" if partial_data([method]) else ""])),
            }
        )
    return table(rows)


def _tasks_table(study: Study) -> pd.DataFrame:
    """Tabulate the mean final test accuracy on each task, with the paper's and training values below where known."""
    rows = {}
    for method in study.compared:
        rows[method.name, method.label] = 100 * method.by_task().mean()
        rows[method.name, f"{method.label} (paper)"] = pd.Series(dict(enumerate(method.reported["tasks"], 1)))
        rows[method.name, f"{method.label} (training)"] = 100 * method.by_task("train_accuracy").mean()
    frame = pd.DataFrame({key: row for key, row in rows.items() if len(row)}, range(1, study.tasks + 1)).T
    frame.index = pd.Index([label for _, label in frame.index], name="accuracy %")
    return frame.map("{:.1f}".format, na_action="ignore").fillna("").add_prefix("task ", axis="columns")


def _strengths_table(study: Study) -> pd.DataFrame:
    """Tabulate candidates' validation and test accuracy: how strengths were chosen."""
    rows = []
    for method in study.methods:
        candidates = [c for c in study.methods if c.candidate_of == method.name and c.trials]
        if not candidates:
            continue
        if method.trials and method.folder not in {candidate.folder for candidate in candidates}:
            candidates.append(method)
        accuracy = pd.DataFrame({c.name: 100 * c.values("accuracy") for c in candidates})
        seeds = accuracy.dropna(axis="columns", how="all").dropna().index
        accuracy = accuracy.loc[seeds] if len(seeds) else accuracy
        validation = pd.DataFrame({c.name: 100 * c.values("validation_accuracy") for c in candidates}, accuracy.index)
        best = validation.mean().idxmax() if validation.notna().any(axis=None) else None
        for candidate in candidates:
            paper = candidate.reported["accuracy"] if candidate.candidate_of else None
            remarks = [
                "highest" if candidate.name == best else "",
                "compared" if candidate.folder == method.folder else "",
                "" if paper is None else f"the paper's ({paper:.2f})",
                "the script's own" if candidate.settings and candidate.settings == method.published else "",
                candidate.diverged,
            ]
            rows.append(
                {
                    "candidate": candidate.label,
                    "of": method.name,
                    "validation %": _estimate(validation[candidate.name].dropna()),
                    "test %": _estimate(accuracy[candidate.name].dropna()),
                    "n": str(accuracy[candidate.name].count()),
                    "chosen": ", ".join(filter(None, remarks)),
                }
            )
    return table(rows)


def tables(study: Study) -> dict[str, pd.DataFrame]:
    """Return all tables that have rows: accuracies, accuracies by task, and how strengths were chosen, by title."""
    found = {
        "Mean over tasks after the last task": _accuracy_table(study),
        "Mean final accuracy by task": _tasks_table(study),
        "Choosing strengths": _strengths_table(study),
    }
    return {title: frame for title, frame in found.items() if frame.size}


def partial_data(methods: Sequence[Outcome]) -> list[str]:
    """Return in what the data differ from what was published, in any trial of some methods; nothing if they do not."""
    trials = [trial for method in methods for trial in method.trials]
    items = [item for trial in trials for item in trial["data"] if item.get("complete") is False]
    missing = {f"{i.get('name')} ({i.get('split')}), {i.get('images')} of {i.get('published')} images" for i in items}
    notes = {note.removeprefix("partial: ") for trial in trials for note in trial.get("notes") or ()}
    return [plain(text, 4 * LONGEST) for text in sorted(missing) + sorted(notes)]


def _cautions(study: Study) -> list[str]:
    """Say what limits the numbers, or makes them incomparable."""
    lines = [f"Changed protocol: {study.deviation}."] if study.deviation else []
    lines += [f"Partial data: {text}." for text in partial_data(study.methods)]
    single = [method.name for method in study.compared if len(method.finished) == 1]
    if single:
        lines.append(f"One seed only, no standard error: {', '.join(single)}.")
    lines += [f"{method.label}: {method.diverged}." for method in study.run if method.diverged]
    ran = [(plain(t.get("code") or "unknown")[:12], method.name) for method in study.compared for t in method.trials]
    codes = pd.DataFrame(ran, columns=["code", "method"]).groupby("code").method.unique()
    if len(codes) > 1:
        versions = "; ".join(f"{code} ({', '.join(methods)})" for code, methods in codes.items())
        lines.append(f"Different code: rows that are compared come from different versions of the package: {versions}.")
    keys = ["name", "split", "fingerprint"]
    used = [[plain(item.get(key)) for key in keys] for trial in study.trials for item in trial["data"]]
    versions_of_data = pd.DataFrame(used, columns=keys).groupby(["name", "split"]).fingerprint.nunique()
    lines += [
        f"Different data: the trials used {count} different versions of {name} ({split}); delete those of the wrong "
        "one and run again."
        for (name, split), count in versions_of_data.items()
        if count > 1
    ]
    return lines


def _explanations(study: Study) -> list[str]:
    """Say what the tables' columns mean, and where the paper's values are from."""
    compared, lines = study.compared, [study.source] if study.source else []
    about = ["Accuracy: mean ± standard error over n seeds, tasks equally weighted"]
    if len(compared) > 1:
        about.append(f"paired: minus {compared[0].label}, over the seeds that both have")
    if any(m.reported["accuracy"] is not None or m.reported["bwt"] is not None for m in compared):
        about.append("diff.: minus the paper's")
    lines.append("; ".join(about) + ".")
    if _strengths_table(study).size:
        lines.append(
            "Choosing strengths: over the n seeds that all candidates have. The candidate with the highest mean "
            "validation accuracy is the one to choose; compared is the one of the other tables."
        )
    return lines


def literal(text: str) -> str:
    """Write a line of text so that Markdown shows it as it is."""
    return re.sub(r"([\\`*\[\]<|~]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)


def markdown_table(frame: pd.DataFrame) -> str:
    """Write a table in Markdown.

    Args:
        frame: Texts; the index is the first column.

    Returns:
        The table's lines. Columns of numbers are right-aligned, the first column and columns of words left-aligned.

    Example:
        >>> print(markdown_table(pd.DataFrame({"accuracy %": ["98.80 ± 0.11"]}, pd.Index(["SI"], name="method"))))
        | method | accuracy % |
        | --- | ---: |
        | SI | 98.80 ± 0.11 |
        <BLANKLINE>
    """
    numbers = [all(map(NUMBER.fullmatch, column)) for column in frame.astype(str).to_numpy().T]
    header = [frame.index.name or "", *frame.columns]
    rows = [[literal(str(cell)) for cell in row] for row in [header, *frame.itertuples()]]
    rows.insert(1, ["---", *("---:" if right else "---" for right in numbers)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def terminal_table(frame: pd.DataFrame, width: int = 80) -> str:
    """Write a table for the terminal; one that is too wide goes on below, and no number is cut.

    Args:
        frame: Texts; the index is the first column.
        width: Characters in a line.

    Returns:
        The table's lines.
    """
    shown = frame.reset_index()
    first = shown.columns[0]
    # Names are left-aligned, in the header too.
    longest = max(map(len, [first, *shown[first]]))
    shown.index = pd.Index([name.ljust(longest) for name in shown.pop(first)])
    text = shown.rename_axis(columns=first).to_string(line_width=max(width, 40))
    return "\n".join(line.rstrip() for line in text.splitlines())


def markdown(study: Study, figures: dict[str, str] | None = None) -> str:
    """Return the summary: heading, what a reader must know, tables, and figures given by file and caption."""
    lines = "".join(f"{literal(line)}  \n" for line in (*_explanations(study), *_cautions(study)))
    parts = [f"# {literal(study.heading)}\n\n{lines}"]
    parts += [f"## {title}\n\n{markdown_table(frame)}" for title, frame in tables(study).items()]
    parts += ["## Figures\n"] if figures else []
    parts += [f"![{literal(caption)}](<{file}>)\n" for file, caption in (figures or {}).items()]
    return "\n".join(parts)


def terminal(study: Study, width: int = 80) -> str:
    """Return the tables for a terminal of a width: heading, tables, what a reader must know."""
    shown = [f"{title}\n\n{terminal_table(frame, width)}\n" for title, frame in tables(study).items()]
    lines = [textwrap.fill(line, width) for line in (*_explanations(study), *_cautions(study))]
    return "\n".join([study.heading, "", *shown, *lines])


def comma_separated(study: Study) -> str:
    """Return a CSV row for each method with trials, units in the header; no cell is a formula to a spreadsheet."""
    rows = []
    for method in (method for method in study.methods if method.trials):
        found, paper = _measures(study, method), method.reported
        row: dict[str, object] = {"experiment": plain(study.folder.name), "protocol": study.protocol}
        row |= {"method": method.name, "label": method.label, "n": len(found["accuracy"])}
        for name, values in {
            "accuracy_{}_percent": found["accuracy"],
            "bwt_{}_fraction": found["bwt"],
            "forgetting_{}_fraction": -found["bwt"],
            "validation_accuracy_{}_percent": found["validation_accuracy"],
            "train_accuracy_{}_percent": found["train_accuracy"],
            "paired_difference_{}_percentage_points": found["paired"],
        }.items():
            row |= {name.format("mean"): values.mean(), name.format("standard_error"): values.sem()}
        row |= {
            "paper_accuracy_percent": paper["accuracy"],
            "paper_bwt_fraction": paper["bwt"],
            "partial_protocol": study.deviation,
            "partial_data": "; ".join(partial_data([method])),
            "diverged": method.diverged,
            "seeds": " ".join(str(trial["seed"]) for trial in method.trials),
            "code": " ".join(sorted({plain(trial["code"])[:12] for trial in method.trials if trial.get("code")})),
            "candidate_of": method.candidate_of,
        }
        formulas = {key for key, cell in row.items() if isinstance(cell, str) and cell.startswith(tuple("=+-@"))}
        rows.append({key: f"'{cell}" if key in formulas else cell for key, cell in row.items()})
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.6g", lineterminator="\n")

"""Tables over trials: mean, standard error, number of trials, and the paper's value beside it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

import pandas as pd

from avsi.results.study import LONGEST, Outcome, Study, plain

WORDS = (
    "remarks",
    "chosen",
    "of",
    "split",
    "setting",
    "file",
    "value",
    "source",
    "device",
    "started",
    "strategy",
    "plugins",
)


def _estimate(values: pd.Series, scale: float = 1.0, digits: int = 2, sign: str = "") -> str:
    # Write a mean and its standard error (sample standard deviation / sqrt(n)).
    if values.empty:
        return ""
    mean = f"{round(scale * values.mean(), digits) + 0.0:{sign}.{digits}f}"  # adding 0 makes 0 of -0
    return mean if len(values) == 1 else f"{mean} ± {scale * values.sem():.{digits}f}"


def _accuracy_table(study: Study) -> pd.DataFrame:
    # Tabulate mean accuracy over tasks and BWT after the last task, beside the paper's values.
    compared, rows = study.compared, []
    for method in compared:
        accuracy, bwt, paper = method.values("accuracy"), method.values("bwt"), method.reported
        paired = (accuracy - compared[0].values("accuracy")).dropna() if method is not compared[0] else accuracy[:0]
        rows.append(
            {
                "method": method.label,
                "n": str(len(accuracy)),
                "accuracy %": _estimate(accuracy, 100) or "diverged",
                "paired": _estimate(paired, 100, sign="+"),
                "paper": "" if paper["accuracy"] is None else f"{paper['accuracy']:.2f}",
                "diff.": "" if paper["accuracy"] is None else _difference(100 * accuracy, paper["accuracy"]),
                "BWT": _estimate(bwt, digits=3),
                "(paper)": "" if paper["bwt"] is None else f"{paper['bwt']:.2f}",
                "(diff.)": "" if paper["bwt"] is None else _difference(bwt, paper["bwt"]),
                "train %": _estimate(method.by_task("train_accuracy").mean(axis="columns").dropna(), 100),
                "remarks": "; ".join(filter(None, [method.diverged, "partial data" if partial_data([method]) else ""])),
            }
        )
    return _table(rows)


def _difference(measured: pd.Series, reported: float) -> str:
    return "" if measured.empty else _estimate(pd.Series(measured.mean() - reported), sign="+")


def _table(rows: list[dict[str, str]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    return (
        frame
        if frame.empty
        else frame.set_index(frame.columns[0]).replace("", pd.NA).dropna(axis="columns", how="all").fillna("")
    )


def _tasks_table(study: Study) -> pd.DataFrame:
    # Tabulate the mean final test accuracy on each task, with the paper's values below where it gives them.
    labels, rows = [], []
    for method in study.compared:
        paper = pd.Series(dict(enumerate(method.reported["tasks"], 1)), dtype=float)
        for suffix, means in (
            ("", 100 * method.by_task().mean()),
            (" (paper)", paper),
            (" (training)", 100 * method.by_task("train_accuracy").mean()),
        ):
            if len(means):
                labels.append(f"{method.label}{suffix}")
                rows.append(
                    means.reindex(range(1, study.tasks + 1)).map("{:.1f}".format, na_action="ignore").fillna("")
                )
    frame = pd.DataFrame(rows, pd.Index(labels, name="accuracy %"))
    return frame.set_axis([f"task {task}" for task in frame], axis="columns")


def _strengths_table(study: Study) -> pd.DataFrame:
    # Tabulate candidates' validation and test accuracy: how strengths were chosen.
    rows = []
    for method in study.methods:
        candidates = [c for c in study.methods if c.candidate_of == method.name and c.trials]
        if not candidates:
            continue
        if method.trials and method.folder not in {candidate.folder for candidate in candidates}:
            candidates.append(method)
        accuracy = pd.DataFrame({c.name: c.values("accuracy") for c in candidates})
        seeds = accuracy.dropna(axis="columns", how="all").dropna().index
        accuracy = accuracy.loc[seeds] if len(seeds) else accuracy
        validation = pd.DataFrame({c.name: c.values("validation_accuracy") for c in candidates}, accuracy.index)
        best = validation.mean().idxmax() if validation.notna().any(axis=None) else None
        for candidate in candidates:
            paper = candidate.reported["accuracy"] if candidate.candidate_of else None
            remarks = {
                "highest": candidate.name == best,
                "compared": candidate.folder == method.folder,
                f"the paper's ({paper or 0:.2f})": paper is not None,
                "the script's own": bool(candidate.settings) and candidate.settings == method.published,
                candidate.diverged: True,
            }
            rows.append(
                {
                    "candidate": candidate.label,
                    "of": method.name,
                    "validation %": _estimate(validation[candidate.name].dropna(), 100),
                    "test %": _estimate(accuracy[candidate.name].dropna(), 100),
                    "n": str(accuracy[candidate.name].count()),
                    "chosen": ", ".join(remark for remark, holds in remarks.items() if remark and holds),
                }
            )
    return _table(rows)


def tables(study: Study) -> dict[str, pd.DataFrame]:
    """Return all tables that have rows: accuracies, accuracies by task, and how strengths were chosen, by title."""
    found = {
        "Mean over tasks after the last task": _accuracy_table(study),
        "Mean final accuracy by task": _tasks_table(study),
        "Choosing strengths": _strengths_table(study),
    }
    return {title: table for title, table in found.items() if table.size}


def partial_data(methods: Sequence[Outcome]) -> list[str]:
    """Return in what the data differ from what was published, in any trial of some methods; nothing if they do not."""
    trials = [trial for method in methods for trial in method.trials]
    missing = {
        plain(f"{item.get('name')} ({item.get('split')}), {item.get('images')} of {item.get('published')} images")
        for trial in trials
        for item in trial["data"]
        if item.get("complete") is False
    }
    notes = {plain(note, 4 * LONGEST).removeprefix("partial: ") for trial in trials for note in trial.get("notes", ())}
    return sorted(missing) + sorted(notes)


def _cautions(study: Study) -> list[str]:
    # Say what limits the numbers, or makes them incomparable.
    lines = [f"Changed protocol: {study.deviation}."] if study.deviation else []
    lines += [f"Partial data: {text}." for text in partial_data(study.methods)]
    single = [method.name for method in study.compared if len(method.finished) == 1]
    if single:
        lines.append(f"One seed only, no standard error: {', '.join(single)}.")
    lines += [f"{method.label}: {method.diverged}." for method in study.run if method.diverged]
    ran = [(trial.get("code"), method.name) for method in study.compared for trial in method.trials]
    codes = pd.DataFrame(ran, columns=["code", "method"])
    if codes.code.nunique(dropna=False) > 1:
        groups = codes.fillna("unknown").drop_duplicates().groupby("code").method.agg(", ".join)
        versions = "; ".join(f"{plain(code)[:12]} ({methods})" for code, methods in groups.items())
        lines.append(f"Different code: rows that are compared come from different versions of the package: {versions}.")
    keys = ["name", "split", "fingerprint"]
    items = [item for trial in study.trials for item in trial["data"]]
    prints = pd.DataFrame([[plain(item.get(key)) for key in keys] for item in items], columns=keys)
    for (name, split), count in prints.groupby(["name", "split"]).fingerprint.nunique().items():
        if count > 1:
            lines.append(
                f"Different data: the trials used {count} different versions of {name} ({split}); delete those of the "
                "wrong one and run again."
            )
    return lines


def _explanations(study: Study) -> list[str]:
    # Say what the tables' columns mean, and where the paper's values are from.
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
    r"""Write a text so that Markdown shows it as it is.

    Args:
        text: The text, one line.

    Returns:
        Markdown.

    Example:
        >>> literal("online_ewc [x](y) | <b>")
        'online_ewc \\[x\\](y) \\| \\<b>'
    """
    return re.sub(r"([\\`*\[\]<|~]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)


def markdown_table(frame: pd.DataFrame) -> str:
    """Write a table in Markdown.

    Args:
        frame: Texts; the index is the first column.

    Returns:
        The table's lines. The first column and columns of words are left-aligned, the others right-aligned.
    """
    names = [str(frame.index.name or ""), *map(str, frame.columns)]
    marks = ["---" if i == 0 or name in WORDS else "---:" for i, name in enumerate(names)]
    rows = [names, *([str(cell) for cell in row] for row in frame.itertuples())]
    header, *lines = ("| " + " | ".join(map(literal, row)) + " |" for row in rows)
    return "\n".join([header, "| " + " | ".join(marks) + " |", *lines]) + "\n"


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
    parts += [f"## {title}\n\n{markdown_table(table)}" for title, table in tables(study).items()]
    pictures = [f"![{literal(caption)}](<{file}>)\n" for file, caption in (figures or {}).items()]
    return "\n".join([*parts, *(["## Figures\n", *pictures] if pictures else [])])


def terminal(study: Study, width: int = 80) -> str:
    """Return the tables for a terminal of a width: heading, tables, what a reader must know."""
    shown = [f"{title}\n\n{terminal_table(table, width)}\n" for title, table in tables(study).items()]
    lines = [textwrap.fill(line, width) for line in (*_explanations(study), *_cautions(study))]
    return "\n".join([study.heading, "", *shown, *lines])


def comma_separated(study: Study) -> str:
    """Return a CSV row for each method with trials, units in the header; no cell is a formula to a spreadsheet."""
    rows = []
    first = study.compared[0].values("accuracy") if study.compared else pd.Series(dtype=float)
    for method in (method for method in study.methods if method.trials):
        accuracy, bwt, paper = method.values("accuracy"), method.values("bwt"), method.reported
        row: dict[str, object] = {"experiment": plain(study.folder.name), "protocol": study.protocol}
        row |= {"method": method.name, "label": method.label, "n": len(accuracy)}
        for name, values in {
            "accuracy_{}_percent": 100 * accuracy,
            "bwt_{}_fraction": bwt,
            "forgetting_{}_fraction": -bwt,
            "validation_accuracy_{}_percent": 100 * method.values("validation_accuracy"),
            "train_accuracy_{}_percent": 100 * method.by_task("train_accuracy").mean(axis="columns"),
            "paired_difference_{}_percentage_points": 100 * (accuracy - first).dropna(),
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
        rows.append({key: _no_formula(value) for key, value in row.items()})
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.6g", lineterminator="\n")


def _no_formula(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@"} else value

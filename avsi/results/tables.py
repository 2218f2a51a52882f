"""Tables over trials: mean, standard error, number of trials, and the paper's value beside it."""

from __future__ import annotations

import re
import textwrap

import pandas as pd

from avsi.results.study import Study

# Columns of numbers are right-aligned; what is not known or diverged is no reason against it.
NUMBER = re.compile(r"[-+]?\d[\d.e+-]*( ± [\d.]+)?|diverged|")


UNITS = {
    "accuracy": "percent",
    "bwt": "fraction",
    "forgetting": "fraction",
    "validation_accuracy": "percent",
    "train_accuracy": "percent",
    "paired_difference": "percentage_points",
}
"""What is measured of a method; the difference is to the first method on the same seeds."""


def measures(study: Study) -> pd.DataFrame:
    """Compute mean, sem (sample standard deviation / sqrt(n)) and count over seeds of what is measured of methods."""
    factors = {key: 100 if unit == "percent" else 1 for key, unit in UNITS.items() if key in study.trials}
    found = {key: factor * study.by_seed(key) for key, factor in factors.items()}
    first = found["accuracy"][study.compared.index[0]] if len(study.compared) else float("nan")
    found["paired_difference"] = found["accuracy"].sub(first, axis="index")
    return pd.concat({key: values.agg(["mean", "sem", "count"]).T for key, values in found.items()}, axis="columns")


def _write(found: pd.DataFrame | pd.Series, digits: int = 2, sign: str = "") -> list[str]:
    """Write estimates, with columns mean and sem, or numbers; nothing for what is not known."""
    rows = found[["mean", "sem"]] if found.ndim == 2 else pd.DataFrame({"mean": found, "sem": float("nan")})
    texts = []
    for mean, error in rows.itertuples(index=False):
        text = "" if pd.isna(mean) else f"{round(mean, digits) + 0.0:{sign}.{digits}f}"  # adding 0 makes 0 of -0
        texts.append(text if pd.isna(error) else f"{text} ± {error:.{digits}f}")
    return texts


def _accuracy_table(study: Study) -> pd.DataFrame:
    """Tabulate mean accuracy over tasks and BWT after the last task, beside the paper's values."""
    methods = study.compared
    found = measures(study).loc[methods.index]
    mean, bwt = found["accuracy", "mean"], found["bwt", "mean"]
    remarks = [[diverged(study, name), "partial data" if partial_data(study, name) else ""] for name in methods.index]
    columns = {
        "n": [f"{count:.0f}" for count in found["accuracy", "count"]],
        "accuracy %": [text or "diverged" for text in _write(found["accuracy"])],
        "paired": ["", *_write(found["paired_difference"], sign="+")[1:]][: len(methods)],
        "paper": _write(methods.paper_accuracy),
        "diff.": _write(mean - methods.paper_accuracy, sign="+"),
        "BWT": _write(found["bwt"], digits=3),
        "(paper)": _write(methods.paper_bwt),
        "(diff.)": _write(bwt - methods.paper_bwt, sign="+"),
        "train %": _write(found["train_accuracy"]),
        "remarks": ["; ".join(filter(None, texts)) for texts in remarks],
    }
    return without_empty(pd.DataFrame(columns, pd.Index(methods.label, name="method")))


def without_empty(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the columns of a table of texts that are empty."""
    return table.loc[:, (table != "").any()]


def _tasks_table(study: Study) -> pd.DataFrame:
    """Tabulate the mean final test accuracy on each task, with the paper's and training values below where known."""
    rows = []
    for name, method in study.compared.iterrows():
        paper = pd.Series(dict(enumerate(method.paper_tasks or (), 1)), dtype=float)
        rows.append((100 * study.by_task(name).mean()).rename(method.label))
        rows.append(paper.rename(f"{method.label} (paper)"))
        rows.append((100 * study.by_task(name, "train_accuracy").mean()).rename(f"{method.label} (training)"))
    table = pd.DataFrame([row for row in rows if len(row)], columns=range(1, study.tasks + 1))
    texts = table.map("{:.1f}".format, na_action="ignore").fillna("")
    return texts.add_prefix("task ", axis="columns").rename_axis("accuracy %")


def _strengths_table(study: Study) -> pd.DataFrame:
    """Tabulate candidates' validation and test accuracy: how strengths were chosen."""
    tables = []
    for name, method in study.methods.iterrows():
        candidates = study.run[study.run.candidate_of == name]
        if candidates.empty:
            continue
        if name in study.run.index and method.folder not in set(candidates.folder):
            candidates = pd.concat([candidates, study.run.loc[[name]]])
        test, validation = (100 * study.by_seed(key)[candidates.index] for key in ("accuracy", "validation_accuracy"))
        shared = test.dropna(axis="columns", how="all").dropna().index  # the seeds that all have
        test, validation = (values.loc[shared if len(shared) else values.index] for values in (test, validation))
        best = validation.mean().idxmax() if validation.notna().any(axis=None) else None
        remarks = [
            [
                "highest" if candidate.Index == best else "",
                "compared" if candidate.folder == method.folder else "",
                "" if pd.isna(candidate.paper_accuracy) else f"the paper's ({candidate.paper_accuracy:.2f})",
                "the script's own" if candidate.settings and candidate.settings == method.published else "",
                diverged(study, candidate.Index),
            ]
            for candidate in candidates.itertuples()
        ]
        columns = {
            "of": name,
            "validation %": _write(validation.agg(["mean", "sem"]).T),
            "test %": _write(test.agg(["mean", "sem"]).T),
            "n": test.count().astype(str).tolist(),
            "chosen": [", ".join(filter(None, texts)) for texts in remarks],
        }
        tables.append(pd.DataFrame(columns, pd.Index(candidates.label, name="candidate")))
    return without_empty(pd.concat(tables)) if tables else pd.DataFrame()


def tables(study: Study) -> dict[str, pd.DataFrame]:
    """Return all tables that have rows: accuracies, accuracies by task, and how strengths were chosen, by title."""
    found = {
        "Mean over tasks after the last task": _accuracy_table(study),
        "Mean final accuracy by task": _tasks_table(study),
        "Choosing strengths": _strengths_table(study),
    }
    return {title: table for title, table in found.items() if table.size}


def diverged(study: Study, method: str) -> str:
    """Say how many trials of a method diverged, such as "diverged (2 of 3), stable strength 0.5"; "" for none."""
    trials = study.of(method)
    lost = trials[trials.status == "diverged"]
    stable = [(cause or {}).get("stable_strength") for cause in lost.divergence]
    stable = [strength for strength in stable if isinstance(strength, int | float)]
    text = f"diverged ({len(lost)} of {len(trials)})" if len(lost) else ""
    return text + (f", stable strength {min(stable):.3g}" if stable else "")


def partial_data(study: Study, *methods: str) -> list[str]:
    """Return in what the data of some methods differ from what was published; nothing if they do not."""
    trials = study.of(*methods)
    items = [item for data in trials.data for item in data if item.get("complete") is False]
    missing = {f"{i.get('name')} ({i.get('split')}), {i.get('images')} of {i.get('published')} images" for i in items}
    return sorted(missing) + sorted({note.removeprefix("partial: ") for notes in trials.notes for note in notes or ()})


def _cautions(study: Study) -> list[str]:
    """Say what limits the numbers, or makes them incomparable."""
    compared, counts = study.compared, study.by_seed("accuracy").count()
    lines = [f"Changed protocol: {study.deviation}."] if study.deviation else []
    lines += [f"Partial data: {text}." for text in partial_data(study, *study.methods.index)]
    single = ", ".join(name for name in compared.index if counts[name] == 1)
    lines += [f"One seed only, no standard error: {single}."] if single else []
    lost = {method.label: diverged(study, name) for name, method in study.run.iterrows()}
    lines += [f"{label}: {text}." for label, text in lost.items() if text]
    trials = study.of(*compared.index).reset_index()
    codes = trials.method.groupby(trials.code.map(lambda code: code or "unknown").str[:12]).unique()
    if len(codes) > 1:
        versions = "; ".join(f"{code} ({', '.join(methods)})" for code, methods in codes.items())
        lines.append(f"Different code: rows that are compared come from different versions of the package: {versions}.")
    keys = ["name", "split", "fingerprint"]
    used = pd.DataFrame([[str(item.get(key)) for key in keys] for item in study.trials.data.explode()], columns=keys)
    versions_of_data = used.groupby(["name", "split"]).fingerprint.nunique()
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
        about.append(f"paired: minus {compared.label.iloc[0]}, over the seeds that both have")
    if compared[["paper_accuracy", "paper_bwt"]].notna().any(axis=None):
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
    methods = study.run
    found = measures(study).loc[methods.index]
    trials = [study.of(name) for name in methods.index]
    about = {"experiment": study.folder.name, "protocol": study.protocol, "method": methods.index}
    numbers = {
        f"{key}_{shown}_{unit}": found[key, column]
        for key, unit in UNITS.items()
        for column, shown in {"mean": "mean", "sem": "standard_error"}.items()
    }
    table = pd.DataFrame(about, methods.index).assign(
        label=methods.label,
        n=found["accuracy", "count"].astype(int),
        **numbers,
        paper_accuracy_percent=methods.paper_accuracy,
        paper_bwt_fraction=methods.paper_bwt,
        partial_protocol=study.deviation,
        partial_data=["; ".join(partial_data(study, name)) for name in methods.index],
        diverged=[diverged(study, name) for name in methods.index],
        seeds=[" ".join(map(str, rows.index.get_level_values("seed"))) for rows in trials],
        code=[" ".join(sorted({code[:12] for code in rows.code if code})) for rows in trials],
        candidate_of=methods.candidate_of,
    )
    table = table.map(lambda cell: f"'{cell}" if isinstance(cell, str) and cell.startswith(tuple("=+-@")) else cell)
    return table.to_csv(index=False, float_format="%.6g", lineterminator="\n")

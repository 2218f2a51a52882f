"""Tables over trials: mean, standard error, number of trials, and the paper's value beside it."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import pandas as pd

from avsi.results.study import MEASURES, Study

# Columns of numbers are right-aligned; what is not known or diverged is no reason against it.
NUMBER = re.compile(r"[-+]?\d[\d.e+-]*( ± [\d.]+)?|diverged|")


def _write(mean: pd.Series, error: pd.Series | None = None, digits: int = 2, sign: str = "") -> list[str]:
    """Write numbers with their standard errors; nothing for what is not known."""
    errors = [float("nan")] * len(mean) if error is None else error
    texts = []
    for number, spread in zip(mean, errors, strict=True):
        text = "" if pd.isna(number) else f"{round(number, digits) + 0.0:{sign}.{digits}f}"  # adding 0 makes 0 of -0
        texts.append(text if pd.isna(spread) else f"{text} ± {spread:.{digits}f}")
    return texts


def _accuracy_table(study: Study) -> pd.DataFrame:
    """Tabulate mean accuracy over tasks and BWT after the last task, beside the paper's values."""
    rows = study.summary[study.summary.candidate_of == ""]

    def estimates(key: str, **form: Any) -> list[str]:
        mean, error = (rows[MEASURES[key].format(which)] for which in ("mean", "standard_error"))
        return _write(mean, error, **form)

    columns = {
        "n": rows.n.astype(str).tolist(),
        "accuracy %": [text or "diverged" for text in estimates("accuracy")],
        "paired": [text * (index > 0) for index, text in enumerate(estimates("paired_difference", sign="+"))],
        "paper": _write(rows.paper_accuracy_percent),
        "diff.": _write(rows.accuracy_mean_percent - rows.paper_accuracy_percent, sign="+"),
        "BWT": estimates("bwt", digits=3),
        "(paper)": _write(rows.paper_bwt_fraction),
        "(diff.)": _write(rows.bwt_mean_fraction - rows.paper_bwt_fraction, sign="+"),
        "train %": estimates("train_accuracy"),
        "remarks": [
            "; ".join(filter(None, [row.diverged, "partial data" if row.partial_data else ""]))
            for row in rows.itertuples()
        ],
    }
    return without_empty(pd.DataFrame(columns, pd.Index(rows.label, name="method")))


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
        summary, asked = study.summary.loc[candidates.index], candidates.seeds.map(len, na_action="ignore").fillna(0)
        sound = candidates.index[(summary.diverged == "") & (summary.n >= asked)]  # which a sweep chooses among
        shared = test[sound].dropna(axis="columns", how="all").dropna().index  # the seeds that all of these have
        test, validation = (values.loc[shared if len(shared) else values.index] for values in (test, validation))
        best = validation[sound].mean().idxmax() if validation[sound].notna().any(axis=None) else None
        remarks = [
            [
                "highest" if candidate.Index == best else "",
                "compared" if candidate.folder == method.folder else "",
                "" if pd.isna(candidate.paper_accuracy) else f"the paper's ({candidate.paper_accuracy:.2f})",
                "the script's own" if candidate.settings and candidate.settings == method.published else "",
                study.summary.diverged[candidate.Index],
            ]
            for candidate in candidates.itertuples()
        ]
        columns = {
            "of": name,
            "validation %": _write(validation.mean(), validation.sem()),
            "test %": _write(test.mean(), test.sem()),
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


def _notes(study: Study) -> list[str]:
    """Say what the tables' columns mean, where the paper's values are from, and what limits or spoils comparisons."""
    compared, summary = study.compared, study.summary
    lines = [study.source] if study.source else []
    about = ["Accuracy: mean ± standard error over n seeds, tasks equally weighted"]
    if len(compared) > 1:
        about.append(f"paired: minus {compared.label.iloc[0]}, over the seeds that both have")
    if compared[["paper_accuracy", "paper_bwt"]].notna().any(axis=None):
        about.append("diff.: minus the paper's")
    lines.append("; ".join(about) + ".")
    if study.run.candidate_of.isin(study.methods.index).any():
        lines.append(
            "Choosing strengths: over the n seeds that all candidates have. The candidate with the highest mean "
            "validation accuracy is the one to choose; compared is the one of the other tables."
        )
    lines += [f"Changed protocol: {study.deviation}."] if study.deviation else []
    lines += [f"Partial data: {text}." for text in study.partial_data(*study.methods.index)]
    single = ", ".join(summary.method[(summary.n == 1) & (summary.candidate_of == "")])
    lines += [f"One seed only, no standard error: {single}."] if single else []
    lines += [f"{row.label}: {row.diverged}." for row in summary.itertuples() if row.diverged]
    trials = study.of(*compared.index).reset_index()
    codes = trials.method.groupby(trials.code.map(lambda code: code or "unknown").str[:12]).unique()
    if len(codes) > 1:
        versions = "; ".join(f"{code} ({', '.join(methods)})" for code, methods in codes.items())
        lines.append(f"Different code: rows that are compared come from different versions of the package: {versions}.")
    keys = ["name", "split", "fingerprint"]
    items = study.trials.data.explode().dropna()  # a benchmark that tells nothing of its data has none
    used = pd.DataFrame([[str(item.get(key)) for key in keys] for item in items], columns=keys)
    versions_of_data = used.groupby(["name", "split"]).fingerprint.nunique()
    lines += [
        f"Different data: the trials used {count} different versions of {name} ({split}); delete those of the wrong "
        "one and run again."
        for (name, split), count in versions_of_data.items()
        if count > 1
    ]
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
        >>> import pandas as pd
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
    lines = "".join(f"{literal(line)}  \n" for line in _notes(study))
    parts = [f"# {literal(study.heading)}\n\n{lines}"]
    parts += [f"## {title}\n\n{markdown_table(frame)}" for title, frame in tables(study).items()]
    parts += ["## Figures\n"] if figures else []
    parts += [f"![{literal(caption)}](<{file}>)\n" for file, caption in (figures or {}).items()]
    return "\n".join(parts)


def terminal(study: Study, width: int = 80) -> str:
    """Return the tables for a terminal of a width: heading, tables, what a reader must know."""
    shown = [f"{title}\n\n{terminal_table(frame, width)}\n" for title, frame in tables(study).items()]
    lines = [textwrap.fill(line, width) for line in _notes(study)]
    return "\n".join([study.heading, "", *shown, *lines])


def comma_separated(study: Study) -> str:
    """Return a CSV row for each method with trials, units in the header; no cell is a formula to a spreadsheet."""
    formulas = tuple("=+-@")
    table = study.summary.map(lambda cell: f"'{cell}" if isinstance(cell, str) and cell.startswith(formulas) else cell)
    return table.to_csv(index=False, float_format="%.6g", lineterminator="\n")

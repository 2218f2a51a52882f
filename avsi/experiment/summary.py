"""Tables over finished trials: mean, standard error, number of trials, and the paper's value beside it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from rich import box
from rich.table import Table

from avsi.experiment.spec import Reported
from avsi.experiment.study import Outcome, Study
from avsi.metrics import forgetting

MISSING = "-"


@dataclass(frozen=True)
class Estimate:
    """Mean and standard error of the mean over trials.

    Attributes:
        mean: The mean.
        error: Sample standard deviation / sqrt(n); None for a single trial.
        n: Number of trials.
    """

    mean: float
    error: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Estimate from one value per trial.

        Args:
            values: At least one value.

        Returns:
            The estimate.
        """
        error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
        return cls(fmean(values), error, len(values))

    def text(self, scale: float = 1.0, digits: int = 2) -> str:
        """Write it out.

        Args:
            scale: Factor, 100 for percent.
            digits: Digits after the point.

        Returns:
            ``mean ± error``, or the mean alone for one trial.
        """
        mean = f"{scale * self.mean:.{digits}f}"
        return mean if self.error is None else f"{mean} ± {scale * self.error:.{digits}f}"


@dataclass(frozen=True)
class Rows:
    """A table as text.

    Attributes:
        title: Heading.
        columns: Column names; the first column is left-aligned, the others right-aligned.
        rows: Cells.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Write it in Markdown.

        Returns:
            A table under a heading.
        """
        header, *rows = ([cell.replace("|", "\\|") for cell in row] for row in (self.columns, *self.rows))
        lines = [f"## {self.title}", "", "| " + " | ".join(header) + " |"]
        lines.append("| --- |" + " ---: |" * (len(header) - 1))
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join(lines) + "\n"

    def rich(self) -> Table:
        """Write it for the terminal.

        Returns:
            A table with its title.
        """
        table = Table(
            title=self.title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, collapse_padding=True
        )
        for index, column in enumerate(self.columns):
            # On a narrow terminal the names wrap; numbers stay whole.
            table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0)
        for row in self.rows:
            table.add_row(*row)
        return table


def accuracy_table(study: Study) -> Rows:
    """Tabulate mean accuracy over tasks and BWT after the last task, beside the paper's values.

    Args:
        study: The study; candidates are left out.

    Returns:
        The table. Columns of the paper's values, and the last one, which names what is partial, are there if needed.
    """
    columns = ["method", "accuracy %", "paper", "diff.", "BWT", "(paper)", "(diff.)", "n", "partial"]
    rows = []
    for method in study.compared:
        accuracy, bwt = Estimate.of(method.values("accuracy")), method.values("bwt")
        paper = method.reported
        partial = [word for word, text in (("protocol", study.deviation), ("data", partial_data([method]))) if text]
        rows.append(
            [
                method.label,
                accuracy.text(scale=100),
                MISSING if paper.accuracy is None else f"{paper.accuracy:.2f}",
                MISSING if paper.accuracy is None else _difference(100 * accuracy.mean, paper.accuracy),
                Estimate.of(bwt).text(digits=3) if bwt else MISSING,
                MISSING if paper.bwt is None else f"{paper.bwt:.2f}",
                MISSING if paper.bwt is None or not bwt else _difference(fmean(bwt), paper.bwt),
                str(accuracy.n),
                ", ".join(partial) or MISSING,
            ]
        )
    return Rows("Mean over tasks after the last task", *_without_empty(columns, rows))


def _difference(measured: float, reported: float) -> str:
    return f"{round(measured - reported, 2) + 0.0:+.2f}"  # adding 0 makes 0 of -0


def _without_empty(
    columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    kept = [i for i in range(len(columns)) if any(row[i] != MISSING for row in rows)]
    return tuple(columns[i] for i in kept), tuple(tuple(row[i] for i in kept) for row in rows)


def tasks_table(study: Study) -> Rows:
    """Tabulate the mean final test accuracy on each task, with the paper's values below where it gives them.

    Args:
        study: The study; candidates are left out.

    Returns:
        The table.
    """
    rows = []
    for method in study.compared:
        by_task = zip(*(trial["task_accuracy"] for trial in method.trials), strict=True)
        rows.append((method.label, *(f"{100 * fmean(values):.1f}" for values in by_task)))
        if method.reported.tasks:
            rows.append((f"{method.label} (paper)", *(f"{value:.1f}" for value in method.reported.tasks)))
    count = max(len(row) for row in rows) - 1 if rows else 0
    filled = tuple((*row, *[MISSING] * (count + 1 - len(row))) for row in rows)
    columns = ("accuracy %", *(f"task {task + 1}" for task in range(count)))
    return Rows("Mean final accuracy by task", columns, filled)


def strengths_table(study: Study) -> Rows:
    """Tabulate candidates' validation and test accuracy: how strengths were chosen.

    Candidates of a method are compared on the seeds that all of them have, if there are any. The one of the highest
    mean validation accuracy is the one to choose. A method that has the strength of one of its candidates shares its
    trials.

    Args:
        study: The study.

    Returns:
        The table, without rows where no candidate has finished trials.
    """
    rows = []
    for method in study.methods:
        candidates = [c for c in study.methods if c.candidate_of == method.name]
        if not any(candidate.trials for candidate in candidates):
            continue
        if method.folder not in {candidate.folder for candidate in candidates}:
            candidates.append(method)
        finished = _on_common_seeds([candidate for candidate in candidates if candidate.trials])
        measured = [c for c in finished if c.values("validation_accuracy")]
        best = max(measured, key=lambda c: fmean(c.values("validation_accuracy")), default=None)
        for candidate in finished:
            validation = candidate.values("validation_accuracy")
            accuracy = Estimate.of(candidate.values("accuracy"))
            paper = candidate.reported.accuracy if candidate.candidate_of else None
            remarks = [
                "highest" if candidate is best else "",
                "compared" if candidate.folder == method.folder else "",
                "the paper's" + (f" ({paper:.2f})" if paper is not None else "")
                if candidate.candidate_of and candidate.reported != Reported()
                else "",
            ]
            rows.append(
                [
                    method.name,
                    candidate.label,
                    Estimate.of(validation).text(scale=100) if validation else MISSING,
                    accuracy.text(scale=100),
                    str(accuracy.n),
                    ", ".join(filter(None, remarks)),
                ]
            )
    columns = ("method", "candidate", "validation accuracy %", "test accuracy %", "n", "chosen")
    return Rows("Choosing strengths", columns, tuple(tuple(row) for row in rows))


def _on_common_seeds(methods: Sequence[Outcome]) -> list[Outcome]:
    common = set.intersection(*({trial["seed"] for trial in method.trials} for method in methods))
    if not common:
        return list(methods)
    return [replace(m, trials=tuple(trial for trial in m.trials if trial["seed"] in common)) for m in methods]


def tables(study: Study) -> list[Rows]:
    """Make all tables that have rows.

    Args:
        study: The study.

    Returns:
        Accuracies, accuracies by task, and how strengths were chosen.
    """
    return [table for make in (accuracy_table, tasks_table, strengths_table) if (table := make(study)).rows]


def partial_data(methods: Sequence[Outcome]) -> list[str]:
    """Say in what the data differ from what was published, in any of the trials.

    Args:
        methods: Methods with their trials.

    Returns:
        Phrases; none for the published data.
    """
    trials = [trial for method in methods for trial in method.trials]
    missing = {
        (d["name"], d["split"], d["images"], d["published"]) for t in trials for d in t["data"] if not d["complete"]
    }
    texts = [f"{name} ({split}), {used} of {published} images" for name, split, used, published in sorted(missing)]
    return texts + sorted({note.removeprefix("partial: ") for trial in trials for note in trial.get("notes", ())})


def cautions(study: Study) -> list[str]:
    """Say what limits the numbers: a changed protocol, partial data, single seeds, trials that do not belong together.

    Args:
        study: The study.

    Returns:
        Sentences; none where there is nothing to say.
    """
    lines = [f"Changed protocol: {study.deviation}."] if study.deviation else []
    lines += [f"Partial data: {text}." for text in partial_data(study.methods)]
    single = [method.name for method in study.compared if len(method.trials) == 1]
    if single:
        lines.append(f"One seed only, no standard error: {', '.join(single)}.")
    versions: dict[tuple[str, str], set[str]] = {}
    for item in (item for trial in study.trials for item in trial["data"]):
        versions.setdefault((item["name"], item["split"]), set()).add(item["fingerprint"])
    for (name, split), fingerprints in sorted(versions.items()):
        if len(fingerprints) > 1:
            lines.append(
                f"Different data: the trials used {len(fingerprints)} different versions of {name} ({split}); delete "
                "those of the wrong one and run again."
            )
    return lines


def explanations(study: Study) -> list[str]:
    """Say what the tables' columns mean, and where the paper's values are from.

    Args:
        study: The study.

    Returns:
        Sentences.
    """
    lines = [
        study.source,
        "Accuracy: mean ± standard error over n seeds, tasks equally weighted; diff.: minus the paper's.",
    ]
    if strengths_table(study).rows:
        lines.append(
            "Choosing strengths: over the n seeds that all candidates have. The candidate with the highest mean "
            "validation accuracy is the one to choose; compared is the one of the other tables."
        )
    return lines


def markdown(study: Study) -> str:
    """Write the summary.

    Args:
        study: The study.

    Returns:
        A Markdown document: heading, what a reader must know, tables.
    """
    lines = "".join(f"{line}  \n" for line in (*explanations(study), *cautions(study)))
    return f"# {study.heading}\n\n{lines}\n" + "\n".join(table.markdown() for table in tables(study))


def comma_separated(study: Study) -> str:
    """Write one row for each method with finished trials, candidates included, with units in the header.

    Args:
        study: The study.

    Returns:
        A CSV file's text; empty cells where there is no value.
    """
    text = io.StringIO()
    rows = [_csv_row(study, method) for method in study.methods if method.trials]
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _csv_row(study: Study, method: Outcome) -> dict[str, str]:
    # Trials older than the key have the matrix.
    forgotten = [
        trial["forgetting"] if "forgetting" in trial else forgetting(trial["accuracy_matrix"])
        for trial in method.trials
        if trial.get("forgetting", trial["accuracy_matrix"]) is not None
    ]
    accuracy, paper = method.values("accuracy"), method.reported
    estimates = {
        "accuracy": (accuracy, 100, "percent"),
        "bwt": (method.values("bwt"), 1, "fraction"),
        "forgetting": (forgotten, 1, "fraction"),
        "validation_accuracy": (method.values("validation_accuracy"), 100, "percent"),
    }
    row = {"experiment": study.name, "protocol": study.protocol, "method": method.name, "label": method.label}
    row["n"] = str(len(method.trials))
    for name, (values, scale, unit) in estimates.items():
        estimate = Estimate.of(values) if values else None
        row[f"{name}_mean_{unit}"] = _number(scale * estimate.mean if estimate else None)
        row[f"{name}_standard_error_{unit}"] = _number(
            scale * estimate.error if estimate and estimate.error is not None else None
        )
    for name, value in (("accuracy", paper.accuracy), ("bwt", paper.bwt)):
        values, scale, unit = estimates[name]
        row[f"paper_{name}_{unit}"] = _number(value)
        difference = scale * fmean(values) - value if values and value is not None else None
        row[f"{name}_difference_{'percentage_points' if unit == 'percent' else unit}"] = _number(difference)
    return row | {
        "partial_protocol": study.deviation,
        "partial_data": "; ".join(partial_data([method])),
        "seeds": " ".join(str(trial["seed"]) for trial in method.trials),
        "candidate_of": method.candidate_of,
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"

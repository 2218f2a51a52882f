"""Tables over finished trials: mean, standard error, number of trials, and the paper's value beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rich import box
from rich.table import Table

from avsi.experiment.spec import Experiment, Method, Reported

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
        lines = [f"## {self.title}", "", "| " + " | ".join(self.columns) + " |"]
        lines.append("| --- |" + " ---: |" * (len(self.columns) - 1))
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
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


Trials = list[tuple[Method, list[dict[str, Any]]]]
"""Methods with their finished trials; methods without any are left out."""


def main_table(experiment: Experiment, trials: Trials) -> Rows:
    """Tabulate mean accuracy over tasks and BWT after the last task.

    Args:
        experiment: The experiment.
        trials: Finished trials by method.

    Returns:
        The table; the paper's columns are there if it reports anything.
    """
    columns = ["method", "accuracy %", "paper", "diff.", "BWT", "(paper)", "n"]
    rows = []
    for method, results in trials:
        accuracy = Estimate.of([result["accuracy"] for result in results])
        bwt = [result["bwt"] for result in results if result["bwt"] is not None]
        paper = method.reported or Reported()
        rows.append(
            [
                method.label or method.name,
                accuracy.text(scale=100),
                MISSING if paper.accuracy is None else f"{paper.accuracy:.2f}",
                MISSING if paper.accuracy is None else f"{100 * accuracy.mean - paper.accuracy:+.2f}",
                Estimate.of(bwt).text(digits=3) if bwt else MISSING,
                MISSING if paper.bwt is None else f"{paper.bwt:.2f}",
                str(accuracy.n),
            ]
        )
    for column in ("(paper)", "diff.", "paper"):
        index = columns.index(column)
        if all(row[index] == MISSING for row in rows):
            del columns[index]
            for row in rows:
                del row[index]
    title = f"{experiment.title}: mean over tasks after the last task"
    return Rows(title, tuple(columns), tuple(tuple(row) for row in rows))


def task_table(experiment: Experiment, trials: Trials) -> Rows:
    """Tabulate the mean final test accuracy on each task, with the paper's values below where it gives them.

    Args:
        experiment: The experiment.
        trials: Finished trials by method.

    Returns:
        The table.
    """
    rows = []
    for method, results in trials:
        label = method.label or method.name
        by_task = zip(*(result["task_accuracy"] for result in results), strict=True)
        rows.append((label, *(f"{100 * fmean(values):.1f}" for values in by_task)))
        if method.reported is not None and method.reported.tasks:
            rows.append((f"{label} (paper)", *(f"{value:.1f}" for value in method.reported.tasks)))
    count = max((len(row) for row in rows), default=1) - 1
    columns = ("accuracy %", *(f"task {task + 1}" for task in range(count)))
    return Rows(f"{experiment.title}: mean final accuracy by task", columns, tuple(rows))


def notes(experiment: Experiment, trials: Trials) -> list[str]:
    """Say what a reader must know about the numbers: source, changed protocol, partial data, single seeds.

    Args:
        experiment: The experiment.
        trials: Finished trials by method.

    Returns:
        Sentences.
    """
    lines = [f"{experiment.source}", "Accuracy: mean ± standard error over n seeds, tasks equally weighted."]
    if experiment.deviation:
        lines.append(f"Changed protocol: {experiment.deviation}.")
    single = [method.name for method, results in trials if len(results) == 1]
    if single:
        lines.append(f"One seed only, no standard error: {', '.join(single)}.")
    lines += sorted({note for _, results in trials for result in results for note in result.get("notes", ())})
    data = [item for _, results in trials for result in results for item in result["data"]]
    for name, split, used, published in sorted(
        {(d["name"], d["split"], d["images"], d["published"]) for d in data if not d["complete"]}
    ):
        lines.append(f"Partial data: {name} ({split}), {used} of {published} images.")
    versions: dict[tuple[str, str], set[str]] = {}
    for item in data:
        versions.setdefault((item["name"], item["split"]), set()).add(item["fingerprint"])
    for (name, split), fingerprints in versions.items():
        if len(fingerprints) > 1:
            lines.append(
                f"Different data: the trials used {len(fingerprints)} different versions of {name} ({split}); delete "
                "those of the wrong one and run again."
            )
    return lines

"""Every table and figure of the papers at a glance: what was measured here, what the paper reports, and the verdict.

Writes README.md beside this script, from the results beside it:

    python reproductions/overview.py

Numbers come from the results' files alone. Verdicts and causes are judgements, written below by hand.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from avsi.files import write_text
from avsi.results import trials
from avsi.scenarios.imbalanced_permuted_mnist import TABLE_2

HERE = Path(__file__).parent
RESULTS = HERE / "results"
HEADER = """# Reproductions

Every table and figure of the papers, each with the script that runs it. Ours is the mean over n seeds of the final
test accuracy, tasks equally weighted, with its standard error; the paper's value is in brackets. n = 1 is one seed.
Trials, summaries and figures are in `results/`; `python -m avsi.results report reproductions/results` makes a page of
them. This file is made by `python reproductions/overview.py`.

SI: Zenke, Poole & Ganguli, "Continual learning through synaptic intelligence" (ICML 2017). Workshop: the same authors,
"Intelligent synapses for multi-task and transfer learning" (ICLR 2017 workshop). DHP: Thangarasa, Miconi & Taylor,
"Differentiable Hebbian consolidation for continual learning" (submission to ICLR 2020); its networks without DHP are
the matched ones.

"""


@dataclass(frozen=True)
class Cell:
    """A number of ours beside the paper's.

    Attributes:
        label: What it is called.
        method: The method whose trials count.
        paper: What the paper reports, in percent or in words.
        task: The only task that counts, from 1; None: the mean over tasks.
        thinned: Whether test sets count as thinned out like the training data.
    """

    label: str
    method: str
    paper: str | float = ""
    task: int | None = None
    thinned: bool = False

    def text(self, finished: pd.DataFrame) -> str:
        """Write it out.

        Args:
            finished: The experiment's finished trials.

        Returns:
            Such as "SI 99.12 ± 0.05 (98.9), n = 10"; that it was not run where there are no trials.
        """
        rows = finished[finished.method == self.method]
        paper = f" ({self.paper})" if self.paper != "" else ""
        if rows.empty:
            return f"{self.label} not run{paper}"
        if self.thinned:
            values = rows.class_accuracy.map(thinned_accuracy)
        elif self.task:
            values = rows.task_accuracy.str[self.task - 1]
        else:
            values = rows.accuracy
        percent = 100 * values.astype(float)
        error = f" ± {percent.sem():.2f}" if len(percent) > 1 else ""
        return f"{self.label} {percent.mean():.2f}{error}{paper}, n = {len(percent)}"


@dataclass(frozen=True)
class Item:
    """A table or figure, or a part of one in one reading.

    Attributes:
        what: Paper, number, benchmark and reading.
        experiment: Folder of its results.
        command: The script and its arguments.
        cells: Its numbers.
        verdict: Reproduced, partly, not, or partial data; what is missing.
        cause: The cause of a difference, as far as it was found by experiment.
    """

    what: str
    experiment: str
    command: str
    cells: tuple[Cell, ...] = ()
    verdict: str = "not run"
    cause: str = ""

    def ours(self, results: pd.DataFrame) -> str:
        """Write its numbers out.

        Args:
            results: All trials.

        Returns:
            A line for each number.
        """
        finished = results[
            (results.experiment == self.experiment) & (results.deviation == "") & (results.status == "finished")
        ]
        return "<br>".join(cell.text(finished) for cell in self.cells)


class Curvature(Item):
    """SI's importance against measures at the end point, whose numbers are correlations."""

    def ours(self, results: pd.DataFrame) -> str:
        """Write the correlations out.

        Args:
            results: Not needed.

        Returns:
            A line for each layer and measure; that it was not run where there is no file.
        """
        file = RESULTS / self.experiment / "correlations.json"
        if not file.is_file():
            return "not run"
        found = pd.DataFrame(json.loads(file.read_text())["rows"])
        means = found.groupby(["layer", "measure"], sort=False)[["spearman", "pearson"]].mean()
        lines = [
            f"{layer}, {measure}: rank correlation {row.spearman:.2f}, Pearson's {row.pearson:.2f}"
            for (layer, measure), row in means.iterrows()
        ]
        return "<br>".join([*lines, f"n = {found.seed.nunique()}"])


class Quadratic(Item):
    """The analysis of quadratic losses, whose numbers are relative errors."""

    def ours(self, results: pd.DataFrame) -> str:
        """Write the relative errors out.

        Args:
            results: Not needed.

        Returns:
            A line for each equation.
        """
        found = json.loads((RESULTS / self.experiment / "quadratic.json").read_text())["comparisons"]
        return "<br>".join(f"{case['case']}: relative error {100 * case['error']:.2f} %" for case in found)


def thinned_accuracy(classes: Sequence[Sequence[float]]) -> float:
    """Compute the accuracy to be expected on test sets thinned out like Table 2's training sets.

    Args:
        classes: For each task the accuracies on its ten digits.

    Returns:
        The mean over tasks, in [0, 1].
    """
    return float(np.mean([np.average(row, weights=counts) for row, counts in zip(classes, TABLE_2, strict=True)]))


def table_1(paper: Sequence[float], matched: bool = True, **reading: bool) -> tuple[Cell, ...]:
    """List the methods of a column of the DHP paper's Table 1.

    Args:
        paper: Its accuracies, in the order below; methods without DHP have matched networks there.
        matched: Whether the matched networks were run.
        **reading: Further arguments of `Cell`.

    Returns:
        The cells; plain networks too, without a value of the paper's.
    """
    plain = {"finetune": "fine-tuning", "si": "SI", "online_ewc": "Online EWC", "mas": "MAS"}
    hebbian = {"dhp": "DHP"} | {f"dhp+{name}": f"DHP + {label}" for name, label in list(plain.items())[1:]}
    controls = [
        Cell(f"{label}, matched", f"{name}_matched", value, **reading)
        for (name, label), value in zip(plain.items(), paper[:4], strict=True)
        if matched
    ]
    alone = [
        Cell(label, name, "" if matched else value, **reading)
        for (name, label), value in zip(plain.items(), paper[:4], strict=True)
    ]
    together = [
        Cell(label, name, value, **reading) for (name, label), value in zip(hebbian.items(), paper[4:], strict=True)
    ]
    return (*controls, *alone, *together)


# Table 1: fine-tuning, SI, Online EWC, MAS, then DHP alone and with them.
PERMUTED = (76.73, 84.72, 86.24, 88.52, 78.49, 85.20, 87.30, 89.53)
IMBALANCED = (76.44, 85.92, 87.18, 87.32, 80.85, 85.39, 87.43, 88.80)
SPLIT = (90.43, 97.77, 97.65, 98.24, 98.23, 99.15, 98.96, 98.43)
VISION = (60.02, 81.26, 78.61, 78.51, 62.94, 81.75, 79.10, 80.66)

TABLE_4 = {"split": "reproduced: within 0.13 points of each other (0.15), 0.2 to 0.3 above the paper"}

ITEMS = (
    Item(
        "SI, Figure 3: split MNIST",
        "split_mnist_zenke",
        "split_mnist.py",
        (
            Cell("SI, c = 1", "si", "near 100"),
            Cell("fine-tuning", "finetune", "falls"),
            Cell("fine-tuning, task 2", "finetune", "near 50", task=2),
            Cell("SI, task 2", "si", task=2),
            Cell("Avalanche's own SI", "avalanche_si"),
            Cell("from scratch", "scratch"),
            Cell("joint", "joint"),
        ),
        "reproduced",
        "Output layers start at zero, as in the authors' code. An earlier run with PyTorch's own start of them had "
        "fine-tuning at 94.",
    ),
    Item(
        "SI, Figure 4: permuted MNIST",
        "permuted_mnist_zenke",
        "permuted_mnist.py --protocol zenke",
        (Cell("SI, c = 0.1", "si", 96.9), Cell("fine-tuning", "finetune", 57.4)),
    ),
    Item(
        "SI, Figure 6: split CIFAR-10/100",
        "split_cifar",
        "split_cifar.py",
        (
            Cell("SI, c = 0.01", "si", 73.5),
            Cell("SI, c = 0.1", "si_0.1", 72.0),
            Cell("fine-tuning", "finetune", 62.5),
            Cell("from scratch", "scratch", 71.1),
        ),
    ),
    Item(
        "SI, Figure 5: correlation of importances",
        "importance_correlation",
        "importance_correlation.py",
        verdict="not run at full size; shortened, its first layer agrees and its second does not",
    ),
    Quadratic("SI, section 4: quadratic losses", "quadratic", "quadratic.py", verdict="reproduced"),
    Curvature(
        "SI, section 4: importance and measures at the end point",
        "importance_and_curvature",
        "importance_and_curvature.py",
        verdict="reproduced: correlated, as the paper says without numbers; the output layer least with MAS",
    ),
    Item(
        "Workshop, Figure 3, left: CIFAR-10",
        "transfer_cifar",
        "transfer.py",
        (Cell("SI, task 2", "si", task=2), Cell("fine-tuning, task 2", "finetune", task=2)),
    ),
    Item(
        "Workshop, Figure 3, right: MNIST with backgrounds",
        "transfer_mnist_background",
        "transfer.py --protocol mnist_background",
        (Cell("SI, task 2", "si", task=2), Cell("fine-tuning, task 2", "finetune", task=2)),
    ),
    Item(
        "DHP, Table 1 and Figure 2b: split MNIST",
        "split_mnist_dhp",
        "split_mnist.py --protocol dhp",
        table_1(SPLIT),
        "partly: SI, Online EWC and all rows with DHP at or above the paper; MAS with plain networks 0.1 below; "
        "fine-tuning far above; what plasticity contributes is not reproduced",
        "With SI, Online EWC and MAS the matched networks reach what DHP reaches: the gain over plain networks is that "
        "of the output layer's start (Listing 1's), not of the traces. Alone, DHP is 1.0 above matched fine-tuning.",
    ),
    Item(
        "DHP, Table 1 and Figure 2a: permuted MNIST, early stopping",
        "permuted_mnist_dhp",
        "permuted_mnist.py",
        table_1(PERMUTED, matched=False),
        "partly: all above the paper, one seed, without the matched networks; an optimizer that is not fused, "
        "validation images drawn another way than by today's script",
        "Tasks take 10 to 72 epochs. Strengths chosen on validation data.",
    ),
    Item(
        "DHP, Table 1 and Figure 2a: permuted MNIST, ten epochs",
        "permuted_mnist_ten_epochs",
        "permuted_mnist.py --protocol ten_epochs",
        table_1(PERMUTED),
    ),
    Item(
        "DHP, Table 1 and Figure 5: imbalanced permuted MNIST, early stopping, whole test sets",
        "imbalanced_permuted_mnist",
        "imbalanced_permuted_mnist.py",
        table_1(IMBALANCED, matched=False),
        "partly: DHP + SI above the paper, the others 0.8 to 3.8 below; one seed, as above",
        "On validation data, thinned out like the training data, accuracies are 3.0 to 3.8 points higher.",
    ),
    Item(
        "DHP, Table 1 and Figure 5: imbalanced permuted MNIST, ten epochs, thinned test sets",
        "imbalanced_permuted_mnist_ten_epochs",
        "imbalanced_permuted_mnist.py --protocol ten_epochs",
        table_1(IMBALANCED, thinned=True),
    ),
    Item(
        "DHP, Table 1 and Figure 6: vision mixture without SVHN",
        "five_vision_without_svhn",
        "five_vision.py --protocol without_svhn",
        table_1(("",) * 8),
    ),
    Item(
        "DHP, Figure 3: what moves eta (permuted MNIST, five tasks)",
        "plasticity",
        "plasticity.py",
        (
            Cell("eta projected onto [0, 1]", "dhp"),
            Cell("eta free", "dhp_free"),
            Cell("eta a sigmoid", "dhp_sigmoid"),
            Cell("unit features", "dhp_unit"),
            Cell("eta's learning rate 0.0001", "dhp_eta_lr_0.0001"),
            Cell("alpha = 0: no plasticity", "dhp_no_alpha"),
        ),
        "partly: eta rises from 0.001 to 0.026 in task 1 (0.024) and decays in task 3; from task 4 on it rises and "
        "decays within a task, but a hundredfold lower",
        "Free, eta falls below 0 in task 4 and the traces grow to 1,400. As a sigmoid it does not move. With unit "
        "features it keeps rising. Without plasticity accuracy is the same.",
    ),
    *(
        Item(
            f"DHP, Table 4: initial eta, {name}",
            f"eta_sensitivity_{name}",
            f"eta_sensitivity.py --protocol {name}",
            tuple(Cell(f"eta = {eta}", f"dhp_{eta}", value) for eta, value in zip(etas, values, strict=True)),
            TABLE_4.get(name, "not run"),
        )
        for etas in (("0.1", "0.01", "0.001", "0.0005", "0.0001"),)
        for name, values in {
            "permuted": (77.43, 78.60, 78.49, 78.05, 77.83),
            "imbalanced": (80.00, 80.13, 80.85, 80.40, 80.47),
            "split": (98.43, 98.47, 98.32, 98.37, 98.43),
        }.items()
    ),
    Item("DHP, Figure 8: split CIFAR-10/100", "split_cifar", "split_cifar.py", (Cell("DHP", "dhp", 61.28),)),
)


def overview() -> str:
    """Make the page.

    Returns:
        Markdown.
    """
    results = trials(RESULTS)
    rows = [
        ("table or figure", "ours (paper), %", "verdict", "cause, found by experiment", "command"),
        ("---",) * 5,
        *(
            (item.what, item.ours(results), item.verdict, item.cause, f"`python reproductions/{item.command}`")
            for item in ITEMS
        ),
    ]
    return HEADER + "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    write_text(HERE / "README.md", overview())

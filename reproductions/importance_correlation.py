"""Correlation of importances between tasks: Figure 5 of Zenke, Poole & Ganguli (ICML 2017).

SI's path integrals omega_k of the ten tasks of permuted MNIST, correlated between tasks over the weights k of a layer,
without consolidation (c = 0) and with it (c = 0.1). The network and its training are those of Figure 4: MLP of
2000-2000 ReLU units, Adam whose state is kept, batches of 256, 20 epochs per task, xi = 0.1.

The paper's figure gives shades, not numbers: importances in the first layer are uncorrelated in both, since the tasks'
inputs are; those in the second layer become more correlated with more tasks without consolidation, and consolidation
prevents strong correlations. The figure shows those two layers. Numbers are there for the output layer, and for the
normalised omega / (Delta^2 + xi), too.

Each strength's numbers are written when it is done, and are not measured again.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from analysis import (
    LAYERS,
    DataOptions,
    RecordingSI,
    check_least,
    correlations,
    folder_name,
    run_analysis,
    train_plainly,
)
from matplotlib.figure import Figure

from avsi.experiment import ExperimentError
from avsi.files import write_json, write_text
from avsi.launch.preparing import check_device
from avsi.models import MLP, glorot_uniform
from avsi.results import heat_map, markdown_table, save_figure, say, terminal_table
from avsi.results.store import prepare
from avsi.scenarios import build, permute

DAMPING = 0.1


@dataclass(frozen=True)
class Options(DataOptions):
    """What to measure and where to write it; the defaults are the paper's protocol."""

    strengths: tuple[float, ...] = (0.0, 0.1)
    """Strengths c, a row of the figure each."""
    tasks: int = 10
    """Number of tasks, at least 2."""
    epochs: int = 20
    """Epochs per task."""
    hidden: tuple[int, int] = (2000, 2000)
    """Sizes of the hidden layers."""
    batch_size: int = 256
    """Training batch size."""
    seed: int = 0
    """Decides permutations, initial weights and batches."""
    device: str = "auto"
    """Torch device, such as cpu or cuda:0; auto: the first GPU where there is one, else the CPU."""

    def check(self) -> None:
        """Refuse what cannot be measured."""
        check_least(self, tasks=2, epochs=1, batch_size=1, seed=0)
        if min(self.hidden) < 1:
            raise ExperimentError(f"hidden layers need at least 1 unit, got {self.hidden}")
        if not self.strengths or not all(0 <= c < float("inf") for c in self.strengths):
            raise ExperimentError(f"strengths must be finite and at least 0, and one at least, got {self.strengths}")

    @property
    def protocol(self) -> dict:
        """What the numbers depend on, but for c."""
        names = ("tasks", "epochs", "hidden", "batch_size", "dataset", "seed")
        return {name: getattr(self, name) for name in names} | {"hidden": list(self.hidden)}

    @property
    def changes(self) -> dict:
        """The part of the protocol that is not the default."""
        return {name: value for name, value in self.protocol.items() if value != Options().protocol[name]}

    @property
    def deviation(self) -> str:
        """How the protocol differs from the paper's; empty if it does not."""
        paper = Options().protocol
        return "; ".join(f"{n} {value} instead of {paper[n]}" for n, value in self.changes.items() if n != "seed")

    @property
    def folder(self) -> str:
        """Name of the folder for results."""
        return folder_name("importance_correlation", self.changes)


def measure(options: Options, strength: float) -> dict:
    """Train on all tasks; for both quantities, by layer, return the correlations between tasks, (tasks, tasks)."""
    source = options.load()
    stream = build(permute(source, tasks=options.tasks, seed=options.seed), scenario="domain").train_stream
    torch.manual_seed(options.seed)
    inputs, classes = source.train.images[0].numel(), len(source.classes)
    model = MLP(inputs, options.hidden, classes, init=glorot_uniform).to(options.device)
    si = RecordingSI(strength, damping=DAMPING)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999), fused=True)
    how = {"batch_size": options.batch_size, "epochs": options.epochs, "device": options.device}
    train_plainly(model, optimizer, stream, [si], **how)
    return {
        quantity: {
            layer: correlations(torch.stack([task[name].flatten() for task in tasks])).tolist()
            for name, layer in LAYERS.items()
        }
        for quantity, tasks in (("omega", si.omega), ("normalised", si.added))
    }


def measured(options: Options, strength: float, folder: Path) -> dict:
    """Read a strength's numbers where they are, or measure and write them."""
    path = folder / f"c-{strength:g}.json"
    if path.exists():
        return json.loads(path.read_text())["correlations"]
    found = measure(options, strength)
    protocol = {"strength": strength, "damping": DAMPING} | options.protocol
    write_json(path, {"protocol": protocol, "deviation": options.deviation, "correlations": found})
    return found


def tabulate(found: dict[float, dict]) -> pd.DataFrame:
    """Tabulate by strength the correlations between different tasks: means over pairs, greatest, last two tasks."""
    rows = []
    for strength, quantities in found.items():
        for quantity, label in (("omega", "ω"), ("normalised", "ω / (Δ² + ξ)")):
            for layer, matrix in quantities[quantity].items():
                pairs = [value for row, values in enumerate(matrix) for value in values[row + 1 :]]  # each once
                values = (sum(pairs) / len(pairs), max(pairs), matrix[-2][-1])
                rows.append((f"c = {strength:g}, {layer}, {label}", *(f"{value:.3f}" for value in values)))
    columns = ("importances", "mean", "greatest", "last two tasks")
    return pd.DataFrame(rows, columns=columns).set_index("importances")


def draw(found: dict[float, dict], note: str) -> Figure:
    """Draw Figure 5: a row for each strength, first and second layer side by side."""
    layers = list(LAYERS.values())[:2]
    figure = Figure(figsize=(8.6, 0.6 + 4.0 * len(found)), layout="constrained")
    grid = figure.subplots(len(found), len(layers), squeeze=False)
    for row, (strength, quantities) in zip(grid, found.items(), strict=True):
        for axes, layer in zip(row, layers, strict=True):
            mesh = heat_map(axes, quantities["omega"][layer], low=0, high=1)
            axes.set_title(f"c = {strength:g}, {layer}", loc="left", fontsize=10)
            axes.set_xlabel("task")
            axes.set_ylabel("task")
    figure.colorbar(mesh, ax=list(grid.flat), shrink=0.6, label="correlation of ω (0 and below: white)")
    figure.suptitle(note, fontsize=10)
    return figure


def main(options: Options) -> None:
    """Measure what is missing, write table and figure, and print the table."""
    options.check()
    options = replace(options, device=check_device(options.device))
    folder = prepare(options.out) / options.folder
    found = {}
    for strength in dict.fromkeys(options.strengths):
        found[strength] = measured(options, strength, folder)
        say(f"c = {strength:g}: done")
    table = tabulate(found)
    source = "Zenke, Poole & Ganguli (ICML 2017), Figure 5: permuted MNIST, one seed. Numbers: c-*.json."
    changed = f"Changed protocol: {options.deviation}." if options.deviation else ""
    text = f"# Correlation of importances between tasks\n\n{source}  \n{changed}\n\n{markdown_table(table)}"
    write_text(folder / "summary.md", text)
    files = save_figure(draw(found, changed or "Permuted MNIST"), folder / "importance_correlation")
    say(f"{terminal_table(table)}\n{changed}\nTable: {folder / 'summary.md'}   Figure: {files[0]}")


if __name__ == "__main__":
    run_analysis(main, Options, __doc__)

"""SI's importance against measures at the end point of training: section 4 of Zenke, Poole & Ganguli (ICML 2017).

On quadratic losses the path integral gives the Hessian's diagonal (quadratic.py). "For more general loss functions
[...] we cannot expect any simple mathematical correspondence"; in practice, the paper finds, "our importance measure is
correlated to measures based on such endpoint estimates". It gives no numbers.

Here they are, for networks after a first task: MLP of 256-256 ReLU units on all of MNIST, Adam, batches of 256.
omega / (Delta^2 + xi) of SI is correlated with the diagonal of the Hessian, which for a network of ReLU units is the
Fisher information in expectation over the model's outputs; with the empirical Fisher information; and with MAS's
sensitivity. By layer: Pearson's correlation, and Spearman's, of ranks, which does not ask for a line.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from analysis import RecordingSI, run_analysis, train_plainly
from rich.console import Console

from avsi import fisher_diagonal, mas_importance
from avsi.files import write_json, write_text
from avsi.models import MLP, glorot_uniform
from avsi.results import markdown_table, terminal_table
from avsi.scenarios import Source, build, permute

LAYERS = {"features.1.weight": "first layer", "features.3.weight": "second layer", "head.weight": "output layer"}


@dataclass(frozen=True)
class Options:
    """What to measure and where to write it."""

    epochs: int = 10
    """Epochs of training."""
    damping: float = 1e-3
    """SI's xi."""
    seeds: int = 3
    """Number of networks."""
    dataset: str = "mnist"
    """Data set of grey images."""
    data_root: Path | None = None
    """Folder of prepared data sets; default: $AVSI_DATA, else the user's cache folder."""
    download: bool = True
    """Obtain missing data sets from their publishers."""
    out: Path = Path("results")
    """Folder for results; they go into its folder importance_and_curvature."""


def measure(options: Options, seed: int) -> pd.DataFrame:
    """Train a network and correlate its importances.

    Args:
        options: The protocol.
        seed: Decides initial weights and batches.

    Returns:
        A row for each layer and measure.
    """
    source = Source.load(options.dataset, options.data_root, options.download)
    (experience,) = build(permute(source, tasks=1), scenario="domain").train_stream
    torch.manual_seed(seed)
    model = MLP(source.train.images[0].numel(), (256, 256), len(source.classes), init=glorot_uniform)
    si = RecordingSI(damping=options.damping)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    train_plainly(model, optimizer, [experience], [si], batch_size=256, epochs=options.epochs)
    images, labels = source.train.images.float() / 255, source.train.labels
    batches = [(images[i : i + 512], labels[i : i + 512]) for i in range(0, len(labels), 512)]
    endpoint = {
        "Hessian (Fisher, exact)": fisher_diagonal(model, batches, labels="exact"),
        "Fisher, empirical": fisher_diagonal(model, batches, labels="empirical"),
        "MAS": mas_importance(model, batches),
    }
    rows = []
    for name, layer in LAYERS.items():
        ours = pd.Series(si.added[0][name].flatten().numpy())
        for measured, importance in endpoint.items():
            theirs = pd.Series(importance[name].flatten().numpy())
            # Pixels that are 0 in all images have importance 0 in every measure, and would count as agreement.
            moved = (ours != 0) & (theirs != 0)
            pair = ours[moved], theirs[moved]
            correlations = {kind: pair[0].corr(pair[1], method=kind) for kind in ("pearson", "spearman")}
            rows.append({"layer": layer, "measure": measured, "seed": seed, "weights": int(moved.sum())} | correlations)
    return pd.DataFrame(rows)


def main(options: Options) -> None:
    """Measure, write the table and print it.

    Args:
        options: What to measure and where to write it.
    """
    found = pd.concat([measure(options, seed) for seed in range(options.seeds)])
    means = found.groupby(["layer", "measure"], sort=False)[["pearson", "spearman"]].mean()
    table = means.map("{:.2f}".format).reset_index().set_index("layer")
    folder = options.out / "importance_and_curvature"
    protocol = f"{options.dataset}, {options.epochs} epochs, xi = {options.damping:g}, mean of {options.seeds} seeds."
    write_json(folder / "correlations.json", {"protocol": protocol, "rows": found.to_dict("records")})
    text = f"# SI's importance and measures at the end point\n\nCorrelations over weights: {protocol}\n\n"
    write_text(folder / "summary.md", text + markdown_table(table))
    Console().print(terminal_table(table), markup=False, highlight=False)


if __name__ == "__main__":
    run_analysis(main, Options, __doc__)

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

import pandas as pd
import torch
from analysis import (
    LAYERS,
    DataOptions,
    RecordingSI,
    changes,
    check_least,
    folder_name,
    run_analysis,
    train_plainly,
)

from avsi import fisher_diagonal, mas_importance
from avsi.experiment import ExperimentError
from avsi.files import write_json, write_text
from avsi.models import MLP, glorot_uniform
from avsi.results import markdown_table, say, terminal_table
from avsi.results.store import prepare
from avsi.scenarios import build, permute


@dataclass(frozen=True)
class Options(DataOptions):
    """What to measure and where to write it."""

    epochs: int = 10
    """Epochs of training."""
    damping: float = 1e-3
    """SI's xi."""
    seeds: int = 3
    """Number of networks."""

    def check(self) -> None:
        """Refuse what cannot be measured."""
        check_least(self, epochs=1, seeds=1)
        if not 0 < self.damping < float("inf"):
            raise ExperimentError(f"damping must be finite and greater than 0, got {self.damping}")


def measure(options: Options, seed: int) -> pd.DataFrame:
    """Train a network from a seed and correlate its importances: a row for each layer and measure."""
    source = options.load()
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
    """Measure, write the table and print it."""
    options.check()
    folder = prepare(options.out) / folder_name("importance_and_curvature", changes(options))
    found = pd.concat([measure(options, seed) for seed in range(options.seeds)])
    means = found.groupby(["layer", "measure"], sort=False)[["pearson", "spearman"]].mean()
    table = means.map("{:.2f}".format).reset_index().set_index("layer")
    protocol = f"{options.dataset}, {options.epochs} epochs, xi = {options.damping:g}, mean of {options.seeds} seeds."
    write_json(folder / "correlations.json", {"protocol": protocol, "rows": found.to_dict("records")})
    text = f"# SI's importance and measures at the end point\n\nCorrelations over weights: {protocol}\n\n"
    write_text(folder / "summary.md", text + markdown_table(table))
    say(terminal_table(table))


if __name__ == "__main__":
    run_analysis(main, Options, __doc__)

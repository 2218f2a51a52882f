"""What the reproductions of analyses share, which are not comparisons of methods over trials."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import avsi  # noqa: F401  before Avalanche: it keeps back a warning that users can do nothing about

# isort: split
import torch
import tyro
from avalanche.training import Naive
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor, nn

from avsi.data import DataError
from avsi.experiment.spec import ExperimentError
from avsi.launch.cli import exits_explained
from avsi.plugins import SIPlugin
from avsi.plugins.batches import InMemoryBatches
from avsi.plugins.evaluation import silent_evaluator
from avsi.scenarios import Source

Options = TypeVar("Options")
LAYERS = {"features.1.weight": "first layer", "features.3.weight": "second layer", "head.weight": "output layer"}
"""Weights of an MLP of two hidden layers, and what tables call them."""


@dataclass(frozen=True)
class DataOptions:
    """What analyses of networks have in common: their data, and where results go."""

    dataset: str = "mnist"
    """Data set of grey images."""
    data_root: Path | None = None
    """Folder of prepared data sets; default: $AVSI_DATA, else the user's cache folder."""
    download: bool = True
    """Obtain missing data sets from their publishers."""
    out: Path = Path("results")
    """Folder for results; they go into a folder in it that is named after the analysis and what was changed."""

    def load(self) -> Source:
        """Load the data set."""
        return Source.load(self.dataset, self.data_root, self.download)


def changes(options: Any, but: Sequence[str] = ("out", "data_root", "download", "device")) -> dict[str, Any]:
    """List the options that are not the defaults, but for those on which no numbers depend."""
    return {
        field.name: getattr(options, field.name)
        for field in fields(options)
        if field.name not in but and getattr(options, field.name) != field.default
    }


def folder_name(analysis: str, changed: Mapping[str, Any]) -> str:
    """Name the folder for results: one for each protocol and seed, so that none overwrites another's."""
    words = [word for n, v in changed.items() for word in (n, *(v if isinstance(v, list | tuple) else [v]))]
    return "-".join([analysis, *map(str, words)])


def check_least(options: Any, **least: int) -> None:
    """Refuse options that are smaller than these least values."""
    for name, value in least.items():
        if getattr(options, name) < value:
            raise ExperimentError(f"{name} must be at least {value}, got {getattr(options, name)}")


def run_analysis(
    analyse: Callable[[Options], None], options: type[Options], description: str, args: list[str] | None = None
) -> None:
    """Run an analysis from the command line; exits with status 2 on a user's mistake."""
    chosen = tyro.cli(options, description=description, args=args)
    with exits_explained("stopped"):
        try:
            analyse(chosen)
        except DataError as error:
            raise ExperimentError(str(error)) from error


class RecordingSI(SIPlugin):
    """Synaptic Intelligence that keeps what each experience added, and measures without penalty by default."""

    def __init__(self, strength: float = 0.0, *, damping: float = 0.1) -> None:
        super().__init__(strength, damping=damping)
        # For each experience, by parameter name and of the parameter's shape:
        self.omega: list[dict[str, Tensor]] = []  # omega at its end
        self.added: list[dict[str, Tensor]] = []  # omega / (Delta^2 + xi)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Keep what the experience adds, and consolidate."""
        parameters = {name: p for name, p in strategy.model.named_parameters() if name in self.path_integral}
        self.omega.append({name: omega.clone() for name, omega in self.path_integral.items()})
        self.added.append(self.core.added_importance(parameters))
        super().after_training_exp(strategy, *args, **kwargs)


def train_plainly(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    experiences: Iterable[Any],
    plugins: Sequence[SupervisedPlugin],
    *,
    criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
    batch_size: int,
    epochs: int = 1,
    device: str = "cpu",
) -> None:
    """Train on one experience after the other, without evaluation; the optimizer's state is kept in between."""
    strategy = Naive(
        model=model,
        optimizer=optimizer,
        criterion=criterion or nn.CrossEntropyLoss(),
        train_mb_size=batch_size,
        train_epochs=epochs,
        device=device,
        evaluator=silent_evaluator(),
        plugins=[*plugins, InMemoryBatches(on_device=device != "cpu")],
    )
    for experience in experiences:
        strategy.train(experience, eval_streams=[])


def correlations(rows: Tensor) -> Tensor:
    """Compute Pearson's correlation coefficients (T, T) between the rows (T, K) of a matrix, in float64."""
    for index, row in enumerate(rows):
        if not torch.isfinite(row).all() or bool((row == row[0]).all()):
            raise ValueError(f"row {index} is constant or not finite; its correlation with others is not defined")
    found = torch.corrcoef(rows.double())
    return ((found + found.T) / 2).fill_diagonal_(1)  # as rounding does not leave it

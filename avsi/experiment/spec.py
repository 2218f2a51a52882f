"""What an experiment is: a benchmark, a model, a training protocol, methods, and what the paper reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from avsi.experiment.description import describe, digest
from avsi.experiment.early_stopping import Patience

Regime = Literal["sequential", "independent", "joint"]


@dataclass(frozen=True)
class Reported:
    """What a paper reports for a method, in percent.

    Attributes:
        accuracy: Mean test accuracy over tasks after the last task.
        bwt: Backward transfer, as a fraction (the papers' unit).
        tasks: Final test accuracy on each task.
    """

    accuracy: float | None = None
    bwt: float | None = None
    tasks: tuple[float, ...] = ()


@dataclass(frozen=True)
class Method:
    """A method of an experiment.

    Attributes:
        name: Its name on the command line and in results.
        strategy: Builds the Avalanche strategy; called with ``model``, ``optimizer``, ``criterion``,
            ``train_mb_size``, ``train_epochs``, ``eval_mb_size``, ``device``, ``evaluator`` and ``plugins``.
        regime: ``sequential`` trains one model on one task after the other, ``independent`` a fresh model on each task
            (from scratch), ``joint`` one model on all tasks at once.
        label: How tables and figures call it; default: its name.
        model: Builds the method's own model where it needs another than the experiment's.
        optimizer: Builds the method's own optimizer likewise.
        plugins: Build further plugins for the strategy.
        candidate_of: The method whose hyper-parameters were chosen on validation data among its candidates, of which
            this is one. Candidates run only when they are asked for, and have a table of their own. Their trials count
            as that method's: the chosen candidate's are not run twice.
    """

    name: str
    strategy: Callable[..., Any]
    regime: Regime = "sequential"
    label: str = ""
    model: Callable[[], Any] | None = None
    optimizer: Callable[..., Any] | None = None
    plugins: tuple[Callable[[], Any], ...] = ()
    candidate_of: str = ""

    @property
    def trial_name(self) -> str:
        """The name under which trials are kept."""
        return self.candidate_of or self.name


@dataclass(frozen=True)
class Experiment:
    """An experiment as data. A trial is fully described by it, the name of a method and a seed.

    Attributes:
        name: Names the results folder.
        title: Heading of tables and figures.
        source: The paper's table or figure, or where the protocol comes from.
        scenario: Builds the benchmark; called with ``seed``, ``dataset_root`` and ``download``, and with ``validation``
            where ``patience`` needs it.
        model: Builds the model.
        optimizer: Builds the optimizer from the model's parameters.
        epochs: Epochs per task, at most with ``patience``.
        batch_size: Training batch size.
        reset_optimizer: Whether the optimizer's state is reset before each task.
        methods: The methods compared.
        paper: What the paper reports, by the method's name: mean accuracy in percent, or that and BWT, or a `Reported`.
        trials: Number of seeds the paper uses (or this project, where there is no paper).
        protocol: Whose protocol it is, where a script has several.
        patience: When to stop training on a task early; None: after ``epochs``.
        channels_last: Whether models and their inputs have the memory format ``torch.channels_last``.
        full_epochs: The protocol's epochs where ``epochs`` was changed from them; set by :meth:`with_epochs`.
    """

    name: str
    title: str
    source: str
    scenario: Callable[..., Any]
    model: Callable[[], Any]
    optimizer: Callable[..., Any]
    epochs: int
    batch_size: int
    reset_optimizer: bool
    methods: tuple[Method, ...]
    trials: int
    paper: Mapping[str, float | tuple[float, float] | Reported] = field(default_factory=dict)
    protocol: str = ""
    patience: Patience | None = None
    channels_last: bool = False
    full_epochs: int | None = field(default=None)

    def __post_init__(self) -> None:
        names = [method.name for method in self.methods]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ExperimentError(f"{self.name} has several methods named {', '.join(sorted(repeated))}")
        for method in self.methods:
            if method.candidate_of and method.candidate_of not in names:
                raise ExperimentError(f"{method.name} is a candidate of {method.candidate_of}, which is no method here")

    def method(self, name: str) -> Method:
        """Look a method up.

        Args:
            name: Its name.

        Returns:
            The method.

        Raises:
            ExperimentError: If there is none of that name.
        """
        for method in self.methods:
            if method.name == name:
                return method
        known = ", ".join(method.name for method in self.methods)
        raise ExperimentError(f"{self.name} has no method {name!r}; its methods are: {known}")

    def reported(self, method: Method) -> Reported:
        """Look up what the paper reports for a method.

        Args:
            method: The method.

        Returns:
            The values; empty where there are none.
        """
        values = self.paper.get(method.name, Reported())
        if isinstance(values, Reported):
            return values
        return Reported(*values) if isinstance(values, tuple) else Reported(values)

    def with_epochs(self, epochs: int | None) -> Experiment:
        """Change the number of epochs and remember that the protocol was changed.

        Args:
            epochs: Epochs per task, at least 1; None for the protocol's.

        Returns:
            The changed experiment.

        Raises:
            ExperimentError: If the number is below 1.
        """
        if epochs is None or epochs == self.epochs:
            return self
        if epochs == self.full_epochs:
            return replace(self, epochs=epochs, full_epochs=None)
        if epochs < 1:
            raise ExperimentError(f"epochs must be at least 1, got {epochs}")
        return replace(self, epochs=epochs, full_epochs=self.full_epochs or self.epochs)

    @property
    def deviation(self) -> str:
        """How the protocol differs from the published one; empty if it does not."""
        if self.full_epochs is None:
            return ""
        return f"{'at most ' * bool(self.patience)}{self.epochs} epochs instead of {self.full_epochs}"

    def describe(self, method: Method) -> dict[str, Any]:
        """Describe all that decides a trial's outcome, but for its seed.

        Args:
            method: The method.

        Returns:
            JSON data.
        """
        optional = {"patience": asdict(self.patience)} if self.patience else {}
        if self.channels_last:
            optional["channels_last"] = True
        plugins = {"plugins": describe(method.plugins)} if method.plugins else {}
        trained = {"name": method.trial_name, "strategy": describe(method.strategy), "regime": method.regime}
        return optional | {
            "experiment": self.name,
            "scenario": describe(self.scenario),
            "model": describe(method.model or self.model),
            "optimizer": describe(method.optimizer or self.optimizer),
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "reset_optimizer": self.reset_optimizer,
            "method": trained | plugins,
        }

    def digest(self, method: Method) -> str:
        """Compute the fingerprint of :meth:`describe`.

        Args:
            method: The method.

        Returns:
            Ten hexadecimal digits.
        """
        return digest(self.describe(method))


class ExperimentError(ValueError):
    """What a user asked for cannot be run; the message says why and how to mend it."""

"""What an experiment is: a benchmark, a model, a training protocol, methods, and what the paper reports."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from avsi.experiment.description import describe, digest

Regime = Literal["sequential", "independent", "joint"]
MAX_NAME_BYTES = 100  # bytes of a name: folders and hidden files are called after it
GIVEN = {
    **dict.fromkeys(("train_epochs", "train_mb_size", "criterion"), "the experiment's epochs, batch_size or criterion"),
    **dict.fromkeys(("model", "optimizer", "plugins"), "the method's model, optimizer or plugins"),
    **dict.fromkeys(("device", "evaluator", "eval_mb_size"), "nothing, for they are the same for all methods"),
}
"""What every strategy is given when a trial begins, which goes before its own arguments, and where to set it."""


class ExperimentError(ValueError):
    """What a user asked for cannot be run; the message says why and how to mend it."""


@dataclass(frozen=True)
class Patience:
    """When to stop training on a task.

    Attributes:
        epochs: Stop when the validation error has not improved for so many epochs.
        at_least: Epochs to train in any case.
        validation: Share of each class's training images held out for validation.

    Raises:
        ExperimentError: If a value is out of range.

    Example:
        >>> Patience(epochs=5, at_least=1)  # an experiment's `patience`
        Patience(epochs=5, at_least=1, validation=0.1)
    """

    epochs: int = 5
    at_least: int = 10
    validation: float = 0.1

    def __post_init__(self) -> None:
        _check_counts(self, "epochs", "at_least")
        if not isinstance(self.validation, float) or not 0 < self.validation < 1:
            raise ExperimentError(f"validation must be a number between 0 and 1, got {self.validation!r}")


@dataclass(frozen=True)
class Reported:
    """What a paper reports for a method, in percent.

    Attributes:
        accuracy: Mean test accuracy over tasks after the last task.
        bwt: Backward transfer, as a fraction (the papers' unit).
        tasks: Final test accuracy on each task.

    Example:
        >>> paper = {"si": Reported(97.77, bwt=-0.04), "finetune": (90.43, -0.13)}  # an experiment's `paper`
        >>> paper["si"].tasks
        ()
    """

    accuracy: float | None = None
    bwt: float | None = None
    tasks: tuple[float, ...] = ()


@dataclass(frozen=True)
class Method:
    """A method of an experiment.

    Example:
        >>> from functools import partial
        >>> from avsi.strategies import MAS
        >>> Method("strong_mas", partial(MAS, strength=10.0), label="MAS, λ = 10").regime
        'sequential'

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
        candidate_of: The method of which a sweep tries this candidate; their trials are kept under its name.
        settings: In what a sweep's candidate or choice differs from the script, as (parameter, value).

    Raises:
        ExperimentError: If the name cannot name a folder, there is no such regime, or the strategy has an argument of
            those that it is called with.
    """

    name: str
    strategy: Callable[..., Any]
    regime: Regime = "sequential"
    label: str = ""
    model: Callable[[], Any] | None = None
    optimizer: Callable[..., Any] | None = None
    plugins: tuple[Callable[[], Any], ...] = ()
    candidate_of: str = ""
    settings: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        check_name("a method", self.base_name)
        if "," in self.name and not self.settings:
            raise ExperimentError(f"{self.name!r} cannot name a method: what stands after a comma are its settings")
        for name in GIVEN.keys() & getattr(self.strategy, "keywords", {}):
            raise ExperimentError(
                f"method {self.base_name}: its strategy's {name} would be replaced when a trial begins; "
                f"leave it out, and set {GIVEN[name]}"
            )
        if not isinstance(self.plugins, tuple | list):
            raise ExperimentError(f"method {self.base_name}: plugins must be a tuple of builders, got {self.plugins!r}")
        if self.regime not in get_args(Regime):
            raise ExperimentError(f"regime must be one of {', '.join(get_args(Regime))}, got {self.regime!r}")

    @property
    def base_name(self) -> str:
        """What it is called in the script: ``mas`` for ``mas,strength=0.1``."""
        return self.name.partition(",")[0]

    @property
    def trial_name(self) -> str:
        """The name under which trials are kept."""
        return self.candidate_of or self.name


@dataclass(frozen=True)
class Experiment:
    """An experiment as data. A trial is fully described by it, the name of a method and a seed.

    Functions and classes are given as such, as ``functools.partial`` of them, or as lambdas; objects are not, for
    nothing could tell whether two are the same.

    Attributes:
        name: Names the results folder.
        title: Heading of tables and figures.
        source: The paper's table or figure, or where the protocol comes from.
        scenario: Builds the Avalanche benchmark. Of ``seed``, ``dataset_root``, ``download`` and, where there is
            ``patience``, ``validation``, it is given those that it has parameters for and no value yet.
        model: Builds the model.
        optimizer: Builds the optimizer from the model's parameters.
        epochs: Epochs per task, at most with ``patience``.
        batch_size: Training batch size.
        reset_optimizer: Whether the optimizer's state is reset before each task.
        methods: The methods compared.
        trials: Number of seeds the paper uses (or this project, where there is no paper).
        paper: What the paper reports, by method: a mean accuracy in percent, or that and BWT, or a `Reported`; methods
            that are left out here may have values.
        protocol: Whose protocol it is, where a script has several.
        patience: When to stop training on a task early; None: after ``epochs``.
        criterion: Builds the task loss, a mean over the batch; default: cross entropy.
        scheduler: Builds a learning-rate scheduler from the optimizer; a fresh one for each task, stepped after each
            epoch.
        autocast: The type that the model computes with under ``torch.autocast``, "bfloat16"; "": none.
        channels_last: Whether models and their inputs have the memory format ``torch.channels_last``.
        smoke: Whether only a few images of each task are used, to see that everything runs.
        changes: In what the command line changed it, as (name, value).
        full_epochs: The protocol's epochs, where :meth:`with_epochs` changed them.

    Raises:
        ExperimentError: If a value is out of range, two methods have the same name, or something cannot be described.

    Example:
        >>> from functools import partial
        >>> from torch.optim import SGD
        >>> from avsi.experiment.methods import finetune, si
        >>> from avsi.models import MLP, MultiHead
        >>> from avsi.scenarios import split_digits
        >>> experiment = Experiment(
        ...     name="digits", title="Split digits", source="no paper", scenario=split_digits,
        ...     model=partial(MLP, 64, (16,), MultiHead), optimizer=partial(SGD, lr=0.1), epochs=10, batch_size=32,
        ...     reset_optimizer=True, methods=(finetune(), si(1.0, damping=1e-3)), trials=3,
        ... )  # a script ends with main(experiment)
        >>> experiment.method("si").label, experiment.with_epochs(1).deviation
        ('SI, c = 1', '1 epoch instead of 10')
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
    criterion: Callable[[], Any] | None = None
    scheduler: Callable[..., Any] | None = None
    autocast: str = ""
    channels_last: bool = False
    smoke: bool = False
    changes: tuple[tuple[str, str], ...] = ()
    full_epochs: int | None = None

    def __post_init__(self) -> None:
        check_name("an experiment", self.name)
        _check_counts(self, "epochs", "batch_size", "trials")
        if self.autocast not in {"", "bfloat16"}:
            raise ExperimentError(f'autocast must be "bfloat16" or "", got {self.autocast!r}')
        names = [method.name for method in self.methods]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ExperimentError(f"{self.name} has several methods named {', '.join(sorted(repeated))}")
        for name, values in self.paper.items():
            _check_reported(f"{self.name}, paper, {name}", _reported(values))
        for method in self.methods:
            self.describe(method)

    def method(self, name: str) -> Method:
        """Look a method up by its name; an unknown one is an ExperimentError that lists those there are."""
        known = {method.name: method for method in self.methods}
        if name not in known:
            raise ExperimentError(
                f"{self.name} has no method {name!r}{did_you_mean(name, known)}; its methods are: {', '.join(known)}"
            )
        return known[name]

    def reported(self, method: Method) -> Reported:
        """Look up what the paper reports for a method: a `Reported`, empty where there is nothing."""
        return _reported(self.paper.get(method.name))

    def with_epochs(self, epochs: int | None) -> Experiment:
        """Copy the experiment with another number of epochs, unless that is None; ``deviation`` says it then."""
        if epochs is None or epochs == self.epochs:
            return self
        full = self.full_epochs or self.epochs
        return replace(self, epochs=epochs, full_epochs=None if epochs == full else full)

    def as_smoke_test(self) -> Experiment:
        """Copy the experiment, shortened to one epoch of a few images per task and one seed."""
        patience = self.patience and replace(self.patience, at_least=1)
        return replace(self.with_epochs(1), smoke=True, trials=1, patience=patience)

    @property
    def deviation(self) -> str:
        """How the protocol differs from the published one; empty if it does not."""
        changes = ["smoke test: a few images of each task"] if self.smoke else []
        if self.full_epochs is not None:
            epochs = f"{self.epochs} epoch{'s' * (self.epochs != 1)}"
            changes.append(f"{'at most ' * bool(self.patience)}{epochs} instead of {self.full_epochs}")
        return ", ".join([*changes, *(f"{name} = {value}" for name, value in self.changes)])

    @property
    def suffix(self) -> str:
        """Ends the names of the files that are made of its results, such as "-1-epochs"; empty if it is unchanged."""
        parts = ["smoke"] if self.smoke else []
        if self.full_epochs is not None and not self.smoke:
            parts.append(f"{self.epochs}-epochs")
        parts += [re.sub(r"[^\w.=+]+", "_", f"{name}={value}") for name, value in self.changes]
        return f"-{shortened('-'.join(parts))}" if parts else ""

    def describe(self, method: Method) -> dict[str, Any]:
        """Describe as JSON data all that decides a trial's outcome, but for its seed, and nothing that is not used."""
        try:
            optional = {
                "patience": self.patience and asdict(self.patience),
                "criterion": describe(self.criterion),
                "scheduler": describe(self.scheduler),
                "autocast": self.autocast,
                "channels_last": self.channels_last,
                "smoke": self.smoke,
            }
            trained = {"name": method.trial_name, "strategy": describe(method.strategy), "regime": method.regime}
            if method.plugins:
                trained["plugins"] = describe(method.plugins)
            return {key: value for key, value in optional.items() if value} | {
                "experiment": self.name,
                "scenario": describe(self.scenario),
                "model": describe(method.model or self.model),
                "optimizer": describe(method.optimizer or self.optimizer),
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "reset_optimizer": self.reset_optimizer,
                "method": trained,
            }
        except TypeError as error:
            raise ExperimentError(f"{self.name}, method {method.name}: {error}") from error

    def digest(self, method: Method) -> str:
        """Compute the fingerprint of :meth:`describe`: ten hexadecimal digits."""
        return digest(self.describe(method))


def _check_counts(owner: Any, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if type(value) is not int or value < 1:
            raise ExperimentError(f"{name} must be a whole number of at least 1, got {value!r}")


def _reported(values: Any) -> Reported:
    if isinstance(values, Reported):
        return values
    return Reported(*values) if isinstance(values, tuple) else Reported(values)


def _check_reported(what: str, reported: Reported) -> None:
    limits = [(value, 0, 100) for value in (reported.accuracy, *reported.tasks)] + [(reported.bwt, -1, 1)]
    for value, least, most in limits:
        if value is not None and not (isinstance(value, int | float) and least <= value <= most):
            raise ExperimentError(f"{what}: accuracies are in percent, backward transfer is a fraction; got {reported}")


def check_name(kind: str, name: str) -> None:
    """Refuse a name that could not name a folder among the results."""
    if not re.fullmatch(r"[\w+=,-][\w+=.,-]*", name) or len(name.encode()) > MAX_NAME_BYTES:
        raise ExperimentError(
            f"{name!r} cannot name {kind}: results are kept in a folder of that name; use up to {MAX_NAME_BYTES} "
            "letters, digits and any of _+-=., without a dot in front"
        )


def shortened(settings: str) -> str:
    """Give the part of a name that tells settings, or where it is too long for a file's name, a fingerprint."""
    return settings if len(settings.encode()) <= MAX_NAME_BYTES else f"changed-{digest(settings)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """End a message about an unknown name with a near one that is known: "; did you mean ...?", or nothing."""
    near = difflib.get_close_matches(name, set(known) - {name}, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""

"""The ways in which methods meet the tasks: one after the other, each alone, all at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from avsi.experiment.checkpoint import START_OVER, Checkpoint
from avsi.experiment.description import resolve
from avsi.experiment.events import Said
from avsi.experiment.progress import TrialProgress
from avsi.experiment.spec import ExperimentError
from avsi.experiment.strategy_state import (
    NotKeptError,
    fingerprint,
    pack,
    random_states,
    restore_random_states,
    restore_strategy,
    strategy_state,
)
from avsi.experiment.trial import Trial
from avsi.metrics import (
    accuracy_row,
    average_accuracy,
    backward_transfer,
    check_against_avalanche,
    evaluation_metrics,
    forgetting,
)
from avsi.plugins.batches import InMemoryBatches
from avsi.plugins.class_accuracy import ClassAccuracy
from avsi.plugins.divergence import DivergencePlugin
from avsi.plugins.early_stopping import EarlyStopping, validation_error
from avsi.plugins.evaluation import EvaluationPlugin
from avsi.plugins.hebbian_dynamics import HebbianDynamics
from avsi.plugins.scalars import Scalars
from avsi.plugins.schedule import Schedule

EVAL_BATCH_SIZE = 512


@dataclass
class Finished:
    """What is told of each finished training, as parallel lists. Accuracies are in [0, 1]."""

    rows: list[list[float]] = field(default_factory=list)  # on test data; in the sequential regime the rows of R
    class_rows: list[list[list[float | None]]] = field(default_factory=list)  # the same by task and class
    train_accuracy: list[float] = field(default_factory=list)  # where each training has a model of its own
    validation_accuracy: list[float] = field(default_factory=list)  # likewise, where there are such data
    train_time_s: list[float] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)  # fingerprints of parameters and buffers
    state: list[str | None] = field(default_factory=list)  # of all that decides how it goes on; None if not plain data


@dataclass(frozen=True)
class Trainer:
    """Makes models and strategies of one trial, trains them, and keeps what came of it."""

    trial: Trial
    streams: dict[str, list[Any]]  # the benchmark's experiences: "train", "test" and perhaps "valid"
    device: str
    progress: TrialProgress
    loggers: list[Any]
    checkpoint: Checkpoint
    early_stopping: EarlyStopping | None = None
    dynamics: HebbianDynamics = field(default_factory=HebbianDynamics)
    classes: ClassAccuracy = field(default_factory=ClassAccuracy)
    scalars: Scalars = field(default_factory=Scalars)
    guard: DivergencePlugin = field(default_factory=DivergencePlugin)
    finished: Finished = field(default_factory=Finished)

    @property
    def watchers(self) -> dict[str, Any]:
        """The plugins that all strategies of the trial share and that have a state."""
        return {"dynamics": self.dynamics} | ({"early_stopping": self.early_stopping} if self.early_stopping else {})

    @property
    def apart(self) -> list[Any]:
        """The plugins that all strategies of the trial share: no part of a strategy's state."""
        return [self.progress, self.classes, self.scalars, self.guard, *self.watchers.values()]

    def strategy(self) -> Any:
        """Make a fresh model with its optimizer and strategy."""
        experiment, method = self.trial.experiment, self.trial.method
        layout = {"memory_format": torch.channels_last} if experiment.channels_last else {}
        model = resolve(method.model or experiment.model)().to(self.device, **layout)
        plugins = [build() for build in resolve(method.plugins)]
        plugins += [*self.apart, InMemoryBatches(on_device=self.device != "cpu")]
        if experiment.scheduler:
            plugins.append(Schedule(resolve(experiment.scheduler)))
        strategy = resolve(method.strategy)(
            model=model,
            optimizer=resolve(method.optimizer or experiment.optimizer)(model.parameters()),
            criterion=resolve(experiment.criterion or nn.CrossEntropyLoss)(),
            train_mb_size=experiment.batch_size,
            train_epochs=experiment.epochs,
            eval_mb_size=EVAL_BATCH_SIZE,
            device=self.device,
            evaluator=EvaluationPlugin(*evaluation_metrics(), loggers=self.loggers, collect_all=False),
            plugins=plugins,
        )
        if experiment.autocast:  # importances and validation go past these, in float32
            cast = torch.autocast(strategy.device.type, getattr(torch, experiment.autocast))
            strategy.forward, strategy.criterion = cast(strategy.forward), cast(strategy.criterion)
        return strategy

    def train(self, strategy: Any, experiences: Any, evaluated: Sequence[Any]) -> None:
        """Train and evaluate, and keep what came of it."""
        clock = time.perf_counter()
        strategy.train(experiences, eval_streams=[], reset_optimizer_state=self.trial.experiment.reset_optimizer)
        self.finished.train_time_s.append(round(time.perf_counter() - clock, 3))
        self.classes.start()
        self.finished.rows.append(accuracy_row(strategy.eval(evaluated), evaluated))
        self.finished.class_rows.append(self.classes.rows())
        if self.trial.method.regime == "independent":
            self.finished.train_accuracy += self.measure(strategy, [experiences])
            valid = self.streams.get("valid", [])
            self.finished.validation_accuracy += self.measure(strategy, valid[len(self.finished.rows) - 1 :][:1])
        self.keep(strategy)

    def keep(self, strategy: Any) -> None:
        """Take the fingerprints of a training that is finished, and write a checkpoint, if its state can be kept."""
        self.finished.weights.append(fingerprint(strategy.model.state_dict()))
        try:
            state = {"strategy": strategy_state(strategy, self.apart), "random": random_states(self.device)}
        except NotKeptError as error:
            if None not in self.finished.state:
                self.progress.tell(Said(f"starts over when it is interrupted, for it cannot keep {error}"))
            self.finished.state.append(None)
            return
        self.finished.state.append(fingerprint(state))
        if self.trial.method.regime == "joint":  # whose one training is the trial
            return
        if self.trial.method.regime == "independent":
            del state["strategy"]  # the next one is made afresh
        watchers = {name: plugin.state_dict() for name, plugin in self.watchers.items()}
        try:
            self.checkpoint.write(pack(state | {"watchers": watchers, "finished": asdict(self.finished)}))
        except OSError as error:  # a full disk; the result is small and perhaps fits
            self.progress.tell(Said(f"cannot write its checkpoint ({error.strerror}), and goes on without"))

    def resume(self, strategy: Any = None) -> None:
        """Go on from the checkpoint, if there is one: afterwards all is as it was when that was written."""
        state = self.checkpoint.read()
        if state is None:
            return
        vars(self.finished).update(state["finished"])
        for name, plugin in self.watchers.items():
            plugin.load_state_dict(state["watchers"][name])
        tasks = self.streams["train"]
        done = tasks[: len(self.finished.rows)]
        self.progress.tell(Said(f"resuming after task {len(done)} of {len(tasks)}"))
        if strategy is not None:
            try:
                restore_strategy(strategy, state["strategy"], done, self.streams["test"], self.apart)
            except ValueError as error:
                raise ExperimentError(
                    f"cannot go on from the checkpoint {self.checkpoint.path}: {error}; {START_OVER}"
                ) from error
        restore_random_states(state["random"], self.device)  # last: making and adapting models draws random numbers

    def measure(self, strategy: Any, experiences: Any) -> list[float]:
        """Measure a model's accuracy, in [0, 1], on each experience's data with evaluation transforms."""
        return [1 - validation_error(strategy, [experience], self.progress.passing) for experience in experiences]

    def on_validation_data(self, strategy: Any) -> float | None:
        """Measure a model's mean accuracy over the tasks' validation data, if there are any: strengths go by it."""
        valid = self.streams.get("valid")
        return average_accuracy([self.measure(strategy, valid)]) if valid else None


NOTHING_MEASURED: dict[str, Any] = dict.fromkeys(
    (
        "accuracy",
        "bwt",
        "forgetting",
        "validation_accuracy",
        "task_accuracy",
        "train_accuracy",
        "class_accuracy",
        "accuracy_matrix",
    )
)
"""What is told of every trial."""


def train_sequential(trainer: Trainer) -> dict[str, Any]:
    """Train one model on one task after the other, evaluating on every test set after each."""
    strategy, train, test = trainer.strategy(), trainer.streams["train"], trainer.streams["test"]
    trainer.resume(strategy)
    matrix, class_rows = trainer.finished.rows, trainer.finished.class_rows
    for experience in train[len(matrix) :]:
        trainer.train(strategy, experience, test)
    parallel = len(train) == len(test)  # else no test set belongs to a task
    check_against_avalanche(matrix if parallel else matrix[-1:], strategy.evaluator.get_last_metrics(), test)
    return NOTHING_MEASURED | {
        "accuracy": average_accuracy(matrix),
        "bwt": backward_transfer(matrix) if parallel else None,
        "forgetting": forgetting(matrix) if parallel else None,
        "validation_accuracy": trainer.on_validation_data(strategy),
        "task_accuracy": matrix[-1],
        "train_accuracy": trainer.measure(strategy, train),
        "class_accuracy": class_rows[-1],
        "learned_class_accuracy": [row[task] for task, row in enumerate(class_rows)] if parallel else None,
        "accuracy_matrix": matrix if parallel else None,
    }


def train_independent(trainer: Trainer) -> dict[str, Any]:
    """Train a fresh model on each task."""
    train, test = trainer.streams["train"], trainer.streams["test"]
    if len(train) != len(test):
        raise ExperimentError(
            f"{trainer.trial.method.name} trains a model for each of {len(train)} tasks, and there are {len(test)} "
            "test experiences; leave it out"
        )
    trainer.resume()
    finished = trainer.finished
    for experience, tested in list(zip(train, test, strict=True))[len(finished.rows) :]:
        trainer.train(trainer.strategy(), experience, [tested])
    accuracies, validation = [accuracy for (accuracy,) in finished.rows], finished.validation_accuracy
    return NOTHING_MEASURED | {
        "accuracy": average_accuracy([accuracies]),
        "validation_accuracy": average_accuracy([validation]) if validation else None,
        "task_accuracy": accuracies,
        "train_accuracy": finished.train_accuracy,
        "class_accuracy": [classes for (classes,) in finished.class_rows],
    }


def train_joint(trainer: Trainer) -> dict[str, Any]:
    """Train one model on all tasks at once."""
    strategy, train, test = trainer.strategy(), trainer.streams["train"], trainer.streams["test"]
    trainer.train(strategy, train, test)
    rows = trainer.finished.rows
    check_against_avalanche(rows, strategy.evaluator.get_last_metrics(), test)
    return NOTHING_MEASURED | {
        "accuracy": average_accuracy(rows),
        "validation_accuracy": trainer.on_validation_data(strategy),
        "task_accuracy": rows[0],
        "train_accuracy": trainer.measure(strategy, train),
        "class_accuracy": trainer.finished.class_rows[0],
    }


REGIMES: dict[str, Callable[[Trainer], dict[str, Any]]] = {
    "sequential": train_sequential,
    "independent": train_independent,
    "joint": train_joint,
}

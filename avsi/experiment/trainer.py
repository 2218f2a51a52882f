"""Training the models of a trial in its method's regime, measuring them, and keeping what came of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from avsi import metrics
from avsi._generators import set_states, states_of
from avsi.experiment.checkpoint import START_OVER, Checkpoint
from avsi.experiment.events import Said
from avsi.experiment.making import make_strategy
from avsi.experiment.progress import TrialProgress
from avsi.experiment.spec import ExperimentError
from avsi.experiment.strategy_state import (
    NotKeptError,
    attributes,
    fingerprint,
    fixed_attributes,
    held_attributes,
    pack,
    random_states,
    restore_attributes,
    restore_random_states,
    restore_strategy,
    strategy_state,
)
from avsi.experiment.trial import Trial
from avsi.plugins.class_accuracy import ClassAccuracy
from avsi.plugins.divergence import DivergencePlugin
from avsi.plugins.early_stopping import EarlyStopping, validation_error
from avsi.plugins.evaluation import silent_evaluator
from avsi.plugins.hebbian_dynamics import HebbianDynamics
from avsi.plugins.scalars import Scalars

PER_TRAINING = (
    "rows",  # accuracies on test data; in the sequential regime the rows of R
    "class_rows",  # the same by task and class
    "train_accuracy",  # by task, of the last model that learned it
    "validation_accuracy",  # likewise, where there are such data
    "train_time_s",
    "weights",  # fingerprints of parameters and buffers
    "state",  # and of all that decides how it goes on; None if that is not plain data
)
"""What is kept of each finished training. Accuracies are in [0, 1]."""


@dataclass(frozen=True)
class Training:
    """One training of a trial: of a model on a task, or on all."""

    data: Any  # an experience, or all of them
    tested: Sequence[Any]  # test experiences that the model is evaluated on afterwards
    train: Sequence[Any] = ()  # whose accuracy is measured afterwards, where the model is a final one
    valid: Sequence[Any] = ()  # likewise


class Trainer:
    """Makes models and strategies of one trial, trains them, and keeps what came of it.

    Its streams are the benchmark's experiences: "train", "test" and perhaps "valid".
    """

    def __init__(
        self,
        trial: Trial,
        streams: dict[str, list[Any]],
        device: str,
        progress: TrialProgress,
        loggers: list[Any],
        checkpoint: Checkpoint,
    ) -> None:
        self.trial, self.streams, self.device = trial, streams, device
        self.progress, self.loggers, self.checkpoint = progress, loggers, checkpoint
        self.finished: dict[str, list[Any]] = {key: [] for key in PER_TRAINING}
        self.dynamics, self.classes = HebbianDynamics(), ClassAccuracy()
        self.stopping: EarlyStopping | None = None
        self.fixed: dict[str, str] = {}  # fingerprints of what is in no checkpoint
        self.watchers: dict[str, Any] = {"dynamics": self.dynamics}  # which have a state of their own
        patience = trial.experiment.patience
        if patience:
            if "valid" not in streams:
                raise ExperimentError(
                    f"{trial.experiment.name} stops early, and its benchmark has no validation stream; have its "
                    "scenario make a valid_stream, or leave out patience"
                )
            found, needed = len(streams["valid"]), len(streams["train"])
            if found < needed:
                raise ExperimentError(
                    f"{trial.experiment.name} stops early, and its valid stream has {found} "
                    f"experience{'s' * (found != 1)} for {needed} to train on; have its scenario make one for each"
                )
            self.stopping = EarlyStopping(streams["valid"], patience.epochs, patience.at_least)
            self.watchers["early_stopping"] = self.stopping
        # Plugins that all strategies of the trial share; they are no part of a strategy's state.
        self.shared = [progress, self.classes, Scalars(), DivergencePlugin(), *self.watchers.values()]

    def run(self) -> dict[str, Any]:
        """Train one model on one task after the other, a fresh one on each, or one on all at once; measure each."""
        independent, plan = self.trial.method.regime == "independent", self.plan()
        strategy: Any = None if independent else self.strategy()
        self.resume(strategy)
        for training in plan[len(self.finished["rows"]) :]:
            strategy = self.strategy() if independent else strategy
            self.train(strategy, training.data, training.tested)
            self.finished["train_accuracy"] += self.measure(strategy, training.train)
            self.finished["validation_accuracy"] += self.measure(strategy, training.valid)
            self.keep(strategy)
        return self.measured(strategy)

    def plan(self) -> list[Training]:
        """List the trainings of the method's regime."""
        regime, train, test = self.trial.method.regime, self.streams["train"], self.streams["test"]
        valid = self.streams.get("valid", [])
        if regime == "joint":
            return [Training(train, test, train, valid)]
        if regime == "sequential":
            return [*(Training(task, test) for task in train[:-1]), Training(train[-1], test, train, valid)]
        if len(train) != len(test):
            raise ExperimentError(
                f"{self.trial.method.name} trains a model for each of {len(train)} tasks, and there are {len(test)} "
                "test experiences; leave it out"
            )
        own = [[task] for task in valid] if len(valid) == len(train) else [[]] * len(train)
        return [Training(*parts) for parts in zip(train, [[t] for t in test], [[t] for t in train], own, strict=True)]

    def measured(self, strategy: Any) -> dict[str, Any]:
        """Compute what is told of the trial from what is kept of its trainings."""
        test, rows, class_rows = self.streams["test"], self.finished["rows"], self.finished["class_rows"]
        validation, regime = self.finished["validation_accuracy"], self.trial.method.regime
        # R has a row for each task trained and a column for each task tested, which must be the same tasks.
        matrix = rows if regime == "sequential" and len(rows) == len(test) else None
        if regime == "independent":  # each row has one model's own task: they are one row together
            rows, class_rows = [list(chain(*rows))], [list(chain(*class_rows))]
        else:
            metrics.check_against_avalanche(matrix or rows[-1:], strategy.evaluator.get_last_metrics(), test)
        return {
            "accuracy": metrics.average_accuracy(rows),
            "bwt": metrics.backward_transfer(matrix) if matrix else None,
            "forgetting": metrics.forgetting(matrix) if matrix else None,
            "validation_accuracy": metrics.average_accuracy([validation]) if validation else None,
            "task_accuracy": rows[-1],
            "train_accuracy": self.finished["train_accuracy"],
            "class_accuracy": class_rows[-1],
            "learned_class_accuracy": [row[task] for task, row in enumerate(class_rows)] if matrix else None,
            "accuracy_matrix": matrix,
        }

    def strategy(self) -> Any:
        """Make a fresh model with its optimizer and strategy."""
        evaluator = silent_evaluator(*metrics.evaluation_metrics(), loggers=self.loggers, collect_all=False)
        strategy = make_strategy(self.trial.experiment, self.trial.method, self.device, evaluator, self.shared)
        with contextlib.suppress(NotKeptError):  # which is said when something is to be kept
            self.fixed = fixed_attributes(strategy)
        return strategy

    def train(self, strategy: Any, experiences: Any, evaluated: Sequence[Any]) -> None:
        """Train and evaluate."""
        finished, clock = self.finished, time.perf_counter()
        strategy.train(experiences, eval_streams=[], reset_optimizer_state=self.trial.experiment.reset_optimizer)
        finished["train_time_s"].append(round(time.perf_counter() - clock, 3))
        self.classes.start()
        finished["rows"].append(metrics.accuracy_row(strategy.eval(evaluated), evaluated))
        finished["class_rows"].append(self.classes.rows())

    def keep(self, strategy: Any) -> None:
        """Take the fingerprints of a training that is finished, and write a checkpoint, if its state can be kept."""
        self.finished["weights"].append(fingerprint(strategy.model.state_dict()))
        try:
            state = {"strategy": strategy_state(strategy, self.shared), "random": random_states(self.device)}
            if own := states_of(self.drawing(strategy)):
                state["generators"] = pack(own)
            if held := attributes(strategy):
                state["attributes"] = held
            now = fixed_attributes(strategy)
            changed = [name for name, value in now.items() if self.fixed.setdefault(name, value) != value]
            if changed:
                raise NotKeptError(f"{', '.join(changed)}, which training has changed")
        except NotKeptError as error:
            if None not in self.finished["state"]:
                self.progress.tell(Said(f"starts over when it is interrupted, for it cannot keep {error}"))
            self.finished["state"].append(None)
            return
        self.finished["state"].append(fingerprint(state))
        if self.trial.method.regime == "joint":  # whose one training is the trial
            return
        if self.trial.method.regime == "independent":
            del state["strategy"]  # the next one is made afresh
            state.pop("attributes", None)
        watchers = {name: plugin.state_dict() for name, plugin in self.watchers.items()}
        try:
            self.checkpoint.write(pack(state | {"watchers": watchers, "finished": self.finished}))
        except OSError as error:  # a full disk; the result is small and perhaps fits
            self.progress.tell(Said(f"cannot write its checkpoint ({error.strerror}), and goes on without"))

    def resume(self, strategy: Any = None) -> None:
        """Go on from the checkpoint, if there is one: afterwards all is as it was when that was written."""
        state = self.checkpoint.read()
        if state is None:
            return
        self.finished = state["finished"]
        for name, plugin in self.watchers.items():
            plugin.load_state_dict(state["watchers"][name])
        tasks = self.streams["train"]
        done = tasks[: len(self.finished["rows"])]
        self.progress.tell(Said(f"resuming after task {len(done)} of {len(tasks)}"))
        if strategy is not None:
            try:
                restore_strategy(strategy, state["strategy"], done, self.streams["test"], self.shared)
            except ValueError as error:
                raise self.cannot_resume(error) from error
            restore_attributes(strategy, state.get("attributes", {}))
        # Last: making and adapting models draws random numbers.
        restore_random_states(state["random"], self.device)
        try:
            set_states(self.drawing(strategy), state.get("generators", []))
        except ValueError as error:
            raise self.cannot_resume(error) from error

    def drawing(self, strategy: Any) -> list[Any]:
        """List what may hold random generators of its own, which outlast a training: transforms, data sets, models."""
        if self.trial.method.regime == "independent":
            return [self.streams]
        return [self.streams, strategy.model, strategy._criterion, *(value for *_, value in held_attributes(strategy))]

    def cannot_resume(self, error: Exception) -> ExperimentError:
        """Say why the checkpoint is of no use, and what to do."""
        return ExperimentError(f"cannot resume from the checkpoint {self.checkpoint.path}: {error}; {START_OVER}")

    def measure(self, strategy: Any, experiences: Any) -> list[float]:
        """Measure a model's accuracy, in [0, 1], on each experience's data with evaluation transforms."""
        return [1 - validation_error(strategy, [experience], self.progress.passing) for experience in experiences]

"""The ways in which methods meet the tasks: one after the other, each alone, all at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from avalanche.logging import TensorboardLogger
from avalanche.training.plugins import SupervisedPlugin
from torch import nn

from avsi.experiment.checkpoint import START_OVER, Checkpoint
from avsi.experiment.class_accuracy import ClassAccuracy
from avsi.experiment.early_stopping import EarlyStopping, validation_error
from avsi.experiment.hebbian_dynamics import HebbianDynamics
from avsi.experiment.progress import Said, TrialProgress
from avsi.experiment.spec import Experiment, ExperimentError, Method
from avsi.experiment.strategy_state import (
    NotKeptError,
    fingerprint,
    pack,
    random_states,
    restore_random_states,
    restore_strategy,
    strategy_state,
)
from avsi.metrics import (
    accuracy_row,
    average_accuracy,
    backward_transfer,
    check_against_avalanche,
    evaluation_metrics,
    forgetting,
)
from avsi.plugins.batches import InMemoryBatches
from avsi.plugins.evaluation import EvaluationPlugin
from avsi.scenarios.build import ImageScenario

EVAL_BATCH_SIZE = 512


@dataclass
class Finished:
    """What is to be told of each finished training, as parallel lists.

    Attributes:
        rows: Accuracies of the evaluation that followed it, in [0, 1]; in the sequential regime the rows of R.
        class_rows: The same by class: for each task the accuracy on each of its classes.
        train_accuracy: Accuracies on training data, where each training has a model of its own.
        train_time_s: Seconds it took.
        weights: Fingerprint of the model's parameters and buffers (Hebbian traces among them) at its end.
        state: Fingerprint of all that decides how the trial goes on: weights, optimizer, plugins, random states; None
            where a part of it is not plain data.
    """

    rows: list[list[float]] = field(default_factory=list)
    class_rows: list[list[list[float]]] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    train_time_s: list[float] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    state: list[str | None] = field(default_factory=list)


@dataclass(frozen=True)
class Trainer:
    """Makes models and strategies of one trial, and keeps what it has done.

    Attributes:
        experiment: The experiment.
        method: The method.
        benchmark: The benchmark.
        device: A torch device.
        progress: An Avalanche plugin that is told of every step.
        log: Avalanche's TensorBoard logger, or None.
        checkpoint: Where finished trainings are kept.
        early_stopping: Stops trainings, where the protocol stops early.
        dynamics: Records the dynamics of DHP layers.
        classes: Measures the accuracy on each class.
        finished: The trainings that are finished.
    """

    experiment: Experiment
    method: Method
    benchmark: ImageScenario
    device: str
    progress: TrialProgress
    log: TensorboardLogger | None
    checkpoint: Checkpoint
    early_stopping: EarlyStopping | None = None
    dynamics: HebbianDynamics = field(default_factory=HebbianDynamics)
    classes: ClassAccuracy = field(default_factory=ClassAccuracy)
    finished: Finished = field(default_factory=Finished)

    @property
    def watchers(self) -> dict[str, Any]:
        """The plugins that all strategies of the trial share and that have a state."""
        return {"dynamics": self.dynamics} | ({"early_stopping": self.early_stopping} if self.early_stopping else {})

    def strategy(self) -> Any:
        """Make a fresh model with its optimizer and strategy.

        Returns:
            The Avalanche strategy.
        """
        layout = {"memory_format": torch.channels_last} if self.experiment.channels_last else {}
        model = (self.method.model or self.experiment.model)().to(self.device, **layout)
        plugins: list[SupervisedPlugin] = [build() for build in self.method.plugins]
        plugins += [self.progress, self.dynamics, self.classes, InMemoryBatches(on_device=self.device != "cpu")]
        if self.early_stopping:
            plugins.append(self.early_stopping)
        loggers = [self.log] if self.log else []
        return self.method.strategy(
            model=model,
            optimizer=(self.method.optimizer or self.experiment.optimizer)(model.parameters()),
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=self.experiment.batch_size,
            train_epochs=self.experiment.epochs,
            eval_mb_size=EVAL_BATCH_SIZE,
            device=self.device,
            evaluator=EvaluationPlugin(*evaluation_metrics(), loggers=loggers, collect_all=False),
            plugins=plugins,
        )

    def train(self, strategy: Any, experiences: Any, evaluated: Sequence[Any]) -> None:
        """Train and evaluate, and keep what came of it.

        Args:
            strategy: The strategy.
            experiences: What it trains on.
            evaluated: The test experiences it is then evaluated on.
        """
        clock = time.perf_counter()
        strategy.train(experiences, eval_streams=[], reset_optimizer_state=self.experiment.reset_optimizer)
        self.finished.train_time_s.append(round(time.perf_counter() - clock, 3))
        self.classes.start()
        self.finished.rows.append(accuracy_row(strategy.eval(evaluated), evaluated))
        self.finished.class_rows.append(self.classes.rows())
        if self.method.regime == "independent":
            self.finished.train_accuracy += self.measure(strategy, [experiences])
        self.keep(strategy)

    def keep(self, strategy: Any) -> None:
        """Take the fingerprints of a training that is finished, and write a checkpoint.

        A trial with state that is not plain data has no checkpoint, and starts over when it is cut; progress says so.
        Joint training has none either: its one training is the trial.

        Args:
            strategy: The strategy, after its evaluation.
        """
        self.finished.weights.append(fingerprint(strategy.model.state_dict()))
        try:
            state = {"strategy": strategy_state(strategy, self.apart), "random": random_states(self.device)}
        except NotKeptError as error:
            if None not in self.finished.state:
                self.progress.tell(Said(f"starts over when it is cut, for it cannot keep {error}"))
            self.finished.state.append(None)
            return
        self.finished.state.append(fingerprint(state))
        if self.method.regime == "joint":
            return
        if self.method.regime == "independent":
            del state["strategy"]  # the next one is made afresh
        watchers = {name: plugin.state_dict() for name, plugin in self.watchers.items()}
        self.checkpoint.write(pack(state | {"watchers": watchers, "finished": asdict(self.finished)}))

    def resume(self, strategy: Any = None) -> None:
        """Go on from the checkpoint, if there is one: afterwards all is as it was when that was written.

        Args:
            strategy: The strategy that trains on one task after the other, newly made; None where each has its own.

        Raises:
            ExperimentError: If the checkpoint cannot be gone on from.
        """
        state = self.checkpoint.read()
        if state is None:
            return
        vars(self.finished).update(state["finished"])
        for name, plugin in self.watchers.items():
            plugin.load_state_dict(state["watchers"][name])
        if strategy is not None:
            done = list(self.benchmark.train_stream)[: len(self.finished.rows)]
            try:
                restore_strategy(strategy, state["strategy"], done, self.benchmark.test_stream, self.apart)
            except ValueError as error:
                raise ExperimentError(
                    f"cannot go on from the checkpoint {self.checkpoint.path}: {error}; {START_OVER}"
                ) from error
        restore_random_states(state["random"], self.device)  # last: making and adapting models draws random numbers

    @property
    def apart(self) -> list[Any]:
        """Plugins of strategies that are no part of their state: progress has none, watchers are kept once."""
        return [self.progress, self.classes, *self.watchers.values()]

    def measure(self, strategy: Any, experiences: Any) -> list[float]:
        """Measure a model's accuracy on the data of each of some experiences, with evaluation transforms.

        Args:
            strategy: The trained strategy.
            experiences: The experiences, of the training or the validation stream.

        Returns:
            The accuracies, in [0, 1].
        """
        return [1 - validation_error(strategy, [experience], self.progress.passing) for experience in experiences]


def train_sequential(trainer: Trainer) -> dict[str, Any]:
    """Train one model on one task after the other, evaluating on every task's test set after each.

    A trial that was cut goes on after the last task that was trained on and evaluated after.

    Args:
        trainer: Makes the strategy.

    Returns:
        R, ACC, BWT, forgetting; final accuracy by task, on training data too; accuracy by task and class at the end,
        and just after each task was learned.
    """
    strategy, stream = trainer.strategy(), trainer.benchmark.test_stream
    trainer.resume(strategy)
    matrix = trainer.finished.rows
    for experience in list(trainer.benchmark.train_stream)[len(matrix) :]:
        trainer.train(strategy, experience, stream)
    check_against_avalanche(matrix, strategy.evaluator.get_last_metrics(), stream)
    return {
        "accuracy": average_accuracy(matrix),
        "bwt": backward_transfer(matrix),
        "forgetting": forgetting(matrix),
        "validation_accuracy": validation_accuracy(trainer, strategy),
        "task_accuracy": matrix[-1],
        "train_accuracy": trainer.measure(strategy, trainer.benchmark.train_stream),
        "class_accuracy": trainer.finished.class_rows[-1],
        "learned_class_accuracy": [row[task] for task, row in enumerate(trainer.finished.class_rows)],
        "accuracy_matrix": matrix,
    }


def train_independent(trainer: Trainer) -> dict[str, Any]:
    """Train a fresh model from scratch on each task.

    A trial that was cut goes on with the first task that has no finished model.

    Args:
        trainer: Makes the strategies.

    Returns:
        Mean accuracy and accuracy by task.
    """
    trainer.resume()
    rows = trainer.finished.rows
    pairs = zip(trainer.benchmark.train_stream, trainer.benchmark.test_stream, strict=True)
    for experience, test in list(pairs)[len(rows) :]:
        trainer.train(trainer.strategy(), experience, [test])
    accuracies = [accuracy for (accuracy,) in rows]
    return {
        "accuracy": average_accuracy([accuracies]),
        "bwt": None,
        "forgetting": None,
        "validation_accuracy": None,
        "task_accuracy": accuracies,
        "train_accuracy": trainer.finished.train_accuracy,
        "class_accuracy": [classes for (classes,) in trainer.finished.class_rows],
        "accuracy_matrix": None,
    }


def train_joint(trainer: Trainer) -> dict[str, Any]:
    """Train one model on all tasks at once.

    A trial that was cut starts over.

    Args:
        trainer: Makes the strategy.

    Returns:
        Mean accuracy and accuracy by task.
    """
    strategy, stream = trainer.strategy(), trainer.benchmark.test_stream
    trainer.train(strategy, trainer.benchmark.train_stream, stream)
    (row,) = trainer.finished.rows
    check_against_avalanche([row], strategy.evaluator.get_last_metrics(), stream)
    return {
        "accuracy": average_accuracy([row]),
        "bwt": None,
        "forgetting": None,
        "validation_accuracy": validation_accuracy(trainer, strategy),
        "task_accuracy": row,
        "train_accuracy": trainer.measure(strategy, trainer.benchmark.train_stream),
        "class_accuracy": trainer.finished.class_rows[0],
        "accuracy_matrix": None,
    }


def validation_accuracy(trainer: Trainer, strategy: Any) -> float | None:
    """Measure a model on the validation data of all tasks, tasks equally weighted: what strengths are chosen by.

    Args:
        trainer: Holds the benchmark.
        strategy: The trained strategy.

    Returns:
        The accuracy, in [0, 1]; None where the benchmark has no validation data.
    """
    valid_stream = trainer.benchmark.streams.get("valid")
    if not valid_stream:
        return None
    return average_accuracy([trainer.measure(strategy, valid_stream)])

"""Telling how far a trial is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from avalanche.training import JointTraining
from avalanche.training.plugins import SupervisedPlugin

from avsi.experiment.events import Step, TaskEnd, Tell
from avsi.metrics import accuracy_row
from avsi.plugins import MASPlugin, OnlineEWCPlugin
from avsi.plugins.early_stopping import EarlyStopping


class TrialProgress(SupervisedPlugin):
    """Tells of a trial's steps. Draws no random numbers and touches nothing of the training.

    Args:
        tell: Told of every task's begin and end, and a few times a second in between.
    """

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self.tell = tell
        self.task = ""
        self.fraction = 0.0
        self._seen: set[int] = set()
        self._tasks = 1
        self._done = 0
        self._epoch = self._iteration = 0
        self._told = 0.0
        self._clock = 0.0
        self._speed: float | None = None

    def where(self) -> dict[str, int]:
        """Say where the training is.

        Returns:
            Index of the task, of the epoch in it and of the step in that, from 0.
        """
        return {"task": self._done, "epoch": self._epoch, "step": self._iteration}

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Note which task begins, of how many."""
        current, stream = strategy.experience.current_experience, strategy.experience.origin_stream
        if isinstance(strategy, JointTraining):  # which trains on all experiences at once
            self._done, self._tasks, self.task = 0, 1, "all tasks"
            self._seen = {experience.current_experience for experience in stream}
        else:
            self._done, self._tasks, self.task = current, len(stream), f"task {current + 1}/{len(stream)}"
            self._seen = set(range(current + 1))
        self._epoch = 0
        for plugin in strategy.plugins:
            if isinstance(plugin, EarlyStopping | MASPlugin | OnlineEWCPlugin):  # which go through data by themselves
                plugin.track = self.passing

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Tell which epoch begins."""
        self._clock = time.monotonic()
        self._step(strategy, 0)

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Tell how far the epoch is."""
        self._iteration = strategy.clock.train_epoch_iterations
        now = time.monotonic()
        took = max(now - self._clock, 1e-9)
        self._clock = now
        # Over about the last twenty iterations. Seconds are averaged, for a mean of speeds would favour short ones.
        self._speed = 1 / took if self._speed is None else 1 / (0.95 / self._speed + 0.05 * took)
        if self._due():
            self._step(strategy, strategy.clock.train_epoch_iterations + 1)

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Note that an epoch is done."""
        self._epoch += 1

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Tell that the task is learned, however many epochs that took."""
        self.fraction = (self._done + 1) / self._tasks
        self.tell(Step(self.fraction, self.task, "learned"))

    def after_eval_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Tell that the trial is being evaluated."""
        if self._due():
            self.tell(Step(self.fraction, self.task, "evaluation"))

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Tell how well the tasks so far are known."""
        stream = [known for known in strategy.current_eval_stream if known.current_experience in self._seen]
        row = accuracy_row(strategy.evaluator.get_last_metrics(), stream)
        self.tell(TaskEnd(self.task, sum(row) / len(row), len(row)))

    def passing(self, batches: Iterable[Any], description: str, total: int) -> Iterator[Any]:
        """Tell of a pass over data besides training and evaluation, such as one that measures importance.

        Yields:
            The batches.
        """
        for index, batch in enumerate(batches):
            if self._due():
                self.tell(Step(self.fraction, self.task, f"{description or 'validation'} {index + 1}/{total}"))
            yield batch

    def _due(self) -> bool:
        # True a few times a second.
        now = time.monotonic()
        due = now - self._told > 0.2
        if due:
            self._told = now
        return due

    def _step(self, strategy: Any, iterations: int) -> None:
        epochs = strategy.train_epochs
        part = iterations / max(len(strategy.dataloader), 1)
        self.fraction = (self._done + min((self._epoch + part) / epochs, 1.0)) / self._tasks
        # Early stopping may come sooner.
        at_most = "≤" if any(isinstance(plugin, EarlyStopping) for plugin in strategy.plugins) else ""
        epoch = f"epoch {min(self._epoch + 1, epochs)}/{at_most}{epochs}"
        self.tell(Step(self.fraction, self.task, epoch, self._speed))

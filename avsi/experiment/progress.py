"""Telling how far a trial is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from statistics import fmean
from typing import Any

from avalanche.benchmarks.scenarios.generic_scenario import EagerCLStream
from avalanche.training import JointTraining
from avalanche.training.plugins import SupervisedPlugin

from avsi.experiment.events import Said, Step, Tell
from avsi.metrics import accuracy_row
from avsi.plugins import ConsolidationPlugin
from avsi.plugins.early_stopping import EarlyStopping

PAUSE = 0.2  # seconds at least between two steps that are told


class TrialProgress(SupervisedPlugin):
    """Tells of every task's begin and end, and now and then in between; changes nothing and draws no random numbers."""

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self.tell = tell
        self.task = ""
        self.fraction = 0.0
        self._index, self._last = 0, 0  # the task; the last experience that it holds
        self._begin, self._end = 0.0, 1.0  # the fractions of the trial at which the task begins and ends
        self._strategy: Any = None
        self._told = 0.0
        self._clock = 0.0
        self._speed: float | None = None

    def where(self) -> dict[str, int]:
        """Say which task, epoch in it and step in that are trained, from 0; nothing before the first."""
        if self._strategy is None:
            return {}
        clock, last = self._strategy.clock, self._strategy.train_epochs - 1
        return {"task": self._index, "epoch": min(clock.train_exp_epochs, last), "step": clock.train_epoch_iterations}

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Note which task begins, of how many."""
        self._strategy = strategy
        current, stream = strategy.experience.current_experience, strategy.experience.origin_stream
        count = len(stream)
        if isinstance(strategy, JointTraining):  # which trains on all experiences at once
            self._index, self._last, self.task = 0, count - 1, "all tasks"
            self._begin, self._end = 0.0, 1.0
        else:
            self._index, self._last, self.task = current, current, f"task {current + 1}/{count}"
            self._begin, self._end = part_of(stream, current)
        for plugin in strategy.plugins:
            if isinstance(plugin, EarlyStopping | ConsolidationPlugin):  # which go through data by themselves
                plugin.track = self.passing

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Tell which epoch begins."""
        self._clock = time.monotonic()
        self._step(strategy, 0)

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Tell how far the epoch is."""
        now = time.monotonic()
        took = max(now - self._clock, 1e-9)
        self._clock = now
        # Over about the last twenty iterations. Seconds are averaged, for a mean of speeds would favour short ones.
        self._speed = 1 / took if self._speed is None else 1 / (0.95 / self._speed + 0.05 * took)
        if self._due():
            self._step(strategy, strategy.clock.train_epoch_iterations + 1)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Tell that the task is learned, however many epochs that took."""
        self.fraction = self._end
        self.tell(Step(self.fraction, self.task, "learned"))

    def after_eval_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Tell that the trial is being evaluated."""
        if self._due():
            self.tell(Step(self.fraction, self.task, "evaluation"))

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Tell how well the tasks so far are known."""
        stream = [known for known in strategy.current_eval_stream if known.current_experience <= self._last]
        row = accuracy_row(strategy.evaluator.get_last_metrics(), stream)
        tasks = f"mean of {len(row)} tasks" if len(row) > 1 else "one task"
        self.tell(Said(f"{self.task}: accuracy {100 * fmean(row):.2f} % ({tasks})", detail=True))

    def passing(self, batches: Iterable[Any], description: str, total: int) -> Iterator[Any]:
        """Tell of a pass over data besides training and evaluation, such as one that measures importance."""
        for index, batch in enumerate(batches):
            if self._due():
                self.tell(Step(self.fraction, self.task, f"{description} {index + 1}/{total}"))
            yield batch

    def _due(self) -> bool:
        now = time.monotonic()
        due = now - self._told > PAUSE
        if due:
            self._told = now
        return due

    def _step(self, strategy: Any, iterations: int) -> None:
        done, epochs = strategy.clock.train_exp_epochs, strategy.train_epochs
        part = iterations / max(len(strategy.dataloader), 1)
        self.fraction = self._begin + (self._end - self._begin) * min((done + part) / epochs, 1.0)
        # Early stopping may come sooner.
        at_most = "≤" if any(isinstance(plugin, EarlyStopping) for plugin in strategy.plugins) else ""
        self.tell(Step(self.fraction, self.task, f"epoch {done + 1}/{at_most}{epochs}", self._speed))


def part_of(stream: Any, index: int) -> tuple[float, float]:
    """Compute at which fractions of a stream's training an experience begins and ends.

    Returns:
        Both, of the stream's samples or, where experiences are only made as they are reached, of its experiences.
    """
    sizes = [1] * max(len(stream), index + 1)  # a part of a stream can be shorter than its experiences' numbers
    if isinstance(stream, EagerCLStream) and stream.slice_ids is None:
        sizes = [len(experience.dataset) for experience in stream]
    return sum(sizes[:index]) / sum(sizes), sum(sizes[: index + 1]) / sum(sizes)

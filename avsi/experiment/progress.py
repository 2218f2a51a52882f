"""A live display of running trials."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from avalanche.training import JointTraining
from avalanche.training.plugins import SupervisedPlugin
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from avsi.consolidation import MASPlugin, OnlineEWCPlugin


class Display:
    """Shows method, trial, task, epoch and time left on a terminal; elsewhere one line per finished trial.

    Args:
        trials: Number of trials to run.
        console: Where to; default: standard error.
    """

    def __init__(self, trials: int, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.live = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        # In units of trials, so that trials of any length add up.
        self.total = self.live.add_task("all trials", total=max(trials, 1))

    def __enter__(self) -> Display:
        self.live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.live.stop()

    def trial(self, method: str, seed: int) -> TrialProgress:
        """Begin a trial.

        Args:
            method: The method's name.
            seed: The seed.

        Returns:
            The Avalanche plugin that reports the trial's steps.
        """
        return TrialProgress(self, method, seed)

    def say(self, line: str) -> None:
        """Print a line above the live display.

        Args:
            line: Plain text.
        """
        self.console.print(line, markup=False, highlight=False)


class TrialProgress(SupervisedPlugin):
    """Reports a trial's steps to the display. Draws no random numbers and touches nothing of the strategy.

    Args:
        display: The display.
        method: The method's name.
        seed: The seed.
    """

    def __init__(self, display: Display, method: str, seed: int) -> None:
        super().__init__()
        self.display = display
        self.name = f"{method}, seed {seed}"
        self.started = time.monotonic()
        self.task = display.live.add_task(self.name, total=1.0)
        self.experience = 0
        self.experiences = 1
        self.epoch = 0
        self.joint = False
        self._drawn = 0.0
        self._fraction = 0.0

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Note which task begins, of how many."""
        experience = strategy.experience
        self.joint = isinstance(strategy, JointTraining)  # which trains on all experiences at once
        self.experiences = 1 if self.joint else len(experience.origin_stream)
        self.experience = 0 if self.joint else experience.current_experience
        self.epoch = 0
        for plugin in strategy.plugins:
            if isinstance(plugin, OnlineEWCPlugin | MASPlugin):
                plugin.track = self.track

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Note which epoch begins."""
        self._show(strategy, 0.0)

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Draw, a few times a second at most."""
        if self._due():
            self._show(strategy, (strategy.clock.train_epoch_iterations + 1) / max(len(strategy.dataloader), 1))

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Note that an epoch is done."""
        self.epoch += 1

    def track(self, batches: Iterable[Any], description: str, total: int) -> Iterator[Any]:
        """Show a pass over the data that measures importance.

        Args:
            batches: What is gone through.
            description: What is measured.
            total: Number of batches.

        Yields:
            The batches.
        """
        for index, batch in enumerate(batches):
            if self._due():
                self._advance(self._fraction, f"{self.name}, {description}, batch {index + 1}/{total}")
            yield batch

    def _due(self) -> bool:
        """Decide whether it is time to draw again.

        Returns:
            True a few times a second.
        """
        now = time.monotonic()
        due = now - self._drawn > 0.2
        if due:
            self._drawn = now
        return due

    def _show(self, strategy: Any, part: float) -> None:
        epochs = strategy.train_epochs
        done = (self.experience + (self.epoch + part) / epochs) / self.experiences
        task = "all tasks" if self.joint else f"task {self.experience + 1}/{self.experiences}"
        text = f"{self.name}, {task}, epoch {min(self.epoch + 1, epochs)}/{epochs}"
        self._advance(done, text)

    def _advance(self, fraction: float, text: str) -> None:
        live = self.display.live
        live.update(self.task, completed=fraction, description=text)
        live.advance(self.display.total, fraction - self._fraction)
        self._fraction = fraction

    def finish(self, accuracy: float) -> None:
        """End the trial and print its line.

        Args:
            accuracy: The trial's mean accuracy, as a fraction.
        """
        seconds = time.monotonic() - self.started
        self._end(f"{self.name}: accuracy {100 * accuracy:.2f} % ({seconds:.0f} s)")

    def fail(self, reason: str) -> None:
        """End the trial with what went wrong.

        Args:
            reason: The traceback.
        """
        self._end(f"{self.name}: FAILED\n{reason}")

    def _end(self, line: str) -> None:
        self._advance(1.0, self.name)
        self.display.live.remove_task(self.task)
        self.display.say(line)

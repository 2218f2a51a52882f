"""What a person sees of running trials: a live display on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from avalanche.training import JointTraining
from avalanche.training.plugins import SupervisedPlugin
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from avsi.experiment.early_stopping import EarlyStopping
from avsi.metrics import accuracy_row
from avsi.plugins import MASPlugin, OnlineEWCPlugin

Verbosity = Literal["quiet", "normal", "verbose"]
MEMORY = 600.0  # seconds: time left is told from the speed over these, since evaluations and importances make it uneven


@dataclass(frozen=True)
class Step:
    """How far a trial is.

    Attributes:
        fraction: Of the trial, in [0, 1].
        task: Which task, of how many.
        activity: What is done in it.
        speed: Training iterations per second, None where nothing is trained.
    """

    fraction: float
    task: str
    activity: str
    speed: float | None = None


@dataclass(frozen=True)
class TaskEnd:
    """A trial's evaluation after a task.

    Attributes:
        task: Which task, of how many.
        accuracy: Mean test accuracy on the tasks the model has learned so far, in [0, 1].
        tasks: Their number.
    """

    task: str
    accuracy: float
    tasks: int


@dataclass(frozen=True)
class Said:
    """What a trial printed, where it runs in another process.

    Attributes:
        line: One line.
    """

    line: str


Event = Step | TaskEnd | Said
Tell = Callable[[Event], None]
"""Passes a trial's events on, perhaps to another process."""


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
        self._epoch = 0
        self._told = 0.0
        self._clock = 0.0
        self._speed: float | None = None

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

        Args:
            batches: What is gone through.
            description: What is measured.
            total: Number of batches.

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


class Display:
    """Shows running trials: live on a terminal, a line per finished trial elsewhere.

    Args:
        trials: Number of trials to run.
        verbosity: ``quiet`` shows failures only, ``verbose`` a line per finished task too.
        console: Where to; default: standard error.
    """

    def __init__(self, trials: int, verbosity: Verbosity = "normal", console: Console | None = None) -> None:
        self.verbosity = verbosity
        self.console = console or Console(stderr=True)
        self.live = Progress(
            TextColumn("{task.description}"),
            TextColumn("{task.fields[doing]}"),
            BarColumn(bar_width=12),
            TextColumn("{task.percentage:3.0f}%"),
            TextColumn("{task.fields[speed]}", justify="right"),
            *([TimeElapsedColumn()] if self.console.width >= 100 else []),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            disable=not self.console.is_terminal or verbosity == "quiet",
            speed_estimate_period=MEMORY,
        )
        # In units of trials, so that trials of any length add up. A resumed trial adds what is left of it.
        self._all = self.live.add_task("all trials", total=float(trials), doing="", speed="", visible=trials > 1)
        self.failures: dict[str, str] = {}
        """Details of the trials that failed, by name."""
        self._bars: dict[str, TaskID] = {}
        self._fraction: dict[str, float] = {}

    def __enter__(self) -> Display:
        self.live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.live.stop()

    def start(self, trial: str) -> None:
        """Begin a trial.

        Args:
            trial: Its name, as in all that follows.
        """
        self._bars[trial] = self.live.add_task(trial, total=1.0, start=False, doing="starts", speed="")

    def show(self, trial: str, event: Event) -> None:
        """Show what a trial tells.

        Args:
            trial: Its name.
            event: What it tells.
        """
        if isinstance(event, Said):
            if event.line.strip():
                self.warn(f"{trial}: {event.line}")
            return
        if isinstance(event, TaskEnd):
            if self.verbosity == "verbose":
                tasks = f"mean of {event.tasks} tasks" if event.tasks > 1 else "one task"
                self.say(f"{trial}, {event.task}: accuracy {100 * event.accuracy:.2f} % ({tasks})")
            return
        bar = self._bars[trial]
        if trial not in self._fraction:
            self.live.start_task(bar)
            self._expect(-event.fraction)
        else:
            self.live.advance(self._all, event.fraction - self._fraction[trial])
        self._fraction[trial] = event.fraction
        speed = "" if event.speed is None else f"{event.speed:.{0 if event.speed > 10 else 2}f} it/s"
        self.live.update(bar, completed=event.fraction, doing=f"{event.task}, {event.activity}", speed=speed)

    def finish(self, trial: str, accuracy: float, seconds: float) -> None:
        """End a trial.

        Args:
            trial: Its name.
            accuracy: Its mean accuracy, in [0, 1].
            seconds: How long it took.
        """
        self._end(trial)
        self.say(f"{trial}: accuracy {100 * accuracy:.2f} % ({seconds:.0f} s)")

    def fail(self, trial: str, reason: str, details: str) -> None:
        """End a trial that failed.

        Args:
            trial: Its name.
            reason: One line, shown now.
            details: The traceback, to be shown at the end.
        """
        self._end(trial)
        self.failures[trial] = details
        self.warn(f"{trial}: FAILED: {reason}")

    def forget(self) -> None:
        """Expect one trial less: another run has done it."""
        self._expect(-1.0)

    def show_failures(self) -> None:
        """Print the details of the trials that failed."""
        for trial, details in self.failures.items():
            self.warn(f"\n{trial}: FAILED\n{details.rstrip()}")

    def say(self, line: str) -> None:
        """Print a line above the live display, unless quiet.

        Args:
            line: Plain text.
        """
        if self.verbosity != "quiet":
            self.warn(line)

    def warn(self, line: str) -> None:
        """Print a line above the live display in any case.

        Args:
            line: Plain text.
        """
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _expect(self, trials: float) -> None:
        (everything,) = (task for task in self.live.tasks if task.id == self._all)
        self.live.update(self._all, total=(everything.total or 0.0) + trials)

    def _end(self, trial: str) -> None:
        if trial in self._fraction:
            self.live.advance(self._all, 1.0 - self._fraction.pop(trial))
        else:
            self._expect(-1.0)  # it ended before its first step
        self.live.remove_task(self._bars.pop(trial))

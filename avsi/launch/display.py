"""What a person sees of running trials: a live display on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from avsi.experiment.events import Event, Said, Step, TaskEnd

Verbosity = Literal["quiet", "normal", "verbose"]
MEMORY = 600.0  # seconds: time left is told from the speed over these, since evaluations and importances make it uneven


class Display:
    """Shows running trials: live on a terminal, a line per finished trial elsewhere.

    Args:
        trials: Number of trials to run.
        verbosity: ``quiet`` shows failures only, ``verbose`` a line per finished task too.
        console: Where to; default: standard error.
        workers: How many trials run at a time.
    """

    def __init__(
        self, trials: int, verbosity: Verbosity = "normal", console: Console | None = None, workers: int = 1
    ) -> None:
        self.trials, self.workers, self.verbosity = trials, workers, verbosity
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
        self.diverged: list[str] = []
        """The trials that diverged."""
        self._bars: dict[str, TaskID] = {}
        self._fraction: dict[str, float] = {}
        self._first: tuple[str, Step, float] | None = None
        self._estimated = False

    def __enter__(self) -> Display:
        self.live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.live.stop()

    def start(self, trial: str) -> None:
        """Begin a trial."""
        self._bars[trial] = self.live.add_task(trial, total=1.0, start=False, doing="starts", speed="")

    def show(self, trial: str, event: Event) -> None:
        """Show what a trial tells."""
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
        if not self._estimated:
            self._estimate(trial, event)

    def finish(self, trial: str, accuracy: float, seconds: float) -> None:
        """End a trial."""
        self._end(trial)
        self.say(f"{trial}: accuracy {100 * accuracy:.2f} % ({seconds:.0f} s)")

    def diverge(self, trial: str, divergence: dict[str, Any]) -> None:
        """End a trial that diverged."""
        self._end(trial)
        self.diverged.append(trial)
        known = [name for name in ("task", "epoch", "step") if divergence.get(name) is not None]
        place = ", ".join(f"{name} {divergence[name] + 1}" for name in known)
        self.warn(f"{trial}: DIVERGED in {place}: {divergence['cause']}")

    def fail(self, trial: str, reason: str, details: str) -> None:
        """End a trial that failed."""
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
        """Print a line above the live display, unless quiet."""
        if self.verbosity != "quiet":
            self.warn(line)

    def warn(self, line: str) -> None:
        """Print a line above the live display in any case."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _estimate(self, trial: str, step: Step) -> None:
        # After the first epoch that this run trains: what all trials take if all take as long.
        if self._first is None:
            self._first = trial, step, time.monotonic()
        first, begin, clock = self._first
        gone = step.fraction - begin.fraction
        if trial != first or step.activity == begin.activity or gone <= 0:
            return
        self._estimated = True
        seconds = (time.monotonic() - clock) / gone * self.trials / min(self.workers, self.trials)
        if seconds >= 60:
            end = datetime.now() + timedelta(seconds=seconds)
            at_most = " at most" * ("≤" in begin.activity)
            self.say(f"at this speed all is done in{at_most} {in_words(seconds)}, on {end:%A %d %B at %H:%M}")

    def _expect(self, trials: float) -> None:
        (everything,) = (task for task in self.live.tasks if task.id == self._all)
        self.live.update(self._all, total=(everything.total or 0.0) + trials)

    def _end(self, trial: str) -> None:
        if trial in self._fraction:
            self.live.advance(self._all, 1.0 - self._fraction.pop(trial))
        else:
            self._expect(-1.0)  # it ended before its first step
        self.live.remove_task(self._bars.pop(trial))


def in_words(seconds: float) -> str:
    """Say how long something takes.

    Example:
        >>> in_words(5000)
        '1 h 23 min'

    Returns:
        Hours and minutes, above a hundred hours days.
    """
    minutes = round(seconds / 60)
    if minutes >= 6000:
        return f"{minutes / 1440:.0f} days"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"

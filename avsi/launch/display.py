"""What a person sees of running trials: a live display on a terminal, lines elsewhere."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from avsi.experiment.events import Event, Said, Step
from avsi.launch.executors import Failure, Outcome

Verbosity = Literal["quiet", "normal", "verbose"]
MEMORY = 600.0  # seconds: time left is told from the speed over these, since evaluations and importances make it uneven


class Display:
    """Shows running trials, so many in all: live on a terminal, a line per finished trial elsewhere.

    Trials may tell from several threads. Its failures are the details of the trials that failed, by name.
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
        self._all = self._add("all trials", total=float(trials), visible=trials > 1)
        self._bars: dict[str, Task] = {}
        self.failures: dict[str, str] = {}
        self.diverged: list[str] = []
        self._first: tuple[str, Step] | None = None
        self._estimated = False
        self._lock = threading.Lock()

    def __enter__(self) -> Display:
        self.live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.live.stop()

    def start(self, trial: str) -> None:
        """Begin a trial."""
        self._bars[trial] = self._add(trial, total=1.0, start=False, doing="starts")

    def show(self, trial: str, event: Event) -> None:
        """Show what a trial tells."""
        if isinstance(event, Said):
            if event.line.strip() and (self.verbosity == "verbose" or not event.detail):
                self.warn(f"{trial}: {event.line}")
            return
        with self._lock:
            bar = self._bars[trial]
            if bar.started:
                self.live.advance(self._all.id, event.fraction - bar.completed)
            else:
                self.live.start_task(bar.id)
                self._expect(-event.fraction)
            speed = "" if event.speed is None else f"{event.speed:.{0 if event.speed > 10 else 2}f} it/s"
            self.live.update(bar.id, completed=event.fraction, doing=f"{event.task}, {event.activity}", speed=speed)
            if not self._estimated:
                self._estimate(trial, event)

    def end(self, trial: str, outcome: Outcome) -> None:
        """End a trial."""
        with self._lock:
            bar = self._bars.pop(trial)
            if bar.started:
                self.live.advance(self._all.id, 1.0 - bar.completed)
            else:
                self._expect(-1.0)  # it ended before its first step
            self.live.remove_task(bar.id)
        if isinstance(outcome, Failure):
            self.failures[trial] = outcome.details
            self.warn(f"{trial}: FAILED: {outcome.reason}")
        elif outcome["status"] == "diverged":
            self.diverged.append(trial)
            where = outcome["divergence"]
            known = [name for name in ("task", "epoch", "step") if where.get(name) is not None]
            place = ", ".join(f"{name} {where[name] + 1}" for name in known)
            self.warn(f"{trial}: DIVERGED in {place}: {where['cause']}")
        else:
            self.say(f"{trial}: accuracy {100 * outcome['accuracy']:.2f} % ({outcome['wall_time_s']:.0f} s)")

    def forget(self) -> None:
        """Expect one trial less: another run has done it."""
        with self._lock:
            self._expect(-1.0)

    def summarise(self) -> None:
        """Name the trials that diverged, and print the details of those that failed."""
        if self.diverged:
            self.warn(f"diverged, which is their result: {'; '.join(self.diverged)}")
        alike: dict[str, list[str]] = {}  # one mistake can make all trials fail
        for trial, details in self.failures.items():
            alike.setdefault(details, []).append(trial)
        for details, trials in alike.items():
            self.warn(f"\n{'; '.join(trials)}: FAILED\n{details.rstrip()}")

    def say(self, line: str) -> None:
        """Print a line above the live display, unless quiet."""
        if self.verbosity != "quiet":
            self.warn(line)

    def warn(self, line: str) -> None:
        """Print a line above the live display in any case."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _estimate(self, trial: str, step: Step) -> None:
        """Say after the first epoch that is trained here when all will be done."""
        if self._first is None:
            self._first = trial, step
        first, begin = self._first
        seconds = self._all.time_remaining
        if trial != first or step.activity == begin.activity or seconds is None:
            return
        self._estimated = True
        if seconds >= 60:
            end = datetime.now() + timedelta(seconds=seconds)
            at_most = " at most" * ("≤" in begin.activity)
            self.say(f"at this speed all is done in{at_most} {in_words(seconds)}, on {end:%A %d %B at %H:%M}")

    def _add(self, name: str, doing: str = "", **options: Any) -> Task:
        number = self.live.add_task(name, doing=doing, speed="", **options)
        return next(task for task in self.live.tasks if task.id == number)

    def _expect(self, trials: float) -> None:
        self.live.update(self._all.id, total=(self._all.total or 0.0) + trials)


def in_words(seconds: float) -> str:
    """Say how long something takes: 5000 seconds are 1 h 23 min. Above a hundred hours it is days."""
    minutes = round(seconds / 60)
    if minutes >= 6000:
        return f"{minutes / 1440:.0f} days"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"

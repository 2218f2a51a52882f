"""What a running trial tells of itself, to whomever shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


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

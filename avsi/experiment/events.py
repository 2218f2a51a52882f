"""What a running trial tells of itself, to whomever shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """How far a trial is, in [0, 1], which task of how many it is at, and what it does there."""

    fraction: float
    task: str
    activity: str
    speed: float | None = None  # training iterations per second; None where nothing is trained


@dataclass(frozen=True)
class TaskEnd:
    """A trial's mean test accuracy, in [0, 1], on the tasks it has learned so far, and their number, after a task."""

    task: str
    accuracy: float
    tasks: int


@dataclass(frozen=True)
class Said:
    """A line that a trial says or, in another process, prints."""

    line: str


Event = Step | TaskEnd | Said
Tell = Callable[[Event], None]
"""Passes a trial's events on, perhaps to another process."""

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
class Said:
    """A line that a trial says or, in another process, prints; a detail is only for those who want to know all."""

    line: str
    detail: bool = False


Event = Step | Said
Tell = Callable[[Event], None]
"""Passes a trial's events on, perhaps to another process."""

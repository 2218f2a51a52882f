"""Numbers, flags and choices as users give them, of Python, numpy or torch; of the wrong kind they are TypeErrors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np


def as_number(value: Any) -> int | float | None:
    """Read a real number as Python's own; None for truth values, text and arrays with dimensions."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    return int(value) if isinstance(value, Integral) else float(value)


def check_count(name: str, value: Any, *, least: int = 1) -> int:
    """Check a size or another count, and give it as Python's own number."""
    number = as_number(value)
    if not isinstance(number, int):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def check_flag(name: str, value: Any) -> bool:
    """Check a truth value; nothing that merely counts as one."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def check_number(name: str, value: Any, wanted: str, holds: Callable[[float], bool]) -> float:
    """Check that a real number holds what is wanted, and give it as Python's own."""
    number = as_number(value)
    if number is None:
        raise TypeError(f"{name} must be {wanted}, got {value!r}")
    if not holds(number):
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return float(number)


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Check a choice."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value

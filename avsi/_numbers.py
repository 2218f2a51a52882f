"""Numbers as users give them: of Python, numpy or torch."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any


def as_number(value: Any) -> int | float | None:
    """Read a real number; truth values, text and arrays with dimensions are none.

    Args:
        value: A number of Python, a scalar of numpy, or a tensor without dimensions.

    Returns:
        The number as Python's own, or None.
    """
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    return int(value) if isinstance(value, Integral) else float(value)


def check_count(name: str, value: Any) -> int:
    """Check a size or another count.

    Args:
        name: What it is, for the error.
        value: The count.

    Returns:
        The count, as Python's own number.

    Raises:
        ValueError: If it is not a positive integer.
    """
    number = as_number(value)
    if not isinstance(number, int) or number < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return number


def check_number(name: str, value: Any, wanted: str, holds: Callable[[float], bool]) -> float:
    """Check a real number.

    Args:
        name: What it is, for the error.
        value: The number.
        wanted: What it must be, for the error.
        holds: Whether a number is that; not asked about what is none.

    Returns:
        The number, as Python's own.

    Raises:
        ValueError: If it is not what it must be.
    """
    number = as_number(value)
    if number is None or not holds(number):
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return float(number)

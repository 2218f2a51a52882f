"""Checks of numbers and names that users give."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

Strength = float | Sequence[float]
"""One strength, or one per task."""


def check_number(name: str, value: Any) -> float:
    """Take a number of any kind: Python's, a NumPy scalar, a tensor without dimensions.

    Args:
        name: What it is for, for the error.
        value: The number.

    Returns:
        The number as a float.

    Raises:
        TypeError: If it is none.
    """
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return float(plain)


def check_count(name: str, value: Any, *, at_least: int = 0) -> int:
    """Take a whole number of any kind.

    Args:
        name: What it is for, for the error.
        value: The number.
        at_least: Its lower bound.

    Returns:
        The number as an int.

    Raises:
        ValueError: If it is none.
    """
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, numbers.Integral) or plain < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, got {value!r}")
    return int(plain)


def _plain(value: Any) -> Any:
    # A NumPy scalar or a tensor without dimensions as a Python number.
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def check_strengths(strength: Any) -> tuple[float, ...]:
    """Validate a strength or a sequence of strengths.

    Args:
        strength: One number or one number per task; arrays and tensors of one dimension are sequences.

    Returns:
        The strengths as a non-empty tuple of floats.

    Raises:
        TypeError: If it is neither a number nor a sequence of numbers.
        ValueError: If the sequence is empty or a value is negative or not finite.
    """
    if getattr(strength, "ndim", None) == 1 and hasattr(strength, "tolist"):
        strength = strength.tolist()
    several = isinstance(strength, Sequence) and not isinstance(strength, str | bytes | bytearray | memoryview)
    values = list(strength) if several else [strength]
    if not values:
        raise ValueError("strength is an empty sequence; give one number, or one per experience")
    try:
        strengths = tuple(check_number("strength", value) for value in values)
    except TypeError:
        raise TypeError(f"strength must be a number or a sequence of numbers, got {strength!r}") from None
    for value in strengths:
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"strength must be finite and at least 0, got {value!r}")
    return strengths


def check_patterns(exclude: Iterable[str]) -> tuple[str, ...]:
    """Validate glob patterns.

    Args:
        exclude: The patterns.

    Returns:
        The patterns as a tuple.

    Raises:
        TypeError: If they are a single string or not strings.
    """
    if isinstance(exclude, str):
        raise TypeError(f"exclude must be a sequence of patterns, got the string {exclude!r}; write [{exclude!r}]")
    if not isinstance(exclude, Iterable):
        raise TypeError(f"exclude must be a sequence of glob patterns of parameter names, got {exclude!r}")
    patterns = tuple(exclude)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"exclude must hold glob patterns of parameter names, got {pattern!r}")
    return patterns


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Validate a choice.

    Args:
        name: What is chosen, for the error.
        value: The choice.
        choices: What there is.

    Returns:
        The choice.

    Raises:
        ValueError: If there is no such choice.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value

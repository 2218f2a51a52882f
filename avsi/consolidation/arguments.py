"""Checks of strengths and names that users give."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from avsi._arguments import as_number

Strength = float | Sequence[float]
"""One strength, or one per task."""


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
    strengths = []
    for value in map(as_number, values):
        if value is None:
            raise TypeError(f"strength must be a number or a sequence of numbers, got {strength!r}")
        if not 0 <= value < math.inf:
            raise ValueError(f"strength must be finite and at least 0, got {value!r}")
        strengths.append(float(value))
    return tuple(strengths)


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

"""Checks of what users pass: each gives back the value as a plain Python number, or says what is wrong with it."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np


def check_flag(name: str, value: Any) -> bool:
    """Take True or False, and nothing that merely counts as true.

    Args:
        name: The argument's name.
        value: Its value.

    Returns:
        The value.

    Raises:
        TypeError: If it is neither.
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Take a whole number of any library.

    Args:
        name: The argument's name.
        value: Its value.
        least: The smallest that is allowed.

    Returns:
        The number.

    Raises:
        TypeError: If it is no whole number.
        ValueError: If it is too small.
    """
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def check_fraction(name: str, value: Any) -> float:
    """Take a fraction in [0, 1).

    Args:
        name: The argument's name.
        value: Its value.

    Returns:
        The fraction.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is out of range, or not a number.
    """
    try:
        if isinstance(value, bool | np.bool_ | str):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be a fraction in [0, 1), got {value!r}") from None
    if not 0 <= number < 1:  # not a number fails this too
        raise ValueError(f"{name} must be a fraction in [0, 1), got {value!r}")
    return number

"""Describing what a trial does as plain data, so that it can be stored, compared and sent to another process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any


def describe(value: Any) -> Any:
    """Describe a value as JSON data.

    Functions and classes become their shortest importable name, a ``functools.partial`` of one becomes
    ``{"call": name, "args": [...], "kwargs": {...}}``, recursively.

    Args:
        value: Numbers, strings, booleans, None, sequences and string-keyed mappings of them, importable functions and
            classes, and partials of those. Anything else, such as a lambda, is a TypeError.

    Returns:
        JSON data.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, partial):
        return {
            "call": importable_name(value.func),
            "args": [describe(item) for item in value.args],
            "kwargs": {key: describe(item) for key, item in value.keywords.items()},
        }
    return importable_name(value)


def importable_name(value: Any) -> str:
    """Find the shortest dotted name by which a function or class can be imported.

    Short names survive a move between the modules of a package: ``avsi.models.MLP``, not ``avsi.models.mlp.MLP``.

    Args:
        value: A function or class.

    Returns:
        The dotted name.

    Raises:
        TypeError: If it cannot be imported by name.
    """
    name = getattr(value, "__qualname__", None)
    module = getattr(value, "__module__", None)
    if name is not None and module is not None and "<" not in name:
        parts = module.split(".")
        for length in range(1, len(parts) + 1):
            prefix = ".".join(parts[:length])
            if getattr(import_module(prefix), name, None) is value:
                return f"{prefix}.{name}"
    raise TypeError(
        f"{value!r} cannot be described: an experiment is made of numbers, strings, functions and classes that can be "
        "imported by name, and functools.partial of those"
    )


def digest(description: Any) -> str:
    """Compute a short fingerprint of a description.

    Args:
        description: JSON data.

    Returns:
        The first 10 hexadecimal digits of the SHA-256 of its canonical JSON.
    """
    canonical = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]

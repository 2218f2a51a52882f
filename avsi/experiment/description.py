"""Describing what a trial does as plain data, so that it can be stored, compared and sent to another process."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from types import FunctionType
from typing import Any

from avsi.experiment.names import Name, resolve
from avsi.experiment.sources import is_own, source_fingerprint


def describe(value: Any) -> Any:
    """Describe a value as JSON data.

    Functions and classes become their shortest importable name, a ``functools.partial`` of one becomes
    ``{"call": name, "args": [...], "kwargs": {...}}``, recursively. One of a user's own becomes
    ``{"name": name, "source": fingerprint}``, see :func:`avsi.experiment.sources.source_fingerprint`: edited it is
    another one. A function that cannot be imported, such as a lambda, becomes ``{"code": fingerprint}`` of its compiled
    code, defaults and enclosed values, and is another one under another version of Python, too.

    Example:
        >>> from functools import partial
        >>> from avsi.models import MLP
        >>> describe(partial(MLP, 64, (16,)))
        {'call': 'avsi.models.MLP', 'args': [64, [16]], 'kwargs': {}}

    Args:
        value: Finite numbers, strings, booleans, None, sequences and mappings of them, functions and classes, and
            partials of those. Anything else is a TypeError.

    Returns:
        JSON data.
    """
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value) and sorted(value) == list(value):
            return {key: describe(item) for key, item in value.items()}
        return {"items": [[describe(key), describe(item)] for key, item in value.items()]}  # their order counts
    if isinstance(value, partial):
        keywords = {key: describe(item) for key, item in value.keywords.items()}
        return {"call": describe(value.func), "args": describe(value.args), "kwargs": keywords}
    if isinstance(value, FunctionType) and "<" in value.__qualname__:
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        enclosed = [describe(item) for item in cells if item is not value]  # it may call itself
        defaults = describe([*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).items()])
        return {"code": digest([source_fingerprint(value), defaults, enclosed])}
    name = importable_name(value)
    if is_own(value.module if isinstance(value, Name) else value.__module__):
        return {"name": name, "source": source_fingerprint(resolve(value))}
    return name


def importable_name(value: Any) -> str:
    """Find the shortest name to import a function or class by: ``avsi.models.MLP``, not ``avsi.models.mlp.MLP``."""
    if isinstance(value, Name):
        return f"{value.module}.{value.name}"
    name = getattr(value, "__qualname__", None)
    module = getattr(value, "__module__", None)
    if name is not None and module is not None and "<" not in name:
        for prefix in accumulate(module.split("."), "{}.{}".format):
            if getattr(import_module(prefix), name, None) is value:
                return f"{prefix}.{name}"
        if callable(getattr(sys.modules.get(module), name, None)):
            raise TypeError(f"{value!r} is no longer what {module}.{name} names; make the experiment anew")
    raise TypeError(
        f"{value!r} cannot be described: an experiment is made of finite numbers, strings, functions and classes, and "
        "functools.partial of those; give the function that makes an object in place of the object"
    )


def digest(description: Any) -> str:
    """Compute the first 10 hexadecimal digits of the SHA-256 of canonical JSON."""
    canonical = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def differences(then: Any, now: Any, name: str = "") -> Iterator[str]:
    """Find where two JSON data differ, and say of each place what was there and what is."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in {**then, **now}:
            yield from differences(then.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for index, pair in enumerate(zip(then, now, strict=True)):
            yield from differences(*pair, f"{name}[{index}]")
    elif then != now:
        yield f"{name} was {then!r} and is {now!r}"

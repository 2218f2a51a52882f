"""Describing what a trial does as plain data, so that it can be stored, compared and sent to another process."""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any


@dataclass(frozen=True)
class Name:
    """A function or class that is known by its name and imported when it is first called.

    Attributes:
        module: The module's dotted name.
        name: The name in it.
    """

    module: str
    name: str

    def resolve(self) -> Any:
        """Import it.

        Returns:
            The function or class.
        """
        return getattr(import_module(self.module), self.name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        return self.resolve()(*args, **kwargs)


@contextlib.contextmanager
def lazy_imports() -> Iterator[None]:
    """Let ``from module import name`` inside give a :class:`Name`, imported when it is first called.

    A script that imports so what it only passes on shows its ``--help`` and finds mistakes on its command line before
    PyTorch and Avalanche are loaded, which takes seconds.

    Example:
        >>> with lazy_imports():
        ...     from torch.optim import Adam
        >>> Adam
        Name(module='torch.optim', name='Adam')

    Yields:
        None.
    """

    def record(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if level or not fromlist:
            raise ImportError(f"lazy_imports() takes `from module import name` with a whole name, not {name!r}")
        return SimpleNamespace(**{item: Name(name, item) for item in fromlist})

    real, builtins.__import__ = builtins.__import__, record
    try:
        yield
    finally:
        builtins.__import__ = real


def resolve(value: Any) -> Any:
    """Import what a value names, recursively.

    Args:
        value: Anything; sequences, mappings and partials are looked into.

    Returns:
        The same value with functions and classes in place of every :class:`Name`.
    """
    if isinstance(value, Name):
        return value.resolve()
    if isinstance(value, partial):
        keywords = {key: resolve(item) for key, item in value.keywords.items()}
        return partial(resolve(value.func), *map(resolve, value.args), **keywords)
    if type(value) in {list, tuple}:
        return type(value)(resolve(item) for item in value)
    if type(value) is dict:
        return {key: resolve(item) for key, item in value.items()}
    return value


def describe(value: Any) -> Any:
    """Describe a value as JSON data.

    Functions and classes become their shortest importable name, a ``functools.partial`` of one becomes
    ``{"call": name, "args": [...], "kwargs": {...}}``, recursively. A function that cannot be imported, such as a
    lambda, becomes ``{"code": fingerprint}`` of its compiled code, defaults and enclosed values: edited it is another
    one, and under another version of Python too. The values of global names in it are not seen.

    Args:
        value: Numbers, strings, booleans, None, sequences and string-keyed mappings of them, functions and classes, and
            partials of those. Anything else is a TypeError.

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
            "call": describe(value.func),
            "args": [describe(item) for item in value.args],
            "kwargs": {key: describe(item) for key, item in value.keywords.items()},
        }
    if isinstance(value, FunctionType) and "<" in value.__qualname__:
        enclosed = [describe(cell.cell_contents) for cell in value.__closure__ or ()]
        defaults = describe([*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).items()])
        return {"code": digest([_code(value.__code__), defaults, enclosed])}
    return importable_name(value)


def _code(code: CodeType) -> list[Any]:
    # What it does; not where it stands.
    constants = [_code(item) if isinstance(item, CodeType) else repr(item) for item in code.co_consts]
    return [code.co_code.hex(), constants, *map(list, (code.co_names, code.co_varnames, code.co_freevars))]


def importable_name(value: Any) -> str:
    """Find the shortest dotted name by which a function or class can be imported.

    Short names survive a move between the modules of a package: ``avsi.models.MLP``, not ``avsi.models.mlp.MLP``.

    Args:
        value: A function or class, or the :class:`Name` of one, which says how short it is.

    Returns:
        The dotted name.

    Raises:
        TypeError: If it cannot be imported by name.
    """
    if isinstance(value, Name):
        return f"{value.module}.{value.name}"
    name = getattr(value, "__qualname__", None)
    module = getattr(value, "__module__", None)
    if name is not None and module is not None and "<" not in name:
        parts = module.split(".")
        for length in range(1, len(parts) + 1):
            prefix = ".".join(parts[:length])
            if getattr(import_module(prefix), name, None) is value:
                return f"{prefix}.{name}"
    raise TypeError(
        f"{value!r} cannot be described: an experiment is made of numbers, strings, functions and classes, and "
        "functools.partial of those; give the function that makes an object in place of the object"
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


def differences(then: Any, now: Any, name: str = "") -> Iterator[str]:
    """Find where two JSON data differ.

    Args:
        then: The old data.
        now: The new data.
        name: What they are.

    Yields:
        For each difference its place and both values.
    """
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in {**then, **now}:
            yield from differences(then.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for index, pair in enumerate(zip(then, now, strict=True)):
            yield from differences(*pair, f"{name}[{index}]")
    elif then != now:
        yield f"{name} was {then!r} and is {now!r}"

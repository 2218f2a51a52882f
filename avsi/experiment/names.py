"""Functions and classes known by their names alone, imported when they are first called."""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any


@dataclass(frozen=True)
class Name:
    """A function or class known by its name, imported when it is first called."""

    module: str
    name: str

    def resolve(self) -> Any:
        """Import it."""
        return getattr(import_module(self.module), self.name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Import and call it."""
        return self.resolve()(*args, **kwargs)


@contextlib.contextmanager
def lazy_imports() -> Iterator[None]:
    """Let ``from module import name`` inside give a name that is imported when it is first called.

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
    """Import every :class:`Name` in a value, looking into lists, tuples, dicts and partials."""
    if isinstance(value, Name):
        return value.resolve()
    if isinstance(value, partial):
        return partial(resolve(value.func), *resolve(value.args), **resolve(value.keywords))
    if type(value) in {list, tuple}:
        return type(value)(resolve(item) for item in value)
    if type(value) is dict:
        return {key: resolve(item) for key, item in value.items()}
    return value

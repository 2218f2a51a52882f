"""Describing what a trial does as plain data, so that it can be stored, compared and sent to another process."""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from types import CodeType, FunctionType, SimpleNamespace
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


def describe(value: Any) -> Any:
    """Describe a value as JSON data.

    Functions and classes become their shortest importable name, a ``functools.partial`` of one becomes
    ``{"call": name, "args": [...], "kwargs": {...}}``, recursively. A function that cannot be imported, such as a
    lambda, becomes ``{"code": fingerprint}`` of its compiled code, defaults and enclosed values: edited it is another
    one, and under another version of Python too. The values of global names in it are not seen.

    Example:
        >>> from functools import partial
        >>> from avsi.models import MLP
        >>> describe(partial(MLP, 64, (16,)))
        {'call': 'avsi.models.MLP', 'args': [64, [16]], 'kwargs': {}}

    Args:
        value: Finite numbers, strings, booleans, None, sequences and string-keyed mappings of them, functions and
            classes, and partials of those. Anything else is a TypeError.

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
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, partial):
        return {"call": describe(value.func), "args": describe(value.args), "kwargs": describe(value.keywords)}
    if isinstance(value, FunctionType) and "<" in value.__qualname__:
        enclosed = [describe(cell.cell_contents) for cell in value.__closure__ or ()]
        defaults = describe([*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).items()])
        return {"code": digest([_code(value.__code__), defaults, enclosed])}
    return importable_name(value)


def _code(code: CodeType) -> list[Any]:
    # What it does; not where it stands.
    names = [list(names) for names in (code.co_names, code.co_varnames, code.co_freevars)]
    return [code.co_code.hex(), [_constant(item) for item in code.co_consts], *names]


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _code(value)
    if isinstance(value, frozenset):  # whose order is another one in each process
        return ["frozenset", *sorted(map(repr, value))]
    return repr(value)


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

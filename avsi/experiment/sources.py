"""What a user's own functions and classes do: edited, they are others, and their trials other trials."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache, partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

from avsi.experiment.names import Name

INSTALLED = {"site-packages", "dist-packages"}
RECORDED = {"avsi", "avalanche", "torch", "torchvision", "numpy", "sklearn"}
"""Packages whose versions are in every result, wherever they lie."""


class _Empty:
    """A class without attributes of its own."""


SET_BY_PYTHON = vars(_Empty).keys()


@cache
def is_own(module: str) -> bool:
    """Whether a module is a user's own: not Python's, not installed, and not of a package whose version is recorded."""
    top = module.partition(".")[0]
    if top in RECORDED or top in sys.stdlib_module_names:
        return False
    if module in sys.modules:
        file = getattr(sys.modules[module], "__file__", None)
    else:
        try:
            file = getattr(importlib.util.find_spec(module), "origin", None)
        except (ImportError, ValueError):
            return False
    return module == "__main__" if file is None else not INSTALLED & set(Path(file).parts)


@cache  # a constant may change while trials run, as a counter does; main() begins anew, for a notebook's may have
def source_fingerprint(value: Any) -> str:
    """Compute ten digits of the SHA-256 of what a user's own function or class does, and what of theirs it names."""
    # That is its source without comments, docstrings and layout, and what it names: the user's own functions and
    # classes, which are followed, and constants, by value: numbers, strings, partials, collections, and objects of the
    # user's classes and of torch's, by their attributes. Of other packages' functions only the name counts.
    found: dict[Any, Any] = {}
    pending = [value]
    while pending:
        item = inspect.unwrap(pending.pop())
        if item in found:
            continue
        text, used = _text_and_globals(item)
        constants = []
        for name, thing in sorted(used.items()):
            parts = list(_parts(thing, set()))
            if _is_anothers(thing) and _called(thing).rpartition(".")[2] == name.rpartition(".")[2]:
                parts = []  # the name alone says what it is
            pending += filter(_is_definition, parts)
            constants.append((name, [repr(part) for part in parts if not _is_definition(part)]))
        found[item] = item.__qualname__, text, constants
    return hashlib.sha256(repr(sorted(map(repr, found.values()))).encode()).hexdigest()[:10]


def _text_and_globals(item: Any) -> tuple[Any, dict[str, Any]]:
    # What a function or class does, and the global things that it names.
    try:
        if "<" in item.__qualname__:  # a lambda, or a function within a function: its source is not only its own
            raise OSError
        tree = ast.parse(_source(item))
    except (OSError, TypeError):  # typed into Python
        return ("class", _members(item)) if isinstance(item, type) else _code_and_globals(item)
    namespace = item.__globals__ if isinstance(item, FunctionType) else vars(sys.modules[item.__module__])
    namespace = _with_imports(namespace, tree)
    used = {}
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() if ast.get_docstring(node) is not None:
                node.body[0] = ast.Pass()
            case ast.Name(id=name) if name in namespace:
                used[name] = namespace[name]
            case ast.Attribute(value=ast.Name(id=module), attr=name) if isinstance(namespace.get(module), ModuleType):
                used[f"{module}.{name}"] = getattr(namespace[module], name, None)
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return ast.unparse(tree), _with_what_modules_hold(used, attributes)


def _code_and_globals(function: FunctionType) -> tuple[Any, dict[str, Any]]:
    # The same without source, from compiled code.
    names = _names(function.__code__)
    used = {name: function.__globals__[name] for name in names & function.__globals__.keys()}
    return _what_it_does(function.__code__), _with_what_modules_hold(used, names) | {"()": _beside_code(function)}


def _members(item: type) -> dict[str, Any]:
    # What a class says itself: its bases, functions, those of properties too, and other attributes.
    members: dict[str, Any] = {"bases": item.__bases__}
    for name, member in vars(item).items():
        if isinstance(member, property):
            members |= {f"{name}.{key}": getattr(member, key) for key in ("fget", "fset", "fdel")}
        elif name not in SET_BY_PYTHON:
            members[name] = getattr(member, "__func__", member)
    return members


def _beside_code(function: FunctionType) -> list[Any]:
    # Defaults, and what it encloses.
    enclosed = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # empty
            enclosed.append(cell.cell_contents)
    parts = [*(function.__defaults__ or ()), *sorted((function.__kwdefaults__ or {}).items()), *enclosed]
    return [part for part in parts if part is not function]


def _source(item: Any) -> str:
    members = vars(item) if isinstance(item, type) else {"": item}
    state = {name: getattr(member, "__code__", member) for name, member in members.items()}
    plain = {name: value for name, value in state.items() if isinstance(value, bool | int | float | str | CodeType)}
    return _source_of(item, tuple(plain.items()))


@cache  # for the file may be edited while trials run; where a notebook then loads it anew, the state is another
def _source_of(item: Any, state: tuple[tuple[str, Any], ...]) -> str:
    return textwrap.dedent(inspect.getsource(item))


def _with_imports(namespace: dict[str, Any], tree: ast.AST) -> dict[str, Any]:
    # What a function imports itself of the user's own is as good as global.
    namespace = dict(namespace)
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=module, level=level):
                modules = [namespace["__name__"] if level else module or ""]
            case _:
                continue
        if any(map(is_own, modules)):
            with contextlib.suppress(ImportError):  # then the function copes with that
                exec(ast.unparse(node), namespace)
    return namespace


def _with_what_modules_hold(used: dict[str, Any], names: set[str]) -> dict[str, Any]:
    # Add what the user's own modules among what is used hold under one of these names, and modules in those.
    found, seen = dict(used), set()
    pending = sorted(used)  # in an order that is the same in every process
    while pending:
        name = pending.pop()
        module = found[name]
        if isinstance(module, ModuleType) and is_own(module.__name__) and module not in seen:
            seen.add(module)
            held = {f"{name}.{key}": vars(module)[key] for key in names & vars(module).keys()}
            found |= held
            pending += sorted(held)
    return found


def _names(code: CodeType) -> set[str]:
    inner = [_names(item) for item in code.co_consts if isinstance(item, CodeType)]
    return set(code.co_names).union(*inner)


def _what_it_does(code: CodeType) -> list[Any]:
    # Not where it stands.
    names = [list(names) for names in (code.co_names, code.co_varnames, code.co_freevars)]
    return [code.co_code.hex(), [_constant(item) for item in code.co_consts], *names]


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _what_it_does(value)
    if isinstance(value, frozenset):  # whose order is another one in each process
        return ["frozenset", *sorted(map(repr, value))]
    return repr(value)


def _parts(value: Any, seen: set[int]) -> Iterator[Any]:
    # The user's own definitions in a global value, and its constants.
    match value:
        case Name() if is_own(value.module):
            yield value.resolve()
        case partial():
            yield from _parts([value.func, *value.args, *sorted(value.keywords.items())], seen)
        case Enum():
            yield f"{_called(type(value))}.{value.name}"
            yield from _parts(value.value, seen)
        case None | bool() | int() | float() | complex() | str() | bytes() | Path() | range() | slice():
            yield value
        case _ if _is_one_of(value, "torch", "dtype", "device") or _is_one_of(value, "numpy", "generic"):
            yield value
        case set() | frozenset():
            yield from sorted(map(repr, value))
        case _ if _is_one_of(value, "torch", "Tensor") or _is_one_of(value, "numpy", "ndarray"):
            return
        case _ if id(value) in seen:  # within itself
            return
        case MethodType():
            yield from _parts([value.__func__, value.__self__], seen)
        case list() | tuple():
            for item in value:
                yield from _parts(item, seen | {id(value)})
        case dict():
            yield from _parts(list(value.items()), seen | {id(value)})
        case _ if _is_anothers(value):
            yield _called(value)
        case _ if _is_definition(value):
            if is_own(getattr(value, "__module__", None) or ""):
                yield value
        case _:
            yield from _parts(type(value), seen)
            yield from _parts(_attributes(value), seen | {id(value)})


def _is_one_of(value: Any, module: str, *names: str) -> bool:
    # Of a module that takes long to load, and is loaded where there is such a value.
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, tuple(getattr(loaded, name) for name in names))


def _attributes(value: Any) -> list[Any]:
    # What an object was made of; others than these hold what changes from run to run.
    if is_dataclass(value):
        return [getattr(value, field.name) for field in fields(value)]
    kind = type(value).__module__
    known = is_own(kind) or kind.partition(".")[0] in {"torch", "torchvision"} or isinstance(value, SimpleNamespace)
    return sorted(vars(value).items()) if known and hasattr(value, "__dict__") else []


def _is_anothers(value: Any) -> bool:
    # A module, or a function or class, that is not the user's own.
    if isinstance(value, ModuleType):
        return not is_own(value.__name__)
    named = isinstance(value, type | FunctionType | BuiltinFunctionType)
    return named and not is_own(getattr(value, "__module__", None) or "")


def _called(value: Any) -> str:
    return value.__name__ if isinstance(value, ModuleType) else f"{value.__module__}.{value.__qualname__}"


def _is_definition(value: Any) -> bool:
    return isinstance(inspect.unwrap(value), FunctionType | type)

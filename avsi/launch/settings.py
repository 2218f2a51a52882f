"""Changing an experiment from the command line: ``--set si.strength=0.3 --set optimizer.lr=0.05``."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from avsi.experiment.description import resolve
from avsi.experiment.spec import Experiment, ExperimentError, Method, did_you_mean

BUILDERS = ("scenario", "model", "optimizer", "criterion", "scheduler")
PARTS = ("model", "optimizer")  # that a method can have of its own
VALUES = ("epochs", "batch_size", "reset_optimizer", "autocast", "channels_last")


def read_settings(given: Sequence[str]) -> list[tuple[str, Any]]:
    """Read settings.

    Args:
        given: Each ``name=value`` or ``@file``, a file of such lines; in it empty lines and comments after ``#`` are
            left out.

    Returns:
        Names and values: Python's numbers, tuples, True, False and None; else the text.

    Raises:
        ExperimentError: If one cannot be read.
    """
    lines: list[str] = []
    for item in given:
        if item.startswith("@"):
            try:
                text = Path(item[1:]).expanduser().read_text()
            except (OSError, ValueError) as error:
                raise ExperimentError(f"cannot read the settings {item[1:]} ({error})") from error
            lines += [line for line in (line.split("#")[0].strip() for line in text.splitlines()) if line]
        else:
            lines.append(item)
    settings = []
    for line in lines:
        name, equals, value = line.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise ExperimentError(f"--set takes name=value, such as si.strength=0.3; got {line!r}")
        settings.append((name.strip(), _value(value.strip())))
    return settings


def _value(text: str) -> Any:
    known = {"true": True, "false": False, "none": None}
    if text.lower() in known:
        return known[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def change(experiment: Experiment, settings: Iterable[tuple[str, Any]]) -> Experiment:
    """Change an experiment. Its trials are then others, and a method that is changed has another name.

    Args:
        experiment: The experiment.
        settings: Names and values. A name is one of the experiment's values (``batch_size``), an argument of what it
            builds (``optimizer.lr``, ``model.head.eta``, ``scenario.n_experiences``), or an argument of a method's
            strategy (``si.strength``) or of its own model or optimizer (``dhp.model.head.eta``).

    Returns:
        The changed experiment, its methods in the same order.
    """
    for name, value in settings:
        experiment = _changed(experiment, name, value)
    return experiment


def _changed(experiment: Experiment, name: str, value: Any) -> Experiment:
    changes = (*experiment.changes, (name, str(value)))
    if name == "epochs":
        return experiment.with_epochs(value)
    if name in VALUES:
        if not isinstance(value, type(getattr(experiment, name))):
            kind = type(getattr(experiment, name)).__name__
            raise ExperimentError(f"{name} takes a value of type {kind}, got {value!r}")
        return replace(experiment, changes=changes, **{name: value})
    method = method_of(experiment, name)
    if method:
        path = name[len(base_name(method)) + 1 :]
        changed = changed_method(with_parts(experiment, method, path), path, value)
        others = [m for m in experiment.methods if m.candidate_of != method.name]
        return replace(
            experiment,
            changes=changes,
            methods=tuple(changed if m is method else m for m in others),
            paper={key: values for key, values in experiment.paper.items() if key != method.name},
        )
    part, _, path = name.partition(".")
    if part == "patience" and experiment.patience and path in vars(experiment.patience):
        return replace(experiment, changes=changes, patience=replace(experiment.patience, **{path: value}))
    if part in BUILDERS and path and getattr(experiment, part) is not None:
        built: dict[str, Any] = {part: with_argument(getattr(experiment, part), path, value, name)}
        return replace(experiment, changes=changes, **built)
    methods = [method.name for method in experiment.methods]
    hint = did_you_mean(part, [*methods, *VALUES, *BUILDERS, "patience"])
    raise ExperimentError(
        f"cannot set {name!r}{hint}; there are {', '.join(VALUES)}, arguments of {', '.join(BUILDERS)} such as "
        f"optimizer.lr, and of methods such as {methods[-1]}.NAME"
    )


def base_name(method: Method) -> str:
    """Say what a method was called before it was changed.

    Args:
        method: The method, such as ``mas,strength=0.1``.

    Returns:
        Its name in the script, such as ``mas``.
    """
    return method.name.partition(",")[0] if method.settings else method.name


def method_of(experiment: Experiment, name: str) -> Method | None:
    """Find the method that a parameter's name is about.

    Args:
        experiment: The experiment.
        name: A name such as ``mas.strength``; names of methods may have dots, and the longest that fits counts.

    Returns:
        The method; None if it is about none.
    """
    fitting = [m for m in experiment.methods if name.startswith(f"{base_name(m)}.") and not m.candidate_of]
    return max(fitting, key=lambda method: len(method.name), default=None)


def with_parts(experiment: Experiment, method: Method, path: str) -> Method:
    """Give a method the experiment's model or optimizer where it has none of its own, so that it can be changed.

    Args:
        experiment: The experiment.
        method: The method.
        path: What is to be changed, such as ``optimizer.lr``.

    Returns:
        The method; its trials are the same.
    """
    part = path.split(".")[0]
    if part not in PARTS or getattr(method, part) is not None:
        return method
    own: dict[str, Any] = {part: getattr(experiment, part)}
    return replace(method, **own)


def changed_method(method: Method, path: str, value: Any) -> Method:
    """Change a parameter of a method, which is then called after it.

    Args:
        method: The method.
        path: An argument of its strategy (``strength``), or of its own model or optimizer (``optimizer.lr``).
        value: Its value.

    Returns:
        The changed method.
    """
    part, _, rest = path.partition(".")
    whole = f"{base_name(method)}.{path}"
    if part in PARTS and rest and getattr(method, part) is not None:
        own: dict[str, Any] = {part: with_argument(getattr(method, part), rest, value, whole)}
        changed = replace(method, **own)
    else:
        changed = replace(method, strategy=with_argument(method.strategy, path, value, whole))
    settings = (*(setting for setting in method.settings if setting[0] != path), (path, value))
    label = re.sub(r", \S+ = [^,]*", "", method.label or base_name(method))  # which says what it was before
    return replace(
        changed,
        name=",".join([base_name(method), *(f"{path}={in_a_name(value)}" for path, value in settings)]),
        label=", ".join([label, *(f"{path} = {value}" for path, value in settings)]),
        candidate_of="",
        settings=settings,
    )


def in_a_name(value: Any) -> str:
    """Write a value so that it can be part of a name.

    Args:
        value: The value.

    Returns:
        Letters, digits and any of ``_.+-``.
    """
    return re.sub(r"[^\w.+-]+", "_", str(value))


def argument(experiment: Experiment, method: Method, path: str) -> Any:
    """Look a parameter of a method up.

    Args:
        experiment: The experiment, whose model and optimizer a method has that has none of its own.
        method: The method.
        path: As :func:`changed_method` takes it.

    Returns:
        Its value; None where it is left to its default.
    """
    first, _, rest = path.partition(".")
    inner = first in PARTS and bool(rest)
    found: Any = getattr(with_parts(experiment, method, path), first) if inner else method.strategy
    for name in (rest if inner else path).split("."):
        found = found.keywords.get(name) if isinstance(found, partial) else None
    return found


def with_argument(build: Callable[..., Any], path: str, value: Any, name: str) -> Callable[..., Any]:
    """Give a function or class another argument.

    Example:
        >>> from functools import partial
        >>> with_argument(partial(dict, a=1), "a", 2, "dict.a")
        functools.partial(<class 'dict'>, a=2)

    Args:
        build: The function or class, or a partial of it.
        path: The argument's name, or names with dots for an argument of an argument.
        value: Its value.
        name: What a message calls it.

    Returns:
        A partial.

    Raises:
        ExperimentError: If there is no such argument.
    """
    call, args, keywords = (
        (build.func, list(build.args), dict(build.keywords)) if isinstance(build, partial) else (build, [], {})
    )
    first, _, rest = path.partition(".")
    place: int | None = None
    if first not in keywords:
        positional, known = _parameters(resolve(call))
        if known is not None and first not in known:
            raise ExperimentError(
                f"cannot set {name!r}: {getattr(call, '__name__', None) or getattr(call, 'name', call)} takes no "
                f"{first!r}{did_you_mean(first, known)}; it takes {', '.join(sorted(known))}"
            )
        if first in positional and positional.index(first) < len(args):
            place = positional.index(first)
    if rest:
        inner = keywords.get(first) if place is None else args[place]
        if not callable(inner):
            raise ExperimentError(f"cannot set {name!r}: {first} is {inner!r}, which has no arguments")
        value = with_argument(inner, rest, value, name)
    now = keywords.get(first) if place is None else args[place]
    if type(now) is float and type(value) is int:  # 10 and 10.0 are the same trial
        value = float(value)
    if place is None:
        keywords[first] = value
    else:
        args[place] = value
    return partial(call, *args, **keywords)


def _parameters(call: Any) -> tuple[list[str], set[str] | None]:
    # Names of positional parameters, and of all; None where a function takes any.
    functions = (
        [vars(base)["__init__"] for base in call.__mro__ if "__init__" in vars(base)]
        if inspect.isclass(call)
        else [call]
    )
    found = [
        list(inspect.signature(function).parameters.values())
        for function in functions
        if function is not object.__init__
    ]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p.name for p in found[0] if p.kind in kinds and p.name != "self"] if found else []
    known: set[str] = set()
    for parameters in found:  # a class hands on to its base what it does not know
        known |= {p.name for p in parameters if p.kind in kinds or p.kind is p.KEYWORD_ONLY} - {"self"}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return positional, known
    return positional, None

"""Changing an experiment from the command line: ``--set si.strength=0.3 --set optimizer.lr=0.05``."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from avsi.experiment.names import resolve
from avsi.experiment.spec import Experiment, ExperimentError, Method, did_you_mean, shortened

BUILDERS = ("scenario", "model", "optimizer", "criterion", "scheduler")
PARTS = ("model", "optimizer")  # that a method can have of its own
VALUES = ("epochs", "batch_size", "reset_optimizer", "autocast", "channels_last")


def read_settings(given: Sequence[str]) -> list[tuple[str, Any]]:
    """Read settings, each ``name=value`` or ``@file``, a file of such lines; ``#`` after a space begins a comment."""
    lines: list[str] = []
    for item in given:
        if item.startswith("@"):
            try:
                text = Path(item[1:]).expanduser().read_text("utf-8")
            except (OSError, ValueError) as error:
                raise ExperimentError(f"cannot read the settings {item[1:]} ({error})") from error
            lines += filter(None, (re.split(r"(?:^|\s)#", line)[0].strip() for line in text.splitlines()))
        else:
            lines.append(item)
    settings = []
    for line in lines:
        name, value = name_and_value(line, f"--set takes name=value, such as si.strength=0.3; got {line!r}")
        settings.append((name, read_value(value)))
    return settings


def name_and_value(text: str, advice: str) -> tuple[str, str]:
    """Split ``name=value``; where that is not what the text is, the advice is the error."""
    name, _, value = (part.strip() for part in text.partition("="))
    if not name or not value:
        raise ExperimentError(advice)
    return name, value


def read_value(text: str) -> Any:
    """Read one of Python's numbers, tuples, True, False or None, in small letters too; else it is the text."""
    known = {"true": True, "false": False, "none": None}
    if text.lower() in known:
        return known[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def change(experiment: Experiment, settings: Iterable[tuple[str, Any]]) -> Experiment:
    """Change an experiment; its trials are then others, and a method that is changed has another name."""
    for name, value in settings:
        experiment = _changed(experiment, name, value)
    return experiment


def _changed(experiment: Experiment, name: str, value: Any) -> Experiment:
    """Change ``batch_size``, an argument of what is built (``optimizer.lr``), or one of a method (``si.strength``)."""
    if name == "epochs" and value is not None:
        return experiment.with_epochs(value)
    method = method_of(experiment, name)
    part, _, path = name.partition(".")
    changed: dict[str, Any]
    if method:
        new = changed_method(experiment, method, name, value)
        changed = {
            "methods": tuple(new if m is method else m for m in experiment.methods),
            "paper": {key: values for key, values in experiment.paper.items() if key != method.name},
        }
    elif name in VALUES:
        kind = type(getattr(experiment, name))
        if type(value) is not kind:
            raise ExperimentError(f"{name} takes a value of type {kind.__name__}, got {value!r}")
        changed = {name: value}
    elif part == "patience" and experiment.patience and path in vars(experiment.patience):
        if path == "validation":
            _check_validation(experiment)
        changed = {part: replace(experiment.patience, **{path: value})}
    elif part in BUILDERS and path and getattr(experiment, part) is not None:
        changed = {part: with_argument(getattr(experiment, part), path, value, name)}
        if part in PARTS:
            changed["methods"] = tuple(_with_part(m, part, path, value, name) for m in experiment.methods)
    else:
        methods = [method.name for method in experiment.methods]
        parts = [field for field in (*BUILDERS, "patience") if getattr(experiment, field) is not None]
        raise ExperimentError(
            f"cannot set {name!r}{did_you_mean(part, [*methods, *VALUES, *parts])}; there are {', '.join(VALUES)}, "
            f"arguments of {', '.join(parts)} such as optimizer.lr, and of methods such as {methods[0]}.optimizer.lr"
        )
    return replace(experiment, changes=(*experiment.changes, (name, str(value))), **changed)


def _with_part(method: Method, part: str, path: str, value: Any, name: str) -> Method:
    """Change a method's own model or optimizer like the experiment's, where it takes that argument."""
    build = getattr(method, part)
    if build is None or f"{part}.{path}" in dict(method.settings):
        return method
    try:
        changed: dict[str, Any] = {part: with_argument(build, path, value, name)}
    except ExperimentError:
        return method
    return replace(method, **changed)


def _check_validation(experiment: Experiment) -> None:
    build = experiment.scenario
    _, known = _parameters(resolve(build.func if isinstance(build, partial) else build))
    if "validation" in getattr(build, "keywords", {}) or (known is not None and "validation" not in known):
        raise ExperimentError(
            "cannot set 'patience.validation': the scenario holds out validation images by itself; "
            "set what it takes, such as scenario.validation"
        )


def method_of(experiment: Experiment, name: str) -> Method | None:
    """Find the method that a name such as ``mas.strength`` is about; names have dots too, and the longest counts."""
    fitting = [m for m in experiment.methods if name.startswith(f"{m.base_name}.")]
    return max(fitting, key=lambda method: len(method.base_name), default=None)


def changed_method(experiment: Experiment, method: Method, name: str, value: Any) -> Method:
    """Change what a name such as ``mas.strength`` or ``mas.optimizer.lr`` is about; the method is called after it."""
    path = name.removeprefix(f"{method.base_name}.")
    part, build, argument = _part(experiment, method, path)
    built: dict[str, Any] = {part: with_argument(build, argument, value, name)}
    settings = (*(setting for setting in method.settings if setting[0] != path), (path, value))
    named = ",".join(re.sub(r"[^\w.+=-]+", "_", f"{path}={value}") for path, value in settings)
    # What the script's label or an earlier setting says, such as ", c = 1" or ", betas = (0.9, 0.99)", goes.
    label = re.sub(r", \S+ = (\([^)]*\)|[^,]*)", "", method.label or method.base_name)
    return replace(
        method,
        **built,
        name=f"{method.base_name},{shortened(named)}",
        label=label + "".join(f", {path} = {written(value)}" for path, value in settings),
        settings=settings,
    )


def written(value: Any) -> str:
    """Write a value for readers: 1e+10, not 10000000000.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def value_of(experiment: Experiment, method: Method, path: str) -> Any:
    """Look up what a method has for ``strength`` or ``optimizer.lr``; None where it is left to its default."""
    _, found, argument = _part(experiment, method, path)
    for name in argument.split("."):
        found = _given(found, name)[1] if isinstance(found, partial) else None
    return found


def _given(build: partial[Any], name: str) -> tuple[int | None, Any]:
    """Look up an argument that is given: its place, if it is positional, and its value; None where it is not given."""
    positional, _ = _parameters(resolve(build.func))
    if name in positional[: len(build.args)]:
        place = positional.index(name)
        return place, build.args[place]
    return None, build.keywords.get(name)


def _part(experiment: Experiment, method: Method, path: str) -> tuple[str, Any, str]:
    """Say what an argument of a method belongs to: its field, what builds that, and the argument's path in there."""
    part, _, rest = path.partition(".")
    if part in PARTS and rest:
        return part, getattr(method, part) or getattr(experiment, part), rest
    return "strategy", method.strategy, path


def with_argument(build: Callable[..., Any], path: str, value: Any, name: str) -> Callable[..., Any]:
    """Give a function, class or partial another argument ``a``, or ``a.b`` of its argument; messages have the name."""
    whole = build if isinstance(build, partial) else partial(build)
    call, args, keywords = whole.func, list(whole.args), dict(whole.keywords)
    first, _, rest = path.partition(".")
    _, known = _parameters(resolve(call))
    if known is not None and first not in known:
        raise ExperimentError(
            f"cannot set {name!r}: {getattr(call, '__name__', None) or getattr(call, 'name', call)} takes no "
            f"{first!r}{did_you_mean(first, known)}; it takes {', '.join(sorted(known))}"
        )
    place, now = _given(whole, first)
    if rest:
        if not callable(now):
            raise ExperimentError(f"cannot set {name!r}: {first} is {now!r}, which has no arguments")
        value = with_argument(now, rest, value, name)
    elif type(now) is float and type(value) is int:  # 10 and 10.0 are the same trial
        value = float(value)
    elif type(now) in {int, float} and (isinstance(value, tuple) or _is_like_a_number(value)):
        raise ExperimentError(f"cannot set {name!r}: {first} is a number such as {now!r}, got {value!r}")
    if place is None:
        keywords[first] = value
    else:
        args[place] = value
    return partial(call, *args, **keywords)


def _is_like_a_number(value: Any) -> bool:
    return isinstance(value, str) and re.match(r"[-+.]?\d", value) is not None


def _parameters(call: Any) -> tuple[list[str], set[str] | None]:
    """Name the parameters of a call in their order, and all that may be given; None where it takes any."""
    order: list[str] = []
    accepted: set[str] = set()
    # An __init__ with **kwargs hands on what it does not know to its base class: look through bases until one has none.
    bases = call.__mro__[:-1] if inspect.isclass(call) else ()
    for function in [vars(base)["__init__"] for base in bases if "__init__" in vars(base)] or [call]:
        parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
        order = order or [p.name for p in parameters]
        accepted |= {p.name for p in parameters if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return order, accepted
    # Avalanche's strategies end in a Protocol, whose __init__ takes anything and uses nothing.
    return order, accepted if any(Protocol in base.__bases__ for base in bases) else None

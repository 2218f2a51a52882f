"""Random generators that objects hold: finding them, and their states."""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Iterator, Sequence
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

LIBRARIES = {"torch", "torchvision", "numpy", *sys.stdlib_module_names}
"""Packages whose code draws from the global generators or from those it is given."""

LEAVES = (ModuleType, CodeType, Tensor, np.ndarray, str, bytes, int, float, complex)
"""What holds no generator, or too much else to be looked into."""


def is_generator(value: Any) -> bool:
    """Tell whether a value is a random generator of torch, numpy or Python that has a state."""
    kinds = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
    return isinstance(value, kinds) and not isinstance(value, random.SystemRandom)


def state_of(generator: Any) -> Any:
    """Read a generator's state as plain data; equal states compare equal."""
    if isinstance(generator, torch.Generator):
        return generator.get_state().numpy().tobytes().hex()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return _plain(generator.get_state(legacy=False))
    return _plain(generator.bit_generator.state)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def set_state(generator: Any, state: Any) -> None:
    """Bring a generator back to a state."""
    if isinstance(generator, torch.Generator):
        generator.set_state(torch.frombuffer(bytearray.fromhex(state), dtype=torch.uint8))
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state


def generators_of(root: Any) -> list[Any]:
    """Find the generators that a function or another object can draw from, besides the global ones.

    Looked through are attributes, slots, containers, closures, arguments of partial functions, globals that functions
    name, and the classes and functions met on the way; not other modules, and not the code of :data:`LIBRARIES`.

    Args:
        root: The object.

    Returns:
        The generators, each once.
    """
    found: list[Any] = []
    seen: dict[int, Any] = {}
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value  # kept, so that no other object takes over its identity
        if is_generator(value):
            found.append(value)
        elif isinstance(value, type | FunctionType):
            if str(value.__module__).partition(".")[0] not in LIBRARIES:
                waiting.extend(_parts(value))
        elif not isinstance(value, LEAVES):
            waiting.extend(gc.get_referents(value))
    return found


def states_of(root: Any) -> list[Any]:
    """Read the states of all generators that :func:`generators_of` finds, as plain data."""
    return [*map(state_of, generators_of(root))]


def set_states(root: Any, states: Sequence[Any]) -> None:
    """Bring the generators that an object holds to states that :func:`states_of` gave for it, or for one like it.

    Args:
        root: The object.
        states: The states.

    Raises:
        ValueError: If there are not as many generators, or of other kinds.
    """
    found = generators_of(root)
    if len(found) != len(states):
        raise ValueError(f"there are {len(found)} random generators for {len(states)} states that were kept")
    try:
        for generator, state in zip(found, states, strict=True):
            set_state(generator, state)
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"a state that was kept is not one of a {type(generator).__name__}: {error}") from error


def _parts(code: type | FunctionType) -> Iterator[Any]:
    if isinstance(code, type):
        yield from code.__bases__
        yield from vars(code).values()
    else:
        yield from (code.__closure__, code.__defaults__, code.__kwdefaults__, vars(code))
        yield from (code.__globals__[name] for name in _names(code.__code__) if name in code.__globals__)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):  # a function within
            yield from _names(constant)

"""Going back: all that an object holds, remembered and put back in place, bit for bit."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from enum import Enum
from io import IOBase
from operator import length_hint
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    FunctionType,
    GeneratorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks import CLExperience, CLScenario, CLStream
from avalanche.benchmarks.utils.flat_data import FlatData
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from avsi._generators import is_generator, set_state, state_of
from avsi.plugins.batches import InMemoryBatches, InMemoryLoader

LEAVES = (
    *(type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, Enum, PurePath, IOBase),
    *(Dataset, FlatData, DataLoader, InMemoryBatches, InMemoryLoader, CLExperience, CLScenario, CLStream),
)
"""What is put back as the same object and not looked into: code, files, and data, which training only reads."""

CONTAINERS = (dict, list, set, deque, tuple)

EMPTY = object()
"""Stands for what a slot holds that holds nothing."""


class Snapshot:
    """All that can be reached from an object through attributes, containers, tensors and arrays, as it is now.

    :meth:`restore` brings it back in place, as often as wanted: every object and every tensor is the same one as
    before, with what it held. So a model that grew has its old shape again, an optimizer its old state and parameters,
    and whoever holds a reference to a part of them sees that. Nothing has to know how to save itself. Not covered are
    data sets and files, what an extension written in C keeps to itself, and the global random states.

    Args:
        root: The object.
        leave: Objects, such as loggers, that are left as they are.

    Raises:
        ValueError: If there is an iterator among them that is under way, such as a generator: none can be put back.

    Examples:
        >>> import torch
        >>> layer = torch.nn.Linear(1, 1)
        >>> optimizer = torch.optim.Adam(layer.parameters())
        >>> snapshot, before = Snapshot([layer, optimizer]), layer.weight.item()
        >>> layer(torch.ones(1, 1)).sum().backward()
        >>> optimizer.step()
        >>> layer.added = torch.nn.Linear(1, 1)
        >>> snapshot.restore()
        >>> layer.weight.item() == before, hasattr(layer, "added"), len(optimizer.state)
        (True, False, 0)
    """

    def __init__(self, root: Any, leave: Collection[Any] = ()) -> None:
        self._tensors: list[tuple[Tensor, Tensor, bool, Tensor | None]] = []
        self._holders: list[tuple[Any, Any]] = []  # containers, arrays and generators, each with what it holds
        self._slots: list[tuple[MemberDescriptorType, Any, Any]] = []  # with the object, and what it holds in there
        seen, waiting = {id(item): item for item in leave}, [(root, "it")]
        while waiting:
            value, owner = waiting.pop()
            if id(value) in seen:
                continue
            if _is_under_way(value):
                raise ValueError(
                    f"{owner} holds a {type(value).__name__}, an iterator that is under way and cannot be put back"
                )
            seen[id(value)] = value
            owner = owner if isinstance(value, CONTAINERS) else type(value).__name__
            waiting.extend((held, owner) for held in self._remember(value))

    def _remember(self, value: Any) -> Iterator[Any]:
        # Yields what is to be looked into next.
        if isinstance(value, Tensor):
            gradient = value.grad if value.is_leaf else None
            self._tensors.append((value, value.detach().clone(), value.requires_grad, gradient))
            yield gradient
        elif is_generator(value):
            self._holders.append((value, state_of(value)))
        elif isinstance(value, LEAVES):
            return
        elif isinstance(value, np.ndarray):
            if value.flags.writeable:
                self._holders.append((value, value.copy()))
            if value.dtype.hasobject:
                yield from value.flat
        elif isinstance(value, dict):
            self._holders.append((value, dict(value)))
            yield from value.keys()
            yield from value.values()
        elif isinstance(value, list | set | deque | bytearray):
            self._holders.append((value, list(value)))
            yield from value
        elif isinstance(value, tuple):
            yield from value
        for slot in _slots(type(value)):
            held = _read(slot, value)
            self._slots.append((slot, value, held))
            yield held
        if hasattr(value, "__dict__"):  # containers and tensors may have attributes, too
            yield from self._remember(vars(value))

    def restore(self) -> None:
        """Bring everything back."""
        for holder, held in self._holders:
            if is_generator(holder):
                set_state(holder, held)
            elif isinstance(holder, np.ndarray):
                holder[...] = held
            else:
                holder.clear()
                holder.update(held) if isinstance(holder, dict | set) else holder.extend(held)
        for slot, owner, held in self._slots:
            if held is not EMPTY:
                slot.__set__(owner, held)
            elif _read(slot, owner) is not EMPTY:
                slot.__delete__(owner)
        with torch.no_grad():
            for tensor, value, requires_grad, gradient in self._tensors:
                if tensor.shape != value.shape or tensor.dtype != value.dtype or tensor.device != value.device:
                    tensor.data = value.clone()
                elif tensor.is_floating_point() or not torch.equal(tensor, value):  # data of a file cannot be written
                    _write(tensor, value)
                if tensor.is_leaf:
                    tensor.requires_grad_(requires_grad)
                    tensor.grad = gradient


def _is_under_way(value: Any) -> bool:
    # Whether it is an iterator without attributes, in which one could look and write, that has something left.
    if not isinstance(value, Iterator) or isinstance(value, LEAVES) or hasattr(value, "__dict__"):
        return False
    return value.gi_frame is not None if isinstance(value, GeneratorType) else length_hint(value, 1) > 0


def _write(tensor: Tensor, value: Tensor) -> None:
    # What was made in inference mode can only be written in there; leaving it takes gradients up again.
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        try:
            tensor.copy_(value)
        except RuntimeError:  # an expanded one, whose elements share their memory
            tensor.data = value.clone()


def _slots(kind: type) -> Iterator[MemberDescriptorType]:
    for base in kind.__mro__:
        if "__slots__" in vars(base):
            yield from (slot for slot in vars(base).values() if isinstance(slot, MemberDescriptorType))


def _read(slot: MemberDescriptorType, owner: Any) -> Any:
    try:
        return slot.__get__(owner)
    except AttributeError:
        return EMPTY

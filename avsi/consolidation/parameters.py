"""Which parameters of a model are penalised, and fitting state to parameters that grew."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def unwrap(model: nn.Module) -> nn.Module:
    """Find the user's model within what makes it distributed or compiles it.

    Args:
        model: The model, perhaps wrapped.

    Returns:
        The model, so that parameters have the names that they have without a wrapper.
    """
    while True:
        inner = model.module if isinstance(model, DistributedDataParallel) else getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def penalised_parameters(model: nn.Module, exclude: Sequence[str]) -> dict[str, nn.Parameter]:
    """Collect a model's trainable parameters, each once, without the excluded ones.

    A layer keeps parameters of its own out of consolidation, for example those of fast plasticity, by listing their
    names in an attribute ``fast_parameters``.

    Args:
        model: The model.
        exclude: Glob patterns of parameter names.

    Returns:
        Parameter by name. A shared parameter appears under its first name, and is excluded under any of its names.

    Raises:
        ValueError: If a pattern matches no parameter, or an embedding that is penalised makes sparse gradients.
        TypeError: If a parameter is neither float32 nor float64, or is sharded.
    """
    named = dict(model.named_parameters())
    every_name = dict(model.named_parameters(remove_duplicate=False))  # all names of shared parameters too
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in every_name):
            known = ", ".join(every_name)
            raise ValueError(f"exclude pattern {pattern!r} matches no parameter; the model has: {known}")
    free = {id(p) for name, p in every_name.items() if any(fnmatchcase(name, pattern) for pattern in exclude)}
    free |= {id(getattr(layer, name)) for layer in model.modules() for name in getattr(layer, "fast_parameters", ())}
    chosen = {name: p for name, p in named.items() if p.requires_grad and id(p) not in free}
    penalised = {id(parameter) for parameter in chosen.values()}
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse and id(module.weight) in penalised:
            raise ValueError(
                f"layer {name!r} ({type(module).__name__}) makes sparse gradients, which cannot be penalised; make it "
                "with sparse=False, or name its weight in exclude"
            )
    for name, parameter in chosen.items():
        if hasattr(parameter, "device_mesh"):
            raise TypeError(
                f"parameter {name} is sharded ({type(parameter).__name__}), which is not supported; "
                "use DistributedDataParallel, where each process has the whole model"
            )
        if parameter.dtype not in {torch.float32, torch.float64}:
            raise TypeError(
                f"parameter {name} is {parameter.dtype}; importances need float32 or float64 parameters "
                "(torch.autocast keeps them so)"
            )
    return chosen


def fit(old: Tensor | None, new: Tensor, name: str) -> Tensor:
    """Write an old tensor into the leading block of a new one of at least its size.

    Args:
        old: The tensor to keep, or None.
        new: The tensor that gives shape, dtype, device and the values outside the old block; changed in place.
        name: The parameter's name, for the error.

    Returns:
        ``new``.

    Raises:
        ValueError: If the old tensor does not fit into the new one.
    """
    if old is None:
        return new
    if old.dim() != new.dim() or any(o > n for o, n in zip(old.shape, new.shape, strict=True)):
        raise ValueError(
            f"parameter {name} has shape {tuple(new.shape)}, but importances of shape {tuple(old.shape)} are known "
            "for it; parameters may grow, not shrink (start with a new plugin for a new model)"
        )
    new[tuple(slice(size) for size in old.shape)] = old.to(new)
    return new

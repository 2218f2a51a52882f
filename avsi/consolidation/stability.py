"""When the penalty's explicit step is stable."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class StabilityWarning(UserWarning):
    """The strength of a penalty is beyond the largest at which its explicit step is stable."""


def inner_optimizer(optimizer: Any) -> Any:
    """Find the optimizer within a wrapper, such as those of Accelerate.

    Args:
        optimizer: The optimizer, perhaps wrapped.

    Returns:
        The optimizer.
    """
    inner = getattr(optimizer, "optimizer", None)
    return inner if isinstance(inner, torch.optim.Optimizer) else optimizer


def learning_rates(optimizer: Any) -> dict[int, float]:
    """Look up the learning rate of each parameter.

    Args:
        optimizer: The optimizer.

    Returns:
        Learning rate by ``id`` of the parameter.
    """
    return {id(p): float(group["lr"]) for group in optimizer.param_groups for p in group["params"]}


def largest_stable_strength(
    optimizer: Any, parameters: Mapping[str, nn.Parameter], importance: Mapping[str, Tensor]
) -> float:
    r"""Compute the largest strength at which the explicit step of the penalty alone does not grow.

    On the quadratic ``strength * Omega (theta - anchor)^2``, of curvature ``h = 2 * strength * Omega``, a step of SGD
    multiplies a displacement by ``1 - lr * h``, and is stable for ``lr * h <= 2``. Momentum beta moves the bound to
    ``2 (1 + beta) / (1 - dampening)``, Nesterov's to ``2 (1 + beta) / (1 + 2 beta)``; averaged SGD steps as plain SGD
    does. Steps of optimizers that divide the gradient by its own size, like Adam's, are bounded by their learning rate
    whatever the strength; for these there is no bound to compute.

    Args:
        optimizer: The optimizer.
        parameters: The model's parameters by name; those without an importance are not penalised.
        importance: Omega by name.

    Returns:
        The strength; infinity where there is no bound.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> theta = nn.Parameter(torch.ones(2))
        >>> sgd = torch.optim.SGD([theta], lr=0.1)
        >>> largest_stable_strength(sgd, {"theta": theta}, {"theta": torch.tensor([0.0, 4.0])})
        2.5
    """
    if not has_bound(optimizer):
        return math.inf
    known = [name for name in parameters if name in importance]
    return largest_for(optimizer, parameters, {name: peak(importance[name]) for name in known})


def has_bound(optimizer: Any) -> bool:
    """Say whether there is a largest stable strength for an optimizer.

    Args:
        optimizer: The optimizer, perhaps wrapped.

    Returns:
        Whether it is SGD, averaged or not.
    """
    return isinstance(inner_optimizer(optimizer), torch.optim.SGD | torch.optim.ASGD)


def peak(omega: Tensor) -> float:
    """Find the largest importance of a parameter.

    Args:
        omega: Omega of the parameter.

    Returns:
        Its largest element; 0 where it has none.
    """
    return float(omega.max()) if omega.numel() else 0.0


def largest_for(optimizer: Any, parameters: Mapping[str, nn.Parameter], peaks: Mapping[str, float]) -> float:
    """Compute the largest stable strength of what is known of importances.

    Args:
        optimizer: The optimizer, one that has a bound.
        parameters: The parameters by name.
        peaks: The largest element of Omega by name.

    Returns:
        As :func:`largest_stable_strength`.
    """
    bounds = {}
    for group in optimizer.param_groups:
        bounds.update(dict.fromkeys(map(id, group["params"]), _bound(group)))
    limits = (bounds.get(id(parameters[name]), math.inf) / peaks[name] for name in peaks if peaks[name] > 0)
    return min(limits, default=math.inf)


def _bound(group: Mapping[str, Any]) -> float:
    # Of strength * Omega, for one of SGD's parameter groups, or of ASGD's, which has no momentum.
    lr, beta = float(group["lr"]), float(group.get("momentum", 0.0))
    damped = 1.0 if not beta else 1 + 2 * beta if group["nesterov"] else 1 - float(group["dampening"])
    return (1 + beta) / (lr * damped) if lr * damped > 0 else math.inf

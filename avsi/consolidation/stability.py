"""When the penalty's explicit step is stable, and when one that is not has blown weights up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from avsi.consolidation.divergence import FirstFault, largest

GROWTH = 1e3
"""Where the explicit step is unstable, weights this many times the largest anchor (or 1) have diverged."""


class StabilityWarning(UserWarning):
    """The strength of a penalty is beyond the largest at which its explicit step is stable."""


def inner_optimizer(optimizer: Any) -> Any:
    """Find the optimizer within a wrapper, such as Accelerate's or that of sharpness-aware minimisation.

    Args:
        optimizer: The optimizer, perhaps wrapped.

    Returns:
        The optimizer.
    """
    within = (getattr(optimizer, name, None) for name in ("optimizer", "base_optimizer"))
    return next((inner for inner in within if isinstance(inner, torch.optim.Optimizer)), optimizer)


def learning_rates(optimizer: Any) -> dict[int, float]:
    """Look up the learning rate of each parameter.

    Args:
        optimizer: The optimizer.

    Returns:
        Learning rate by ``id`` of the parameter.
    """
    return {id(p): learning_rate(group) for group in optimizer.param_groups for p in group["params"]}


def learning_rate(group: Mapping[str, Any]) -> float:
    """Look up the learning rate of a parameter group.

    Args:
        group: The group.

    Returns:
        Its rate; not a number where it has none, as that of an optimizer which finds one by itself.
    """
    return math.nan if group.get("lr") is None else float(group["lr"])


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
    if not _has_bound(optimizer):
        return math.inf
    known = [name for name in parameters if name in importance]
    return _largest_for(optimizer, parameters, {name: _peak(importance[name]) for name in known})


class Stability:
    """What is known of the explicit step's stability in a task."""

    def __init__(self) -> None:
        self.stable_strength = math.inf
        self.unstable = False
        # By parameter, what its stability depends on: the learning rate when it was looked at, and its largest Omega.
        self._rates: dict[str, float] = {}
        self._peaks: dict[str, float] = {}
        self._limit = math.inf  # of weights, where the step is unstable
        self._fault, self._fault_from = FirstFault(), 0  # and the step from which on it is noted

    def look(
        self,
        optimizer: Any,
        parameters: Mapping[str, nn.Parameter],
        rates: Mapping[str, float],
        importance: Mapping[str, Tensor],
    ) -> None:
        """Look at the parameters that the task had not reached before, or not at so high a learning rate.

        Args:
            optimizer: The optimizer.
            parameters: The penalised parameters by name.
            rates: Learning rates by name of those that the optimizer steps now.
            importance: Omega by name.
        """
        fresh = {name: parameters[name] for name in rates if rates[name] > self._rates.get(name, -1.0)}
        if not fresh or not _has_bound(optimizer):
            return
        self._rates.update({name: rates[name] for name in fresh})
        new = [name for name in fresh if name in importance and name not in self._peaks]
        self._peaks.update({name: _peak(importance[name]) for name in new})
        peaks = {name: self._peaks[name] for name in fresh if name in self._peaks}
        self.stable_strength = min(self.stable_strength, _largest_for(optimizer, fresh, peaks))

    def is_exceeded(self, strength: float, step: int, anchors: Iterable[Tensor]) -> bool:
        """Say whether a strength turns out to be unstable; from then on weights are watched.

        Args:
            strength: The strength.
            step: The task's step that comes next.
            anchors: What the weights are held near.

        Returns:
            Whether it is; False where that was known before.
        """
        if self.unstable or strength <= self.stable_strength:
            return False
        self.unstable, self._fault_from = True, step
        self._limit = GROWTH * max(1.0, float(largest(anchors)))
        return True

    def is_blown_up(self, parameters: Iterable[Tensor]) -> bool:
        """Look after a step whether weights have diverged where the strength is unstable.

        Args:
            parameters: The weights.

        Returns:
            Whether it is known that they have; on a GPU :meth:`first_fault` says it later.
        """
        return self.unstable and self._fault.note(largest(parameters) <= self._limit)

    def first_fault(self) -> int | None:
        """Ask the device.

        Returns:
            The step of the task that blew weights up; None if none is known to have.
        """
        step = self._fault.step()
        return None if step is None else self._fault_from + step


def _has_bound(optimizer: Any) -> bool:
    # Whether there is a largest stable strength: for SGD, averaged or not.
    return isinstance(inner_optimizer(optimizer), torch.optim.SGD | torch.optim.ASGD)


def _peak(omega: Tensor) -> float:
    # The largest importance of a parameter; 0 where it has no elements.
    return float(omega.max()) if omega.numel() else 0.0


def _largest_for(optimizer: Any, parameters: Mapping[str, nn.Parameter], peaks: Mapping[str, float]) -> float:
    # The largest stable strength, of the largest element of Omega by name.
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

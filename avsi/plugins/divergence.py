"""Stops an Avalanche strategy whose training diverges."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import torch
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor, nn

from avsi.consolidation.divergence import HUGE, DivergenceError, FirstFault, largest
from avsi.consolidation.penalty import QuadraticPenalty
from avsi.consolidation.stability import learning_rate
from avsi.hebbian import DHPLinear

LARGE_INPUT = 1e4
"""Inputs beyond this are named as the likely cause."""


class DivergencePlugin(SupervisedPlugin):
    """Stops training where the loss, weights or Hebbian traces are no longer finite, or weights are beyond 1e10.

    The loss is looked at after each backward pass, before the optimizer's step; weights and traces after each epoch,
    before importances are measured. On a CPU a loss that is not finite stops training at once. On other devices nothing
    waits for it within an epoch: a flag on the device is read at the epoch's end, and the error names the step at which
    it was raised. avsi's other plugins are of this class: this one is for strategies that have none of them, such as
    fine-tuning. Of several plugins of a strategy one looks.

    What stops training is an :class:`avsi.consolidation.DivergenceError` with task, epoch, step and the likely cause.

    Examples:
        >>> import torch
        >>> from avalanche.training import Naive
        >>> model = torch.nn.Linear(4, 2)
        >>> strategy = Naive(
        ...     model=model,
        ...     optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        ...     criterion=torch.nn.CrossEntropyLoss(),
        ...     plugins=[DivergencePlugin()],
        ... )
    """

    def __init__(self) -> None:
        super().__init__()
        self.supports_distributed = True
        self._watches = False
        self._losses = FirstFault()

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Find out whether this is the plugin that looks."""
        first = next((plugin for plugin in strategy.plugins if isinstance(plugin, DivergencePlugin)), self)
        self._watches = first is self
        self._losses = FirstFault()

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Begin to count the epoch's steps."""
        self._losses = FirstFault()

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Look at the loss, and stop on a CPU where it is not finite."""
        if not self._watches:
            return
        loss = strategy.loss
        if not loss.is_cpu:
            self._losses.note(torch.isfinite(loss.detach()).all())
            return
        value = loss.item()
        if not math.isfinite(value):
            stop_within(strategy, f"the loss is {value}")

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Read the device's flag, and look at weights and traces."""
        if self._watches:
            self._look(strategy)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Look again, for strategies that announce no epochs."""
        if self._watches:
            self._look(strategy)

    def _look(self, strategy: Any) -> None:
        if (step := self._losses.step()) is not None:
            stop(strategy, what_broke(strategy.model) or "the loss is not finite", step)
        if broken := what_broke(strategy.model):
            stop(strategy, broken, max(0, strategy.clock.train_epoch_iterations - 1))


@torch.no_grad()
def what_broke(model: nn.Module) -> str:
    """Look at a model's weights and Hebbian traces.

    Args:
        model: The model.

    Returns:
        What is wrong with them; empty where nothing is.
    """
    # Not frozen ones, which no training breaks: a mask of -inf may be among them.
    weights = [p for p in model.parameters() if p.requires_grad and p.is_floating_point() and p.numel()]
    traces = [layer.hebb for layer in model.modules() if isinstance(layer, DHPLinear)]
    for name, tensors in (("weight", weights), ("Hebbian trace", traces)):
        peak = float(largest(tensors)) if tensors else 0.0
        if not math.isfinite(peak):
            return f"{name}s are not finite"
        if peak > HUGE:
            return f"the largest {name} is {peak:.3g}"
    return ""


def stop_within(strategy: Any, found: str) -> NoReturn:
    """Stop a strategy within an iteration, before its step.

    Args:
        strategy: The strategy.
        found: What was found, if its weights are whole.
    """
    step, broken = strategy.clock.train_epoch_iterations, what_broke(strategy.model)
    # Weights that are broken already were broken by the step before.
    stop(strategy, broken or found, max(0, step - 1) if broken else step)


def stop(strategy: Any, found: str, step: int) -> NoReturn:
    """Stop a strategy in training.

    Args:
        strategy: The strategy.
        found: What was found.
        step: Index of the step within the epoch.

    Raises:
        DivergenceError: Always.
    """
    clock = strategy.clock
    cores = (getattr(plugin, "core", None) for plugin in strategy.plugins)
    unstable = next((core for core in cores if isinstance(core, QuadraticPenalty) and core.unstable), None)
    # After an experience's last epoch the clock has counted it.
    epoch = min(clock.train_exp_epochs, strategy.train_epochs - 1)
    raise DivergenceError(
        found,
        unstable.why() if unstable else _why(strategy),
        task=clock.train_exp_counter,
        epoch=epoch,
        step=step,
        stable_strength=unstable.stable_strength if unstable else None,
    ) from None


def _why(strategy: Any) -> str:
    inputs = strategy.mb_x if strategy.mbatch is not None else None
    if isinstance(inputs, Tensor) and inputs.is_floating_point() and inputs.numel():
        peak = float(largest([inputs]))
        if not math.isfinite(peak):
            return "the inputs of the batch are not finite; look at the data"
        if peak > LARGE_INPUT:
            return f"inputs of the batch are as large as {peak:.3g}; scale them"
    known = {rate for rate in map(learning_rate, strategy.optimizer.param_groups) if math.isfinite(rate)}
    rates = "".join(f" {rate:g}," for rate in sorted(known))[:-1]
    return f"the learning rate{rates} is probably too large for this loss; lower it, or clip gradients"

"""Differentiable Hebbian plasticity as a strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn, optim

from avsi.plugins.hebbian import DHPPlugin
from avsi.strategies.template import MethodTemplate


class DHP(MethodTemplate):
    """Fine-tuning of a model with Hebbian traces in its head ("DHP softmax"); the plugin is ``strategy.dhp``.

    With a consolidation plugin among ``plugins``, an ``avsi.SIPlugin`` say, it is the paper's DHP + SI: only slow
    weights are consolidated.

    Args:
        model: A model with one or more :class:`avsi.models.DHPLinear`.
        optimizer: Any optimizer of ``torch.optim`` that evaluates the loss once per step.
        criterion: Task loss. Default: cross entropy.
        plugins: Further plugins.
        **template: Arguments of Avalanche's ``SupervisedTemplate``.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: optim.Optimizer,
        criterion: Callable[..., Any] | None = None,
        plugins: Sequence[Any] | None = None,
        **template: Any,
    ) -> None:
        self.dhp = DHPPlugin()
        super().__init__(
            own=self.dhp, model=model, optimizer=optimizer, criterion=criterion, plugins=plugins, **template
        )

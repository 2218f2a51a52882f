"""Memory Aware Synapses as a strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn, optim

from avsi.consolidation.arguments import Strength
from avsi.plugins import MASPlugin
from avsi.strategies.template import MethodTemplate


class MAS(MethodTemplate):
    """Fine-tuning with Memory Aware Synapses (Aljundi et al. 2018), exact per sample; the plugin is ``strategy.mas``.

    Args:
        model: The model.
        optimizer: Any first-order optimizer of ``torch.optim``.
        criterion: Task loss, the mean over the batch. Default: cross entropy.
        strength: lambda, see :class:`avsi.MASPlugin`.
        exclude: Glob patterns of parameter names to leave out.
        plugins: Further plugins.
        **template: Arguments of Avalanche's ``SupervisedTemplate``.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: optim.Optimizer,
        criterion: Callable[..., Any] | None = None,
        strength: Strength,
        exclude: Iterable[str] = (),
        plugins: Sequence[Any] | None = None,
        **template: Any,
    ) -> None:
        self.mas = MASPlugin(strength, exclude=exclude)
        super().__init__(
            own=self.mas, model=model, optimizer=optimizer, criterion=criterion, plugins=plugins, **template
        )

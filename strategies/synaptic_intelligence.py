"""Synaptic Intelligence as a strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn, optim

from avsi.consolidation.arguments import Strength
from avsi.plugins import SIPlugin
from avsi.strategies.template import MethodTemplate


class SynapticIntelligence(MethodTemplate):
    """Fine-tuning with Synaptic Intelligence (Zenke et al. 2017); the plugin is ``strategy.si``.

    Args:
        model: The model.
        optimizer: Any first-order optimizer of ``torch.optim``.
        criterion: Task loss, the mean over the batch. Default: cross entropy.
        strength: c of the paper, see :class:`avsi.SIPlugin`.
        damping: xi of the paper.
        exclude: Glob patterns of parameter names to leave out.
        plugins: Further plugins.
        **template: Arguments of Avalanche's ``SupervisedTemplate`` (``train_mb_size``, ``train_epochs``,
            ``eval_mb_size``, ``device``, ``evaluator``, ``eval_every``, ...).
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: optim.Optimizer,
        criterion: Callable[..., Any] | None = None,
        strength: Strength,
        damping: float = 0.1,
        exclude: Iterable[str] = (),
        plugins: Sequence[Any] | None = None,
        **template: Any,
    ) -> None:
        self.si = SIPlugin(strength, damping=damping, exclude=exclude)
        super().__init__(
            own=self.si, model=model, optimizer=optimizer, criterion=criterion, plugins=plugins, **template
        )

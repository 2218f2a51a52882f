"""Online Elastic Weight Consolidation as a strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn, optim

from avsi.consolidation.arguments import Strength
from avsi.importance.estimators import Labels
from avsi.plugins import OnlineEWCPlugin
from avsi.strategies.template import MethodTemplate


class OnlineEWC(MethodTemplate):
    """Fine-tuning with Online EWC (Schwarz et al. 2018), exact per sample; the plugin is ``strategy.online_ewc``.

    Args:
        model: The model.
        optimizer: Any first-order optimizer of ``torch.optim``.
        criterion: Task loss, the mean over the batch. Default: cross entropy.
        strength: lambda, see :class:`avsi.OnlineEWCPlugin`.
        gamma: How much of the old importance stays.
        labels: Which labels the Fisher information is taken over.
        max_samples: Measure it on so many of an experience's samples, drawn at random; None: on all.
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
        gamma: float = 1.0,
        labels: Labels = "empirical",
        max_samples: int | None = None,
        exclude: Iterable[str] = (),
        plugins: Sequence[Any] | None = None,
        **template: Any,
    ) -> None:
        self.online_ewc = OnlineEWCPlugin(
            strength, gamma=gamma, labels=labels, max_samples=max_samples, exclude=exclude
        )
        super().__init__(
            own=self.online_ewc, model=model, optimizer=optimizer, criterion=criterion, plugins=plugins, **template
        )

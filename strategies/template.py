"""What the ready-made strategies share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from avalanche.training.templates import SupervisedTemplate
from torch import nn, optim

from avsi.evaluation import default_evaluator
from avsi.plugins.batches import InMemoryBatches


class MethodTemplate(SupervisedTemplate):
    """Avalanche's ``SupervisedTemplate`` with a method's plugin.

    Image data sets of avsi's scenarios are read in whole batches (:class:`avsi.InMemoryBatches`, last of the plugins
    unless there is one), and metrics are called only where they listen; results are those of ``SupervisedTemplate``,
    bit for bit. To do without, use the plugin with Avalanche's ``Naive``.

    Args:
        own: The method's plugin.
        model: The model.
        optimizer: The optimizer.
        criterion: Task loss. Default: cross entropy.
        plugins: Further plugins.
        evaluator: Metrics and loggers, or a function that makes them. Default: as in Avalanche.
        **template: Further arguments of ``SupervisedTemplate``.
    """

    def __init__(
        self,
        *,
        own: Any,
        model: nn.Module,
        optimizer: optim.Optimizer,
        criterion: Callable[..., Any] | None = None,
        plugins: Sequence[Any] | None = None,
        evaluator: Any = default_evaluator,
        **template: Any,
    ) -> None:
        plugins = [own, *(plugins or ())]
        if not any(isinstance(plugin, InMemoryBatches) for plugin in plugins):
            plugins.append(InMemoryBatches())
        super().__init__(
            model=model,
            optimizer=optimizer,
            criterion=nn.CrossEntropyLoss() if criterion is None else criterion,
            plugins=plugins,
            evaluator=evaluator,
            **template,
        )

"""Training loss and penalty for loggers."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor

from avsi.plugins.consolidation import ConsolidationPlugin


class Scalars(SupervisedPlugin):
    """Tells the loggers of a strategy's evaluator its mean training loss and penalty after each epoch.

    The loss is the task's, without the penalty. Without loggers nothing is done.
    """

    def __init__(self) -> None:
        super().__init__()
        self._total: Tensor | None = None
        self._samples = 0

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Start a mean."""
        self._total, self._samples = None, 0

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Add a batch to the mean; on a GPU without waiting for it."""
        if strategy.evaluator.loggers:
            size = len(strategy.mb_y)
            loss = strategy.loss.detach() * size
            self._total = loss if self._total is None else self._total + loss
            self._samples += size

    @torch.no_grad()
    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Log the epoch."""
        if self._total is not None:
            values = {"Loss/train_epoch": (self._total / self._samples).item()}
            for plugin in strategy.plugins:
                if isinstance(plugin, ConsolidationPlugin):
                    values[f"Penalty/{type(plugin).__name__}"] = plugin.penalty(strategy.model).item()
            self._total = None
            for name, value in values.items():
                for logger in strategy.evaluator.loggers:
                    logger.log_single_metric(name, value, strategy.clock.train_iterations)

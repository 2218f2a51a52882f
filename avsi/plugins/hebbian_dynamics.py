"""Recording of eta, Hebbian traces and plasticity coefficients through training (Figure 3 of the DHP paper)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from avalanche.logging import TensorboardLogger
from avalanche.training.plugins import SupervisedPlugin

from avsi._arguments import check_count
from avsi.hebbian import DHPLinear


class HebbianDynamics(SupervisedPlugin):
    """Records eta (its mean where every connection has one), ||Hebb||_F and ||alpha||_F of every DHP layer.

    Values are taken after each ``every`` training steps, and go to Avalanche's TensorBoard logger where the strategy's
    evaluator has one. A model without DHP layers records nothing.

    Args:
        every: Steps between records.

    Raises:
        ValueError: If ``every`` is not positive.
        TypeError: If it is no whole number.
    """

    def __init__(self, every: int = 100) -> None:
        super().__init__()
        self.every = check_count("every", every)
        self.steps = 0
        self.records: dict[str, dict[str, list[float | None]]] = {}
        """By layer name, parallel lists ``step``, ``eta``, ``hebb`` and ``alpha``; None where a value is not finite."""

    def state_dict(self) -> dict[str, Any]:
        """Return the records and the number of steps so far.

        Returns:
            Plain data.
        """
        return {"steps": self.steps, "records": self.records}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        self.steps, self.records = state["steps"], deepcopy(state["records"])

    @torch.no_grad()
    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Take a record when it is time."""
        self.steps += 1
        if self.steps % self.every:
            return
        for name, layer in strategy.model.named_modules():
            if isinstance(layer, DHPLinear):
                values = {"eta": layer.eta.mean(), "hebb": layer.hebb.norm(), "alpha": layer.alpha.norm()}
                self._keep(strategy, name, {key: value.item() for key, value in values.items()})

    def _keep(self, strategy: Any, name: str, values: dict[str, float]) -> None:
        record = self.records.setdefault(name, {"step": [], "eta": [], "hebb": [], "alpha": []})
        record["step"].append(self.steps)
        for key, value in values.items():
            record[key].append(value if math.isfinite(value) else None)
            for logger in strategy.evaluator.loggers:
                if isinstance(logger, TensorboardLogger):
                    logger.writer.add_scalar(f"DHP/{name}/{key}", value, self.steps)

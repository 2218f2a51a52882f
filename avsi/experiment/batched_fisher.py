"""Online EWC with squares of mini-batch gradients, which many implementations use: for comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from avalanche.training import Naive
from torch import Tensor, nn

from avsi.consolidation import OnlineEWCPenalty
from avsi.consolidation.arguments import Strength
from avsi.importance.state import undisturbed
from avsi.plugins import ConsolidationPlugin


class BatchedEWCPenalty(OnlineEWCPenalty):
    """Online EWC whose importance is the mean over mini-batches of the square of their mean gradient.

    That is no Fisher information: it depends on the size of the batches, and for b independent samples it is about 1/b
    of the empirical one (van de Ven 2025, "On the computation of the Fisher information in continual learning").
    Batches of data are cut into ones of ``batch_size``.
    """

    def __init__(self, model: nn.Module | None, strength: Strength, *, batch_size: int) -> None:
        super().__init__(model, strength)
        self.batch_size = batch_size

    def new_importance(
        self, parameters: Mapping[str, nn.Parameter], batches: Iterable[Any] | None
    ) -> dict[str, Tensor]:
        """Decay Omega and add the squares of the gradients of batches (x, y) or (x, y, task_labels)."""
        if self.model is None or batches is None:
            raise TypeError("consolidate() needs the task's data: batches of (x, y) or (x, y, task_labels)")
        count = 0
        summed = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        with undisturbed(self.model, parameters.values()):
            for batch in batches:
                for x, y, *tasks in zip(*(tensor.split(self.batch_size) for tensor in batch), strict=True):
                    loss = nn.functional.cross_entropy(self.model(x, *tasks), y)
                    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
                    for total, gradient in zip(summed.values(), gradients, strict=True):
                        if gradient is not None:
                            total += gradient.square()
                    count += 1
        if not count:
            raise ValueError("batches yielded no samples; note that an iterator can be used only once")
        return {name: self.gamma * self.importance[name] + total / count for name, total in summed.items()}


class BatchedEWC(Naive):
    """Fine-tuning with squares of mini-batch gradients, in batches of the training's size, as importance."""

    def __init__(
        self, *, strength: Strength, train_mb_size: int, plugins: Sequence[Any] | None = None, **template: Any
    ) -> None:
        self.batched_ewc = ConsolidationPlugin(BatchedEWCPenalty(None, strength, batch_size=train_mb_size))
        super().__init__(train_mb_size=train_mb_size, plugins=[self.batched_ewc, *(plugins or ())], **template)

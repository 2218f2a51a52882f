"""Accuracy on each class, measured in the evaluations that a strategy makes."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor, nn


class ClassAccuracy(SupervisedPlugin):
    """Counts, in each evaluated experience, the samples of every class and those that are classified right.

    Avalanche has a metric for accuracy by class, but it pools classes of one number over tasks with a head each.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counts: list[tuple[Tensor, Tensor]] = []

    def start(self) -> None:
        """Forget earlier evaluations."""
        self._counts = []

    def rows(self) -> list[list[float | None]]:
        """Compute the accuracies.

        Returns:
            For each experience evaluated since :meth:`start` the accuracy on its classes 0, 1, ..., in [0, 1]; None
            where a class has no sample.
        """
        return [
            [right / all_ if all_ else None for right, all_ in zip(correct.tolist(), total.tolist(), strict=True)]
            for correct, total in self._counts
        ]

    def before_eval_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Count anew."""
        known = getattr(strategy.experience, "classes_in_this_experience", None) or [0]  # not all benchmarks say
        zeros = torch.zeros(int(max(known)) + 1, dtype=torch.long, device=strategy.device)
        self._counts.append((zeros, zeros.clone()))

    def after_eval_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Count a batch; on a GPU without waiting for it."""
        labels, size = strategy.mb_y, len(self._counts[-1][0])
        right = strategy.mb_output.argmax(1) == labels
        found = [torch.bincount(labels, weights, size).long() for weights in (right.double(), None)]
        more = (0, len(found[0]) - size)  # classes that were not known of
        correct, total = (
            nn.functional.pad(counts, more) + new for counts, new in zip(self._counts[-1], found, strict=True)
        )
        self._counts[-1] = correct, total

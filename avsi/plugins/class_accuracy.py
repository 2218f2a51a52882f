"""Accuracy on each class, measured in the evaluations that a strategy makes."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor


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
        classes = int(max(strategy.experience.classes_in_this_experience)) + 1
        zeros = torch.zeros(classes, dtype=torch.long, device=strategy.device)
        self._counts.append((zeros, zeros.clone()))

    def after_eval_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Count a batch; on a GPU without waiting for it."""
        correct, total = self._counts[-1]
        labels = strategy.mb_y
        right = strategy.mb_output.argmax(1) == labels
        total.add_(torch.bincount(labels, minlength=len(total)))
        correct.add_(torch.bincount(labels, weights=right.double(), minlength=len(total)).long())

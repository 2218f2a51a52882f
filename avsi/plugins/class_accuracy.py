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
        # For each experience the number of classes known of, and for each batch the labels and whether they were hit.
        self._seen: list[tuple[int, list[tuple[Tensor, Tensor]]]] = []

    def start(self) -> None:
        """Forget earlier evaluations."""
        self._seen = []

    def rows(self) -> list[list[float | None]]:
        """Compute the accuracies.

        Returns:
            For each experience evaluated since :meth:`start` the accuracy on its classes 0, 1, ..., in [0, 1]; None
            where a class has no sample.
        """
        return [self._row(size, batches) for size, batches in self._seen]

    @staticmethod
    def _row(size: int, batches: list[tuple[Tensor, Tensor]]) -> list[float | None]:
        labels, hit = (torch.cat(parts).cpu() for parts in zip(*batches, strict=True))
        total = labels.bincount(minlength=size)  # more than are known of, if there are
        correct = labels[hit].bincount(minlength=len(total))
        return [right / all_ if all_ else None for right, all_ in zip(correct.tolist(), total.tolist(), strict=True)]

    def before_eval_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Begin a row."""
        known = getattr(strategy.experience, "classes_in_this_experience", None) or [0]  # not all benchmarks say
        nothing = torch.empty(0, dtype=torch.int64, device=strategy.device)
        self._seen.append((int(max(known)) + 1, [(nothing, nothing.bool())]))

    def after_eval_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Note a batch's hits; on a GPU without waiting for it."""
        self._seen[-1][1].append((strategy.mb_y, strategy.mb_output.argmax(1) == strategy.mb_y))

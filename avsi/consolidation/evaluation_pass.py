"""One pass over an experience's data for importances: evaluation transforms, fixed order, no random numbers drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from avalanche.models.utils import is_multi_task_module
from torch.utils.data import DataLoader
from tqdm import tqdm

Track = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""Shows progress over an iterable, given what it is about and its length."""


def show_if_long(batches: Iterable[Any], description: str, total: int) -> Iterable[Any]:
    """Show a progress bar on a terminal once a pass has taken two seconds.

    Args:
        batches: What to go through.
        description: What it is about.
        total: Its length.

    Returns:
        The same items.
    """
    return tqdm(batches, description, total, delay=2, leave=False, disable=None)


def evaluation_batches(
    strategy: Any, experience: Any, track: Track = show_if_long, description: str = ""
) -> Iterable[Any]:
    """Read an experience's own data, in its order, with its evaluation transforms.

    What a replay buffer or another plugin adds to the training data does not enter.

    Args:
        strategy: The Avalanche strategy.
        experience: The experience.
        track: Shows progress.
        description: What the pass is about.

    Returns:
        Batches (x, y), or (x, y, task_labels) for a multi-task model, as ``avsi.fisher_diagonal`` takes them.
    """
    data = experience.dataset.eval()
    collate = getattr(data, "collate_fn", None)
    # A generator of its own: a DataLoader draws a seed from the global one even if it does not shuffle.
    loader = DataLoader(data, strategy.eval_mb_size, collate_fn=collate, generator=torch.Generator())
    fields = 3 if is_multi_task_module(strategy.model) else 2
    return (batch[:fields] for batch in track(loader, description, len(loader)))

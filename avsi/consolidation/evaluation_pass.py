"""One pass over an experience's data for importances: evaluation transforms, fixed order, no random numbers drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

from avalanche.benchmarks.scenarios import OnlineCLExperience
from avalanche.models.utils import is_multi_task_module
from avalanche.training import JointTraining
from tqdm import tqdm

from avsi.plugins.batches import InMemoryBatches

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


def task_experiences(strategy: Any) -> list[Any]:
    """Find the experiences whose data the strategy has just learned.

    Args:
        strategy: The Avalanche strategy, at the end of an experience.

    Returns:
        The running experience; all of them in joint training; the whole task's where an online stream shows boundaries.
    """
    if isinstance(strategy, JointTraining):
        return list(strategy._experiences)
    experience = strategy.experience
    if isinstance(experience, OnlineCLExperience) and experience.access_task_boundaries:
        return [experience.origin_experience]
    return [experience]


def evaluation_batches(
    strategy: Any, experiences: Sequence[Any], track: Track = show_if_long, description: str = ""
) -> Iterable[Any]:
    """Read experiences' own data, in their order, with their evaluation transforms.

    What a replay buffer or another plugin adds to the training data does not enter.

    Args:
        strategy: The Avalanche strategy.
        experiences: The experiences.
        track: Shows progress.
        description: What the pass is about.

    Returns:
        Batches (x, y), or (x, y, task_labels) for a multi-task model, as ``avsi.fisher_diagonal`` takes them.
    """
    # The larger of the two: it is known to fit, and Avalanche evaluates single samples by default.
    size = max(strategy.train_mb_size, strategy.eval_mb_size)
    memory = next((plugin for plugin in strategy.plugins if isinstance(plugin, InMemoryBatches)), InMemoryBatches())
    loaders = [memory.in_order(experience.dataset.eval(), size, strategy.device) for experience in experiences]
    with_tasks = is_multi_task_module(strategy.model)
    batches = track(chain.from_iterable(loaders), description, sum(len(loader) for loader in loaders))
    return ((batch[0], batch[1], batch[-1]) if with_tasks else (batch[0], batch[1]) for batch in batches)

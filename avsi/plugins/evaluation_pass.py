"""One pass over an experience's data: evaluation transforms, fixed order, no random numbers drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

from avalanche.benchmarks.scenarios import OnlineCLExperience
from avalanche.models.utils import is_multi_task_module
from avalanche.training import JointTraining
from torch import distributed, nn
from tqdm import tqdm

from avsi._avalanche import joint_experiences, unpacked
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
        return joint_experiences(strategy)
    experience = strategy.experience
    if isinstance(experience, OnlineCLExperience) and experience.access_task_boundaries:
        return [experience.origin_experience]
    return [experience]


def evaluation_batches(
    strategy: Any,
    experiences: Sequence[Any],
    track: Track = show_if_long,
    description: str = "",
    *,
    own_share: bool = False,
) -> Iterable[Any]:
    """Read experiences' own data, in their order, with their evaluation transforms.

    What a replay buffer or another plugin adds to the training data does not enter. Batches are taken apart as the
    strategy takes its training batches apart.

    Args:
        strategy: The Avalanche strategy.
        experiences: The experiences.
        track: Shows progress.
        description: What the pass is about.
        own_share: Whether to read, of several processes of ``torch.distributed``, this one's share of the data only.

    Returns:
        Batches (x, y), or (x, y, task_labels) for a multi-task model where experiences tell their tasks, as
        ``avsi.fisher_diagonal`` takes them.
    """
    # The larger of the two: it is known to fit, and Avalanche evaluates single samples by default.
    size = max(strategy.train_mb_size, strategy.eval_mb_size)
    memory = next((plugin for plugin in strategy.plugins if isinstance(plugin, InMemoryBatches)), InMemoryBatches())
    datasets = [experience.dataset.eval() for experience in experiences]
    if own_share:
        datasets = [_own_share(data) for data in datasets]
    loaders = [memory.in_order(data, size, strategy.device) for data in datasets]
    with_tasks = is_multi_task_module(strategy.model) and all(hasattr(e, "task_labels") for e in experiences)
    batches = track(chain.from_iterable(loaders), description, sum(len(loader) for loader in loaders))
    return (unpacked(strategy, batch, with_tasks=with_tasks) for batch in batches)


def _own_share(data: Any) -> Any:
    # Every so-manieth sample; everything where there is not one for each process, so that none has nothing.
    processes = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
    if processes == 1 or len(data) < processes:
        return data
    return data.subset(range(distributed.get_rank(), len(data), processes))


@contextmanager
def trained_classifier(model: nn.Module) -> Iterator[None]:
    """Keep the classifier that was trained in its place in evaluation mode too.

    Avalanche's ``TrainEvalModel`` (iCaRL) and ``SCRModel`` answer through ``train_classifier`` in training, and through
    ``eval_classifier``, which classifies by nearest class means and has no gradient, in evaluation.

    Args:
        model: The model.

    Yields:
        Nothing; afterwards all is as before.
    """
    swapped = []
    for module in model.modules():
        trained, evaluated = (getattr(module, name, None) for name in ("train_classifier", "eval_classifier"))
        if isinstance(trained, nn.Module) and isinstance(evaluated, nn.Module):
            swapped.append((module, evaluated))
    try:
        for module, _ in swapped:
            module.eval_classifier = module.train_classifier
        yield
    finally:
        for module, evaluated in swapped:
            module.eval_classifier = evaluated

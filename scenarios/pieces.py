"""The pieces that benchmarks are put together from; every one works on any data set.

Tasks made of one piece can go through the next:

    >>> from avsi.scenarios import Source, build, imbalance, permute
    >>> digits = Source.load("digits")
    >>> tasks = imbalance(permute(digits, tasks=2), [[100] * 10, [10] * 10])
    >>> [len(experience.dataset) for experience in build(tasks, task_labels=False).train_stream]
    [1000, 100]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from avsi.data.dataset import BatchTransform, ImageDataset, scale
from avsi.data.transforms import Compose, Normalise, Pad, Permute, RepeatChannels, channel_statistics
from avsi.scenarios import draws
from avsi.scenarios.build import Source, Task
from avsi.scenarios.draws import Purpose

Statistics = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""For each data set's name the mean and the standard deviation of its channels, on the scale [0, 1]."""


def permute(source: Source, *, tasks: int = 10, permute_first: bool = False, seed: int = 0) -> list[Task]:
    """Make tasks of all classes of a data set, each with its pixels permuted in a way of its own.

    The permutation of a task depends on the seed and the task's position alone: more tasks leave the first ones as they
    were. The channels of a pixel stay together.

    Args:
        source: The data set.
        tasks: How many.
        permute_first: Whether the first task is permuted too.
        seed: Decides the permutations.

    Returns:
        The tasks.

    Raises:
        ValueError: If there is no task, or the seed is negative.
    """
    if tasks < 1:
        raise ValueError(f"tasks must be at least 1, got {tasks}")
    height, width = source.train.images.shape[2:]
    made = []
    for position in range(tasks):
        transform: BatchTransform = scale
        if position or permute_first:
            order = draws.permutation(height * width, seed, Purpose.PERMUTATION, position)
            transform = Compose(Permute(order), scale)  # the bytes are permuted: a quarter of the floats' memory
        made.append(Task(source, source.classes, transform))
    return made


def imbalance(
    tasks: Sequence[Task], counts: Sequence[Sequence[int]], *, seed: int = 0, thin_test: bool = False
) -> list[Task]:
    """Keep so many training images of each class, drawn at random.

    Args:
        tasks: The tasks.
        counts: For each task, how many training images of each of its classes to keep.
        seed: Decides which images.
        thin_test: Whether to keep the same share of each class's test images, rounded; else all of them.

    Returns:
        The tasks, thinned out.

    Raises:
        ValueError: If the counts are not one row per task, one number per class, or ask for more than there is.
    """
    if len(counts) != len(tasks):
        raise ValueError(f"counts of {len(counts)} tasks, but there are {len(tasks)} tasks: give one row for each")
    thinned = []
    for position, (task, row) in enumerate(zip(tasks, counts, strict=True)):
        if len(row) != len(task.classes):
            raise ValueError(f"task {position} has {len(task.classes)} classes, but its counts are {list(row)}")
        for label, count in zip(task.classes, row, strict=True):
            available = int((task.source.train.labels == label).sum())
            if not 0 <= count <= available:
                raise ValueError(
                    f"task {position} asks for {count} images of class {label}, and {task.source.train.name} (train) "
                    f"has {available}: ask for at most that"
                )
        draw_test = task.draw_test
        if thin_test:
            kept = (_in_proportion(task.source, label, count) for label, count in zip(task.classes, row, strict=True))
            draw_test = Keep(tuple(kept), seed, position, Purpose.TEST_CHOICE)
        thinned.append(replace(task, draw=Keep(tuple(row), seed, position), draw_test=draw_test))
    return thinned


def _in_proportion(source: Source, label: int, count: int) -> int:
    train, test = (int((images.labels == label).sum()) for images in (source.train, source.test))
    return round(count * test / train)


def remove_at_random(
    tasks: Sequence[Task], probabilities: Sequence[Sequence[float]] | Tensor, *, seed: int = 0, thin_test: bool = False
) -> list[Task]:
    """Remove each training image with a probability of its task and class.

    Args:
        tasks: The tasks.
        probabilities: For each task, the probability of removal of each of its classes.
        seed: Decides which images.
        thin_test: See `imbalance`.

    Returns:
        The tasks, thinned out.
    """
    counts = []
    for position, (task, row) in enumerate(zip(tasks, torch.as_tensor(probabilities).tolist(), strict=True)):
        kept = []
        for label, (old, probability) in enumerate(zip(task.classes, row, strict=True)):
            size = int((task.source.train.labels == old).sum())
            survives = draws.uniform(size, seed, Purpose.REMOVAL, position, label) >= probability
            kept.append(int(survives.sum()))
        counts.append(kept)
    # How many images survive is binomial; given that, which ones is uniform, which is what `imbalance` draws.
    return imbalance(tasks, counts, seed=seed, thin_test=thin_test)


@dataclass(frozen=True)
class Keep:
    """Keep some images of each class, drawn at random, in their order.

    Attributes:
        counts: How many of class 0, 1, 2, ...
        seed: Decides which.
        task: The task's position; every task draws anew.
        purpose: What is drawn: training and test images are drawn apart.
    """

    counts: tuple[int, ...]
    seed: int
    task: int
    purpose: Purpose = Purpose.CHOICE

    def __call__(self, data: ImageDataset) -> ImageDataset:
        """Draw.

        Args:
            data: The images.

        Returns:
            Those that are kept.
        """
        chosen = torch.zeros(len(data), dtype=torch.bool)
        for label, count in enumerate(self.counts):
            members = torch.nonzero(data.labels == label).flatten()
            order = draws.permutation(len(members), self.seed, self.purpose, self.task, label)
            chosen[members[order[:count]]] = True
        return data.select(torch.nonzero(chosen).flatten())


def sequence(
    sources: Sequence[Source],
    *,
    size: int | None = None,
    channels: int | None = None,
    normalise: bool | Statistics = False,
) -> list[Task]:
    """Make one task of each data set, all inputs of one shape.

    Args:
        sources: The data sets, in order.
        size: Height and width of the inputs: smaller images are padded with zeros, evenly on all sides. Default: those
            of the largest.
        channels: Channels of the inputs: grey images are repeated. Default: as many as the data set with the most.
        normalise: True: each channel of each data set's training inputs, padding included, gets mean 0 and standard
            deviation 1. A mapping: the means and standard deviations to use, by data set. False: inputs in [0, 1].

    Returns:
        The tasks.

    Raises:
        ValueError: If a data set does not fit the size or the channels, or ``normalise`` lacks one.
    """
    shapes = [source.train.images.shape[1:] for source in sources]
    height = size or max((shape[1] for shape in shapes), default=0)
    width = size or max((shape[2] for shape in shapes), default=0)
    channels = channels or max((shape[0] for shape in shapes), default=0)
    tasks = []
    for source, shape in zip(sources, shapes, strict=True):
        name = source.train.name
        if shape[1] > height or shape[2] > width or shape[0] not in {1, channels}:
            raise ValueError(
                f"{name} has images of the shape {tuple(shape)}, which cannot become ({channels}, {height}, {width}): "
                f"images are padded, grey ones repeated, and nothing is cut"
            )
        steps: list[BatchTransform] = []
        if (shape[1], shape[2]) != (height, width):
            steps.append(Pad(height, width))
        if shape[0] != channels:
            steps.append(RepeatChannels(channels))
        steps.append(scale)
        if normalise is True:
            steps.append(Normalise(*channel_statistics(source.train.images, height * width)))
        elif normalise is not False:
            if name not in normalise:
                raise ValueError(f"normalise gives no mean and standard deviation for {name!r}, only {list(normalise)}")
            steps.append(Normalise(*normalise[name]))
        tasks.append(Task(source, source.classes, Compose(*steps) if len(steps) > 1 else scale))
    return tasks


def load_all(names: Sequence[str], root: str | Path | None, download: bool) -> list[Source]:
    """Load several data sets.

    Args:
        names: Their names.
        root: Folder of prepared data sets; see ``avsi.data.load``.
        download: Whether to obtain what is missing.

    Returns:
        The data sets, in order.
    """
    return [Source.load(name, root, download) for name in names]

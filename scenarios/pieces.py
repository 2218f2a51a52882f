"""The pieces that benchmarks are put together from; every one works on any data set.

Tasks made of one piece can go through the next:

    >>> from avsi.scenarios import Source, build, imbalance, permute
    >>> digits = Source.load("digits")
    >>> tasks = imbalance(permute(digits, tasks=2), [[100] * 10, [10] * 10])
    >>> [len(experience.dataset) for experience in build(tasks, scenario="domain").train_stream]
    [1000, 100]

What is thinned out can be thinned out further; every count is of what is left:

    >>> tasks = imbalance(tasks, [[50] * 10, [5] * 10])
    >>> [len(experience.dataset) for experience in build(tasks, scenario="domain").train_stream]
    [500, 50]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avsi._arguments import as_number, check_count, check_flag
from avsi.data.dataset import BatchTransform, ImageDataset, scale
from avsi.data.transforms import Compose, Normalise, Pad, Permute, RepeatChannels, channel_statistics, positions
from avsi.scenarios import draws
from avsi.scenarios.build import Draw, Source, Task
from avsi.scenarios.draws import Purpose

Statistics = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""For each data set's name the mean and the standard deviation of its channels, on the scale [0, 1]."""


def permute(source: str | Source, *, tasks: int = 10, permute_first: bool = False, seed: int = 0) -> list[Task]:
    """Make tasks of all classes of a data set, each with its pixels permuted in a way of its own.

    The permutation of a task depends on the seed and the task's position alone: more tasks leave the first ones as they
    were. The channels of a pixel stay together; of samples that are no images, (N, ...) of less than four dimensions,
    all values are permuted.

    Args:
        source: The data set, or the name of one of ``avsi.data``.
        tasks: How many.
        permute_first: Whether the first task is permuted too.
        seed: Decides the permutations.

    Returns:
        The tasks.

    Examples:
        >>> import torch
        >>> from avsi.scenarios import Source
        >>> digits = Source.load("digits")
        >>> first, second = (task.datasets()[0] for task in permute(digits, tasks=2))
        >>> torch.equal(first[0][0].flatten(), second[0][0].flatten())
        False
        >>> torch.equal(first[0][0].flatten().sort().values, second[0][0].flatten().sort().values)
        True
    """
    tasks, permute_first = check_count("tasks", tasks), check_flag("permute_first", permute_first)
    draws.check_seed(seed)
    source = Source.of(source)
    size = math.prod(positions(source.train.images))
    made = []
    for position in range(tasks):
        transform: BatchTransform = scale
        if position or permute_first:
            order = draws.permutation(size, seed, Purpose.PERMUTATION, position)
            transform = Compose(Permute(order), scale)  # the bytes are permuted: a quarter of the floats' memory
        made.append(Task(source, source.classes, transform))
    return made


def imbalance(
    tasks: Sequence[Task], counts: Sequence[Sequence[int]], *, seed: int = 0, thin_test: bool = False
) -> list[Task]:
    """Keep so many training images of each class, drawn at random.

    Args:
        tasks: The tasks.
        counts: For each task, how many of the training images that it has to keep of each of its classes.
        seed: Decides which images.
        thin_test: Whether to keep the same share of each class's test images, rounded; else all of them.

    Returns:
        The tasks, thinned out.

    Raises:
        ValueError: If the counts are not one row per task, one number per class, ask for more than there is, or leave
            nothing.

    Examples:
        >>> from avsi.scenarios import Source, Task
        >>> zeros_and_ones = Task(Source.load("digits"), (0, 1))
        >>> (task,) = imbalance([zeros_and_ones], [[50, 5]])
        >>> train, test = task.datasets()
        >>> train.labels.bincount(), test.labels.bincount()  # test sets stay whole without thin_test
        (tensor([50,  5]), tensor([35, 36]))
    """
    check_flag("thin_test", thin_test)
    draws.check_seed(seed)
    _check_rows("counts", counts)
    if len(counts) != len(tasks):
        raise ValueError(f"counts of {len(counts)} tasks, but there are {len(tasks)} tasks: give one row for each")
    thinned = []
    for position, (task, row) in enumerate(zip(tasks, counts, strict=True)):
        if len(row) != len(task.classes):
            raise ValueError(f"task {position} has {len(task.classes)} classes, but its counts are {list(row)}")
        train, test = (class_counts(data.labels, len(row)) for data in task.datasets())
        kept = []
        for label, given, available in zip(task.classes, row, train, strict=True):
            count = check_count("every count", given, least=0)
            if count > available:
                has = "the task" if task.draw else f"{task.source.train.name} (train)"
                raise ValueError(
                    f"task {position} asks for {count} images of class {label}, and {has} has {available}: ask for at "
                    f"most that"
                )
            kept.append(count)
        if not any(kept):
            raise ValueError(f"task {position} would be left without training images: keep at least one")
        keep: Draw = Keep(tuple(kept), seed, position, depth=len(task.draw))
        draw_test = task.draw_test
        if thin_test:
            shares = tuple(
                round(count * there / of) if of else 0 for count, there, of in zip(kept, test, train, strict=True)
            )
            draw_test += (Keep(shares, seed, position, Purpose.TEST_CHOICE, depth=len(draw_test)),)
        thinned.append(replace(task, draw=(*task.draw, keep), draw_test=draw_test))
    return thinned


def _check_rows(name: str, rows: Sequence[Sequence[float]]) -> None:
    # Lists or arrays of any library.
    if not hasattr(rows, "__len__") or not all(hasattr(row, "__len__") and not isinstance(row, str) for row in rows):
        raise TypeError(f"{name} must be a row of numbers for each task, one number for each class, got {rows!r:.80}")


def class_counts(labels: Tensor, classes: int) -> list[int]:
    """Count the samples of each class.

    Args:
        labels: int64, (N,).
        classes: Number of classes.

    Returns:
        How many there are of class 0, 1, 2, ...
    """
    return labels.bincount(minlength=classes).tolist()


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

    Raises:
        ValueError: If the probabilities are not one row per task, one number per class, in [0, 1], or leave nothing.

    Examples:
        >>> from avsi.scenarios import Source, Task
        >>> zeros_and_ones = Task(Source.load("digits"), (0, 1))
        >>> (task,) = remove_at_random([zeros_and_ones], [[0.0, 0.9]])
        >>> zeros, ones = task.datasets()[0].labels.bincount().tolist()
        >>> zeros > 4 * ones
        True
    """
    draws.check_seed(seed)
    rows = probabilities.tolist() if isinstance(probabilities, Tensor | np.ndarray) else probabilities
    _check_rows("probabilities", rows)
    if len(rows) != len(tasks):
        raise ValueError(
            f"probabilities for {len(rows)} tasks, but there are {len(tasks)} tasks: give one row for each"
        )
    counts = []
    for position, (task, row) in enumerate(zip(tasks, rows, strict=True)):
        if len(row) != len(task.classes):
            raise ValueError(f"task {position} has {len(task.classes)} classes, but its probabilities are {row}")
        kept, deeper = [], (len(task.draw),) if task.draw else ()
        for label, size in enumerate(class_counts(task.datasets()[0].labels, len(row))):
            probability = as_number(row[label])
            if probability is None or not 0 <= probability <= 1:  # NaN fails this too
                raise ValueError(
                    f"the probability of removing images of class {task.classes[label]} from task {position} is "
                    f"{row[label]}: give one in [0, 1]"
                )
            survives = draws.uniform(size, seed, Purpose.REMOVAL, position, label, *deeper) >= probability
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
        depth: How many draws came before: each one draws anew.
    """

    counts: tuple[int, ...]
    seed: int
    task: int
    purpose: Purpose = Purpose.CHOICE
    depth: int = 0

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
            deeper = (self.depth,) if self.depth else ()
            order = draws.permutation(len(members), self.seed, self.purpose, self.task, label, *deeper)
            chosen[members[order[:count]]] = True
        return data.select(torch.nonzero(chosen).flatten())


def sequence(
    sources: Sequence[str | Source],
    *,
    size: int | None = None,
    channels: int | None = None,
    normalise: bool | Statistics = False,
) -> list[Task]:
    """Make one task of each data set, all inputs of one shape.

    Args:
        sources: The data sets, in order, or names of those of ``avsi.data``.
        size: Height and width of the inputs: smaller images are padded with zeros, evenly on all sides. Default: those
            of the largest.
        channels: Channels of the inputs: grey images are repeated. Default: as many as the data set with the most.
        normalise: True: each channel of each data set's training inputs, padding included, gets mean 0 and standard
            deviation 1. A mapping: the means and standard deviations to use, by data set. False: inputs in [0, 1].

    Returns:
        The tasks.

    Raises:
        TypeError: If ``normalise`` is neither a flag nor a mapping.
        ValueError: If a data set does not fit the size or the channels, ``normalise`` lacks one, or a channel to be
            normalised is constant.

    Examples:
        >>> import torch
        >>> from avsi.scenarios import Source, build
        >>> images, labels = torch.randint(256, (20, 3, 16, 16), dtype=torch.uint8), torch.arange(20) % 2
        >>> mine = Source.from_arrays((images, labels), (images, labels))  # colours, 16 x 16
        >>> benchmark = build(sequence([Source.load("digits"), mine]))  # digits are grey, 8 x 8
        >>> [tuple(experience.dataset[0][0].shape) for experience in benchmark.train_stream]
        [(3, 16, 16), (3, 16, 16)]
    """
    if not isinstance(normalise, Mapping):
        try:
            check_flag("normalise", normalise)
        except TypeError as error:
            raise TypeError(f"{error}; or a mapping from each data set to its means and standard deviations") from None
    if isinstance(sources, str | Source):
        raise TypeError(f"sources must be a list of data sets, got {sources!r:.80}; for one, write [it]")
    sets = [Source.of(source) for source in sources]
    shapes = [source.train.images.shape[1:] for source in sets]
    for source, shape in zip(sets, shapes, strict=True):
        if len(shape) != 3:
            raise ValueError(f"{source.train.name} has samples of the shape {tuple(shape)}, not images (C, H, W)")
    height, width, channels = (
        max((shape[axis] for shape in shapes), default=0) if wanted is None else check_count(name, wanted)
        for name, wanted, axis in (("size", size, 1), ("size", size, 2), ("channels", channels, 0))
    )
    tasks = []
    for source, shape in zip(sets, shapes, strict=True):
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
            statistics = channel_statistics(source.train.images, height * width)
            # What rounding leaves of a constant's deviation is no deviation.
            constant = [c for c, (mean, std) in enumerate(zip(*statistics, strict=True)) if not std > 1e-10 * abs(mean)]
            if constant:
                raise ValueError(
                    f"channel {constant[0]} of {name}'s training images has the same value everywhere and cannot get "
                    "standard deviation 1: give means and standard deviations as normalise={...}, or normalise=False"
                )
            steps.append(Normalise(*statistics))
        elif normalise is not False:
            if name not in normalise:
                raise ValueError(f"normalise gives no mean and standard deviation for {name!r}, only {list(normalise)}")
            mean, std = normalise[name]
            for values in (mean, std):
                if not isinstance(values, Sequence | Tensor | np.ndarray):
                    raise TypeError(
                        f"normalise gives {values!r} for {name!r}: give a list of means and one of standard "
                        "deviations, with a number for each channel, or one"
                    )
                if len(values) not in {1, channels}:
                    raise ValueError(
                        f"normalise gives {len(values)} numbers for {name!r}, whose inputs have {channels} channels: "
                        f"give as many means and standard deviations, or one"
                    )
            steps.append(Normalise(mean, std))
        tasks.append(Task(source, source.classes, Compose(*steps) if len(steps) > 1 else scale))
    return tasks


def load_all(names: Sequence[str], dataset_root: str | Path | None, download: bool) -> list[Source]:
    """Load several data sets.

    Args:
        names: Their names.
        dataset_root: Folder of prepared data sets; see ``avsi.data.load``.
        download: Whether to obtain what is missing.

    Returns:
        The data sets, in order.
    """
    return [Source.load(name, dataset_root, download) for name in names]

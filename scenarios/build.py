"""From tasks as data sets to an Avalanche benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from avalanche.benchmarks import CLScenario, benchmark_from_datasets, with_classes_timeline, with_task_labels
from avalanche.benchmarks.utils import (
    ConstantSequence,
    DataAttribute,
    TaskAwareSupervisedClassificationDataset,
    TaskLabels,
)

from avsi.data import ImageSet, load
from avsi.data.dataset import BatchTransform, ImageDataset, scale
from avsi.scenarios import draws
from avsi.scenarios.draws import Purpose


class ImageScenario(CLScenario):
    """An Avalanche benchmark that knows the image sets it was made from.

    Args:
        streams: The streams.
        image_sets: The prepared image sets behind them, for provenance.
        classes: For each image set's name, the classes in use. A protocol may draw some of their training images
            only; that is its business and leaves the classes in use.
        notes: In what the benchmark differs from the published one ("partial: ...", "rebuild: ..."); empty where it
            does not.
    """

    def __init__(
        self,
        streams: Sequence,
        image_sets: Sequence[ImageSet],
        classes: dict[str, list[int]],
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(streams)
        self.image_sets = tuple(image_sets)
        self.classes = classes
        self.notes = tuple(notes)


@dataclass(frozen=True)
class Source:
    """Both splits of one image set.

    Attributes:
        train: The training split.
        test: The test split.
        made_from: The published image sets that this one was made from; empty if it is one itself.
    """

    train: ImageSet
    test: ImageSet
    made_from: tuple[Source, ...] = ()

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes of the training images, in ascending order."""
        return tuple(self.train.labels.unique().tolist())

    @classmethod
    def load(cls, name: str, root: str | Path | None = None, download: bool = True) -> Source:
        """Load both splits.

        Args:
            name: The data set's name.
            root: Folder of prepared data sets; see ``avsi.data.load``.
            download: Whether to obtain what is missing.

        Returns:
            The two splits.
        """
        train, test = (load(name, split, root=root, download=download) for split in ("train", "test"))
        return cls(train, test)


@dataclass(frozen=True)
class Task:
    """Some classes of an image set, labelled from 0 in the order given.

    Attributes:
        source: The image set.
        classes: Its classes.
        transform: Makes inputs of batches of images, training and test alike.
        draw: Draws from the training images those that the task has.
        draw_test: Draws from the test images those that the task has; default: all of them.
    """

    source: Source
    classes: tuple[int, ...]
    transform: BatchTransform = scale
    draw: Callable[[ImageDataset], ImageDataset] | None = None
    draw_test: Callable[[ImageDataset], ImageDataset] | None = None

    def datasets(self) -> tuple[ImageDataset, ImageDataset]:
        """Select the task's images.

        Returns:
            Training and test data.
        """
        train, test = (
            select_classes(images, self.classes, self.transform) for images in (self.source.train, self.source.test)
        )
        return self.draw(train) if self.draw else train, self.draw_test(test) if self.draw_test else test


def select_classes(images: ImageSet, classes: Sequence[int], transform: BatchTransform = scale) -> ImageDataset:
    """Select the images of some classes, in the image set's order, and label them from 0 in the order given.

    Args:
        images: The image set.
        classes: The classes.
        transform: Makes inputs of batches of images.

    Returns:
        The selection.

    Raises:
        ValueError: If a class has no image.
    """
    new_label = torch.full((int(images.labels.max()) + 1,), -1)
    for label, old in enumerate(classes):
        if old >= len(new_label) or not (images.labels == old).any():
            raise ValueError(f"{images.name} ({images.split}) has no image of class {old}, which the scenario needs")
        new_label[old] = label
    targets = new_label[images.labels]
    rows = torch.nonzero(targets >= 0).flatten()
    return ImageDataset(images.images, rows, targets[rows], transform)


def split_stratified(data: ImageDataset, fraction: float, seed: int) -> tuple[ImageDataset, ImageDataset]:
    """Split off a fraction of each class at random.

    Args:
        data: The data.
        fraction: Share of each class to split off, rounded to whole images, in (0, 1).
        seed: Decides which.

    Returns:
        What stays and what was split off, both in the original order.
    """
    chosen = torch.zeros(len(data), dtype=torch.bool)
    for label in data.labels.unique().tolist():
        members = torch.nonzero(data.labels == label).flatten()
        order = draws.permutation(len(members), seed, Purpose.VALIDATION, label)
        chosen[members[order[: round(fraction * len(members))]]] = True
    return data.select(torch.nonzero(~chosen).flatten()), data.select(torch.nonzero(chosen).flatten())


def build(
    tasks: Sequence[Task],
    *,
    validation: float = 0.0,
    seed: int = 0,
    task_labels: bool = True,
    notes: Sequence[str] = (),
) -> ImageScenario:
    """Make a benchmark whose experience i holds task i.

    Args:
        tasks: The tasks, in order.
        validation: Share of each class's training images that goes to ``valid_stream``, in [0, 1); 0: no such stream.
        seed: Decides which images those are.
        task_labels: Whether experience i carries the task label i, which chooses one of several heads. Otherwise all of
            them carry 0, as in Avalanche's own domain-incremental benchmarks: one head for all tasks, and the model
            is not told which one it sees. Avalanche's metrics tell the experiences apart either way.
        notes: See `ImageScenario`.

    Returns:
        The benchmark.

    Raises:
        ValueError: If ``validation`` is out of range, or there is no task.
    """
    if not 0 <= validation < 1:
        raise ValueError(f"validation must be a fraction in [0, 1), got {validation!r}")
    if not tasks:
        raise ValueError("a benchmark needs at least one task")
    streams: dict[str, list[TaskAwareSupervisedClassificationDataset]] = {"train": [], "test": []}
    if validation:
        streams["valid"] = []
    for position, task in enumerate(tasks):
        train, test = task.datasets()
        parts = {"train": train, "test": test}
        if validation:
            parts["train"], parts["valid"] = split_stratified(train, validation, seed)
        for name, data in parts.items():
            streams[name].append(with_task_label(data, position if task_labels else 0))
    benchmark = with_classes_timeline(with_task_labels(benchmark_from_datasets(**streams)))
    for stream in benchmark.streams.values():
        for experience in stream:
            # Avalanche's MultiHeadClassifier indexes with this and fails on the set that the timeline gives.
            experience.classes_in_this_experience = sorted(experience.classes_in_this_experience)
    return ImageScenario(list(benchmark.streams.values()), *provenance(tasks), notes)


def provenance(tasks: Sequence[Task]) -> tuple[list[ImageSet], dict[str, list[int]]]:
    """Find the published image sets behind some tasks.

    Args:
        tasks: The tasks.

    Returns:
        The image sets, and for each one's name the classes in use.
    """
    sources: dict[str, Source] = {}
    classes: dict[str, set[int]] = {}
    for task in tasks:
        for source in task.source.made_from or (task.source,):
            sources[source.train.name] = source
            used = task.classes if source is task.source else source.classes
            classes.setdefault(source.train.name, set()).update(used)
    image_sets = [image_set for source in sources.values() for image_set in (source.train, source.test)]
    return image_sets, {name: sorted(used) for name, used in classes.items()}


def with_task_label(data: ImageDataset, label: int) -> TaskAwareSupervisedClassificationDataset:
    """Make an Avalanche classification data set whose samples all carry one task label.

    Args:
        data: The samples.
        label: The task label.

    Returns:
        A data set of (x, y, task label).
    """
    attributes = [DataAttribute(data.targets, "targets"), TaskLabels(ConstantSequence(label, len(data)))]
    return TaskAwareSupervisedClassificationDataset([data], data_attributes=attributes)


def consecutive(first: int, last: int, size: int) -> list[tuple[int, ...]]:
    """Group consecutive classes.

    Args:
        first: The first class.
        last: One past the last class.
        size: Classes per group.

    Returns:
        The groups, in order.
    """
    return [tuple(range(start, start + size)) for start in range(first, last, size)]

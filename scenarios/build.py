"""From tasks as data sets to an Avalanche benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

import numpy as np
import torch
from avalanche.benchmarks import CLScenario, benchmark_from_datasets, with_classes_timeline, with_task_labels
from avalanche.benchmarks.utils import (
    ConstantSequence,
    DataAttribute,
    TaskAwareSupervisedClassificationDataset,
    TaskLabels,
    TransformGroups,
)
from torch import Tensor

from avsi._arguments import check_count, check_number
from avsi._avalanche import know_targets
from avsi.data import ImageSet, load
from avsi.data.catalog import PUBLISHED
from avsi.data.dataset import BatchTransform, ImageDataset, scale
from avsi.scenarios import draws
from avsi.scenarios.draws import Purpose

Scenario = Literal["task", "domain", "class"]
"""Van de Ven & Tolias's three scenarios; see `build`."""

Transform = Callable[[Any], Any]
"""Maps an input to an input: one of torchvision's v2 transforms, say."""

Draw = Callable[[ImageDataset], ImageDataset]
"""Chooses some of a task's images."""


class Options(TypedDict, total=False):
    """What every builder of a benchmark takes; see `avsi.scenarios.split`."""

    train_transform: Transform | None
    eval_transform: Transform | None
    validation: float
    seed: int
    dataset_root: str | Path | None
    download: bool


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

        >>> import numpy as np
        >>> from avsi.scenarios import Source, split
        >>> x, y = np.random.default_rng(0).random((60, 7)), np.arange(60) % 6
        >>> mine = Source.from_arrays((x[:48], y[:48]), (x[48:], y[48:]))
        >>> len(split(mine, n_experiences=3).train_stream)
        3

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
    def load(cls, name: str, dataset_root: str | Path | None = None, download: bool = True) -> Source:
        """Load both splits.

        Args:
            name: The data set's name.
            dataset_root: Folder of prepared data sets; see ``avsi.data.load``.
            download: Whether to obtain what is missing.

        Returns:
            The two splits.
        """
        train, test = (load(name, split, dataset_root=dataset_root, download=download) for split in ("train", "test"))
        return cls(train, test)

    @classmethod
    def of(cls, dataset: str | Source, dataset_root: str | Path | None = None, download: bool = True) -> Source:
        """Take a data set by its name or as it is.

        Args:
            dataset: A data set's name, or a source.
            dataset_root: Folder of prepared data sets; see ``avsi.data.load``.
            download: Whether to obtain what is missing.

        Returns:
            The source.

        Raises:
            TypeError: If it is neither.
        """
        if isinstance(dataset, Source):
            return dataset
        if not isinstance(dataset, str):
            raise TypeError(
                f"dataset must be the name of a data set or a Source, got {type(dataset).__name__}: make a Source of "
                f"arrays by Source.from_arrays((x_train, y_train), (x_test, y_test))"
            )
        return cls.load(dataset, dataset_root, download)

    @classmethod
    def from_arrays(cls, train: tuple[Any, Any], test: tuple[Any, Any], name: str = "arrays") -> Source:
        """Take a user's own arrays or tensors. They are not copied where they need not be.

        Args:
            train: Training samples, (N, ...), and their classes, (N,), whole numbers from 0. Samples are uint8, which
                models get as floats in [0, 1], or floats, which they get as they are. Pieces that work on images take
                (N, C, H, W); any other shape will do elsewhere.
            test: Test samples and classes.
            name: What messages and results call the data set; not the name of a published one.

        Returns:
            The source.

        Raises:
            ValueError: If training and test samples do not go together, or the name is taken.
        """
        if name in PUBLISHED:
            raise ValueError(f"{name!r} is a data set of avsi.data; give yours a name of its own")
        first, second = (_image_set(name, split, *pair) for split, pair in (("train", train), ("test", test)))
        kinds = [(tuple(part.images.shape[1:]), part.images.dtype) for part in (first, second)]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"{name}'s training samples are {kinds[0][1]} of the shape {kinds[0][0]}, its test samples "
                f"{kinds[1][1]} of {kinds[1][0]}: they must be alike"
            )
        unknown = sorted(set(second.labels.unique().tolist()) - set(first.labels.unique().tolist()))
        if unknown:
            raise ValueError(f"{name} has test samples of the classes {unknown}, but no training samples of them")
        return cls(first, second)


def _image_set(name: str, split: str, samples: Any, labels: Any) -> ImageSet:
    where = f"{name}'s {split} samples"
    try:
        x, y = _tensor(samples), _tensor(labels)
    except TypeError as error:  # words, objects
        raise TypeError(f"{where} and their classes must be numbers ({error})") from error
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise TypeError(f"{where} are {x.dtype}: give uint8 (0 to 255) or floats")
    if x.ndim < 2 or not len(x):
        raise ValueError(f"{where} have the shape {tuple(x.shape)}, not (N, ...) with N samples, at least one")
    if y.dtype == torch.bool or y.is_floating_point() or y.is_complex():
        raise TypeError(f"{where} have classes of {y.dtype}: give whole numbers from 0")
    if y.shape != (len(x),):
        raise ValueError(f"{where} are {len(x)}, but their classes have the shape {tuple(y.shape)}, not ({len(x)},)")
    y = y.to(torch.int64)
    if int(y.min()) < 0:
        raise ValueError(f"{where} have the class {int(y.min())}: give whole numbers from 0")
    finite = x.flatten(1).isfinite().all(1)
    if not finite.all():
        raise ValueError(f"{where} are not all finite: sample {int((~finite).nonzero()[0])} holds NaN or an infinity")
    return ImageSet(name, split, x, y, {"source": name, "complete": "true", "note": "given as arrays"})


def _tensor(values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    # torch takes no negative strides, and warns of arrays that may not be written to.
    return torch.from_numpy(np.require(np.asarray(values), requirements=("C", "W")))


def check_classes(classes: Sequence[int], name: str) -> tuple[int, ...]:
    """Take distinct classes.

    Args:
        classes: The classes.
        name: What the argument is called.

    Returns:
        The classes, as plain numbers.

    Raises:
        ValueError: If there is none, or one of them comes twice.
    """
    checked = tuple(check_count(f"every class of {name}", value, least=0) for value in classes)
    if not checked:
        raise ValueError(f"{name} holds no class")
    twice = sorted({value for value in checked if checked.count(value) > 1})
    if twice:
        raise ValueError(f"{name} must not repeat a class, and {checked} holds {', '.join(map(str, twice))} twice")
    return checked


@dataclass(frozen=True)
class Task:
    """Some classes of an image set, labelled from 0 in the order given.

    Attributes:
        source: The image set; the name of one of ``avsi.data`` will do.
        classes: Its classes.
        transform: Makes inputs of batches of images, training and test alike.
        draw: Choose those of the training images that the task has, one after the other; default: all of them.
        draw_test: The same for the test images.

    Raises:
        ValueError: If there is no class, or one of them comes twice.

    Examples:
        >>> from avsi.scenarios import Source
        >>> train, test = Task(Source.load("digits"), (8, 3)).datasets()
        >>> train.labels.unique()  # 8 became 0, 3 became 1
        tensor([0, 1])
    """

    source: Source
    classes: tuple[int, ...]
    transform: BatchTransform = scale
    draw: tuple[Draw, ...] = ()
    draw_test: tuple[Draw, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", Source.of(self.source))
        object.__setattr__(self, "classes", check_classes(self.classes, "classes"))

    def datasets(self) -> tuple[ImageDataset, ImageDataset]:
        """Select the task's images.

        Returns:
            Training and test data.
        """
        train, test = (
            select_classes(images, self.classes, self.transform) for images in (self.source.train, self.source.test)
        )
        for choose in self.draw:
            train = choose(train)
        for choose in self.draw_test:
            test = choose(test)
        return train, test


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
    targets = torch.full_like(images.labels, -1)
    for label, old in enumerate(classes):
        members = images.labels == old
        if not members.any():
            raise ValueError(f"{images.name} ({images.split}) has no image of class {old}, which the scenario needs")
        targets[members] = label
    rows = torch.nonzero(targets >= 0).flatten()
    return ImageDataset(images.images, rows, targets[rows], transform)


def split_stratified(data: ImageDataset, fraction: float, seed: int) -> tuple[ImageDataset, ImageDataset]:
    """Split off a fraction of each class at random.

    Args:
        data: The data.
        fraction: Share of each class to split off, rounded to whole images, in (0, 1); at least one, where it has two.
        seed: Decides which.

    Returns:
        What stays and what was split off, both in the original order.
    """
    chosen = torch.zeros(len(data), dtype=torch.bool)
    for label in data.labels.unique().tolist():
        members = torch.nonzero(data.labels == label).flatten()
        order = draws.permutation(len(members), seed, Purpose.VALIDATION, label)
        chosen[members[order[: round(fraction * len(members)) or int(len(members) > 1)]]] = True
    return data.select(torch.nonzero(~chosen).flatten()), data.select(torch.nonzero(chosen).flatten())


def build(
    tasks: Iterable[Task],
    *,
    scenario: Scenario = "task",
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
    validation: float = 0.0,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> ImageScenario:
    """Make a benchmark whose experience i holds task i.

    The scenarios are those of van de Ven & Tolias (2019):

    ========  ====================================  ==============  ==============================================
    scenario  classes of experience i               its task label  output layer
    ========  ====================================  ==============  ==============================================
    task      0, 1, ... in every experience         i               one head for each experience (``MultiHead``)
    domain    0, 1, ... in every experience         0               one head
    class     go on from those of experience i - 1  0               one head of all classes, or ``GrowingHead``
    ========  ====================================  ==============  ==============================================

    Avalanche's metrics tell the experiences apart either way.

    Args:
        tasks: The tasks, in order.
        scenario: "task", "domain" or "class".
        train_transform: Applied to each input of ``train_stream`` while a strategy trains on it, in Avalanche's
            transformation group "train"; not in evaluation, nor for importances.
        eval_transform: Applied to each input otherwise, in the group "eval".
        validation: Share of each class's training images that goes to ``valid_stream``, in [0, 1); 0: no such stream.
            At least one image of each class, but that a class of a single image stays in ``train_stream``.
        seed: Decides which images those are.
        notes: See `ImageScenario`.

    Returns:
        The benchmark.

    Raises:
        TypeError: If a task is no `Task`, a transform no function, ``validation`` no number or ``seed`` no whole one.
        ValueError: If ``scenario``, ``validation`` or ``seed`` is out of range, there is no task, or an experience or,
            by ``validation``, one of its classes is left without images.

    Examples:
        >>> from avsi.scenarios import Source, Task
        >>> digits = Source.load("digits")
        >>> tasks = [Task(digits, (3, 8)), Task(digits, (1, 7))]
        >>> benchmark = build(tasks, scenario="class", validation=0.1)
        >>> [experience.classes_in_this_experience for experience in benchmark.train_stream]
        [[0, 1], [2, 3]]
        >>> len(benchmark.valid_stream)
        2
    """
    if scenario not in get_args(Scenario):
        raise ValueError(f'scenario must be "task", "domain" or "class", got {scenario!r}')
    for name, transform in (("train_transform", train_transform), ("eval_transform", eval_transform)):
        if transform is not None and not callable(transform):
            raise TypeError(f"{name} must be a function of one input, got {transform!r}")
    validation = check_number("validation", validation, "a fraction in [0, 1)", lambda share: 0 <= share < 1)
    draws.check_seed(seed)
    tasks = tuple(tasks)
    for task in tasks:
        if not isinstance(task, Task):
            raise TypeError(f"a benchmark is built of tasks, as Task, permute and sequence make them, got {task!r:.80}")
    if not tasks:
        raise ValueError("a benchmark needs at least one task")
    streams: dict[str, list[TaskAwareSupervisedClassificationDataset]] = {"train": [], "test": []}
    if validation:
        streams["valid"] = []
    first = 0
    for position, task in enumerate(tasks):
        train, test = task.datasets()
        parts = {"train": train, "test": test}
        for name, data in parts.items():
            if not len(data):
                raise ValueError(f"experience {position} has no {name} images: its draw leaves none of them")
        if validation:
            parts["train"], parts["valid"] = _split_off(train, validation, seed, position)
        for name, data in parts.items():
            if scenario == "class":
                data = ImageDataset(data.images, data.rows, data.labels + first, data.transform)
            made = with_task_label(data, position if scenario == "task" else 0, train_transform, eval_transform)
            augmented = train_transform is not None or eval_transform is not None
            streams[name].append(made.eval() if augmented and name != "train" else made)
        first += len(task.classes)
    benchmark = with_classes_timeline(with_task_labels(benchmark_from_datasets(**streams)))
    for stream in benchmark.streams.values():
        for experience in stream:
            # Avalanche's MultiHeadClassifier indexes with this and fails on the set that the timeline gives.
            experience.classes_in_this_experience = sorted(experience.classes_in_this_experience)
    return ImageScenario(list(benchmark.streams.values()), *provenance(tasks), notes)


def _split_off(data: ImageDataset, fraction: float, seed: int, position: int) -> tuple[ImageDataset, ImageDataset]:
    kept, split_off = split_stratified(data, fraction, seed)
    lost = sorted(set(data.labels.unique().tolist()) - set(kept.labels.unique().tolist()))
    if lost:
        raise ValueError(
            f"validation={fraction:g} leaves experience {position} without training images of class {lost[0]}: "
            f"give less"
        )
    if not len(split_off):
        raise ValueError(
            f"validation={fraction:g} takes no image of experience {position}, which has one of each class: give 0"
        )
    return kept, split_off


def provenance(tasks: Sequence[Task]) -> tuple[list[ImageSet], dict[str, list[int]]]:
    """Find the published image sets behind some tasks.

    Args:
        tasks: The tasks.

    Returns:
        The image sets, and for each one's name the classes in use.

    Raises:
        ValueError: If two different data sets have the same name.
    """
    sources: dict[str, Source] = {}
    classes: dict[str, set[int]] = {}
    for task in tasks:
        for source in task.source.made_from or (task.source,):
            name = source.train.name
            known = sources.setdefault(name, source)
            again = name in PUBLISHED and known.train.images is not source.train.images and _same(known, source)
            if known.train.images is not source.train.images and not again:
                raise ValueError(f"two data sets are called {name!r}: give each a name of its own")
            used = task.classes if source is task.source else source.classes
            classes.setdefault(name, set()).update(used)
    image_sets = [image_set for source in sources.values() for image_set in (source.train, source.test)]
    return image_sets, {name: sorted(used) for name, used in classes.items()}


def _same(first: Source, second: Source) -> bool:
    # Published data that were loaded twice.
    sets = (first.train, second.train), (first.test, second.test)
    return all(one.fingerprint() == other.fingerprint() for one, other in sets)


def with_task_label(
    data: ImageDataset,
    label: int,
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
) -> TaskAwareSupervisedClassificationDataset:
    """Make an Avalanche classification data set whose samples all carry one task label.

    Args:
        data: The samples.
        label: The task label.
        train_transform: Applied to x in the transformation group "train".
        eval_transform: Applied to x in the transformation group "eval".

    Returns:
        A data set of (x, y, task label).
    """
    attributes = [DataAttribute(data.targets, "targets"), TaskLabels(ConstantSequence(label, len(data)))]
    groups = None
    if train_transform is not None or eval_transform is not None:
        # Both are named: Avalanche would take the group "train" for "eval" too.
        groups = TransformGroups({"train": train_transform, "eval": eval_transform})
    made = TaskAwareSupervisedClassificationDataset([data], data_attributes=attributes, transform_groups=groups)
    know_targets(made, set(torch.as_tensor(data.targets).unique().tolist()))
    return made

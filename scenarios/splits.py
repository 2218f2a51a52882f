"""Benchmarks whose experiences share out the classes of one data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from avsi._arguments import check_count
from avsi.data.catalog import PUBLISHED
from avsi.scenarios import draws
from avsi.scenarios.build import ImageScenario, Options, Scenario, Source, Task, Transform, build, check_classes
from avsi.scenarios.draws import Purpose

if TYPE_CHECKING:
    from typing_extensions import Unpack


class SplitOptions(Options, total=False):
    """What `split` takes beside the data set, ``n_experiences`` and ``scenario``."""

    class_order: Sequence[int] | Literal["random"] | None


def split(
    dataset: str | Source,
    n_experiences: int = 5,
    *,
    scenario: Scenario = "task",
    class_order: Sequence[int] | Literal["random"] | None = None,
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
    validation: float = 0.0,
    seed: int = 0,
    dataset_root: str | Path | None = None,
    download: bool = True,
) -> ImageScenario:
    """Share out the classes of a data set, as many to each experience, one experience after the other.

        >>> from avsi.scenarios import split
        >>> benchmark = split("digits", 5, scenario="class")
        >>> [experience.classes_in_this_experience for experience in benchmark.train_stream]
        [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]

    The scenarios are van de Ven & Tolias's (2019): "task" labels the classes of every experience from 0 and tells the
    model which experience it sees (one head each, ``MultiHead``); "domain" labels them so and does not tell (one head
    of as many outputs as an experience has classes); "class" labels all classes from 0 in their order and does not
    tell (one head of as many outputs as there are classes, or ``GrowingHead``).

    Args:
        dataset: Name of a data set of ``avsi.data``, or a `Source`, which may hold your own arrays.
        n_experiences: How many.
        scenario: "task", "domain" or "class".
        class_order: The classes to use, in their order; the first ones make up experience 0. "random": all that are
            there, in an order drawn from the seed (van de Ven). Default: in ascending order.
        train_transform: Augmentation, applied to inputs of ``train_stream`` in training alone: a transform of
            torchvision's v2, say, or any function of one input. Evaluation and importances do without it.
        eval_transform: Applied to the inputs in evaluation, validation and importances; not in training.
        validation: Share of each class's training images that goes to ``valid_stream``, in [0, 1); at least one image.
        seed: Decides which images those are, and a random order.
        dataset_root: Folder of prepared data sets; default ``$AVSI_DATA``, else the user's cache folder.
        download: Whether to obtain missing data from its publisher.

    Returns:
        The benchmark, with ``train_stream``, ``test_stream`` and, for ``validation`` > 0, ``valid_stream``.
    """
    source = Source.of(dataset, dataset_root, download)
    at_random = isinstance(class_order, str) and class_order == "random"  # arrays do not compare with words
    everything = class_order is None or at_random
    order: Any = source.classes if everything else class_order
    classes = check_classes(order, "class_order")
    if at_random:
        classes = tuple(classes[place] for place in draws.permutation(len(classes), seed, Purpose.CLASS_ORDER))
    groups = shared_out(classes, n_experiences)
    notes = []
    published = PUBLISHED.get(source.train.name)
    if everything and published and len(classes) < published.classes:
        notes.append(f"partial: {len(classes)} of the {published.classes} classes of {source.train.name}")
    return build(
        [Task(source, group) for group in groups],
        scenario=scenario,
        train_transform=train_transform,
        eval_transform=eval_transform,
        validation=validation,
        seed=seed,
        notes=notes,
    )


def split_digits(
    n_experiences: int = 5, *, scenario: Scenario = "task", **options: Unpack[SplitOptions]
) -> ImageScenario:
    """Build split digits, of scikit-learn's 8x8 digits: split MNIST's small sibling, which needs no download.

    Args:
        n_experiences: How many; 5: the pairs 0/1 to 8/9.
        scenario: "task", "domain" or "class".
        **options: As `split` takes them.

    Returns:
        The benchmark.

    Examples:
        >>> benchmark = split_digits(validation=0.1)
        >>> first = benchmark.train_stream[0]
        >>> first.task_label, first.classes_in_this_experience, first.dataset[0][0].shape
        (0, [0, 1], torch.Size([1, 8, 8]))
        >>> len(benchmark.test_stream), len(benchmark.valid_stream)
        (5, 5)
    """
    return split("digits", n_experiences, scenario=scenario, **options)


def split_mnist(
    n_experiences: int = 5, *, scenario: Scenario = "task", **options: Unpack[SplitOptions]
) -> ImageScenario:
    """Build split MNIST: five tasks of two digits each, 0/1 to 8/9 (Zenke et al. 2017, section 5.1).

    `split_digits` shows how it is used.

    Args:
        n_experiences: How many.
        scenario: "task", as in the papers, "domain" or "class".
        **options: As `split` takes them.

    Returns:
        The benchmark.
    """
    return split("mnist", n_experiences, scenario=scenario, **options)


def split_fashion_mnist(
    n_experiences: int = 5, *, scenario: Scenario = "task", **options: Unpack[SplitOptions]
) -> ImageScenario:
    """Build split FashionMNIST: split MNIST with pictures of clothes.

    `split_digits` shows how it is used.

    Args:
        n_experiences: How many.
        scenario: "task", "domain" or "class".
        **options: As `split` takes them.

    Returns:
        The benchmark.
    """
    return split("fashion_mnist", n_experiences, scenario=scenario, **options)


def split_cifar10(
    n_experiences: int = 5, *, scenario: Scenario = "task", **options: Unpack[SplitOptions]
) -> ImageScenario:
    """Build split CIFAR-10: five tasks of two classes each (van de Ven 2025 among others).

    `split_digits` shows how it is used.

    Args:
        n_experiences: How many.
        scenario: "task", "domain" or "class".
        **options: As `split` takes them.

    Returns:
        The benchmark.
    """
    return split("cifar10", n_experiences, scenario=scenario, **options)


def split_cifar100(
    n_experiences: int = 10, *, scenario: Scenario = "task", **options: Unpack[SplitOptions]
) -> ImageScenario:
    """Build split CIFAR-100: ten tasks of ten classes each.

    Where the data set is there in part, its classes are shared out as they are, and the benchmark's ``notes`` say so.
    `split_digits` shows how it is used.

    Args:
        n_experiences: How many.
        scenario: "task", "domain" or "class".
        **options: As `split` takes them.

    Returns:
        The benchmark.
    """
    return split("cifar100", n_experiences, scenario=scenario, **options)


def split_cifar(
    n_experiences: int = 6,
    *,
    scenario: Scenario = "task",
    class_order: Sequence[int] | None = None,
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
    validation: float = 0.0,
    seed: int = 0,
    dataset_root: str | Path | None = None,
    download: bool = True,
) -> ImageScenario:
    """Build split CIFAR-10/100 (Zenke et al. 2017): CIFAR-10, then ten classes of CIFAR-100 to an experience.

    Args:
        n_experiences: How many, CIFAR-10 included; the paper has 6.
        scenario: "task", as in the paper, "domain" or "class"; see `split`.
        class_order: The classes of CIFAR-100, in their order, ten to an experience. Default: 0, 1, 2, ...
        train_transform: Augmentation, applied to inputs of ``train_stream`` in training alone; see `split`.
        eval_transform: Applied to the inputs in evaluation, validation and importances; not in training.
        validation: Share of each class's training images that goes to ``valid_stream``, in [0, 1); at least one image.
        seed: Decides which images those are.
        dataset_root: Folder of prepared data sets; default ``$AVSI_DATA``, else the user's cache folder.
        download: Whether to obtain missing data from its publisher.

    Returns:
        The benchmark, with ``train_stream``, ``test_stream`` and, for ``validation`` > 0, ``valid_stream``.

    Raises:
        ValueError: If ``class_order`` does not hold ten classes for each experience but the first.
    """
    others = check_count("n_experiences", n_experiences, least=2) - 1
    classes = check_classes(range(10 * others) if class_order is None else class_order, "class_order")
    if len(classes) != 10 * others:
        raise ValueError(
            f"class_order holds {len(classes)} classes of CIFAR-100, and n_experiences={n_experiences} needs "
            f"{10 * others}: ten for each experience but the first"
        )
    cifar10, cifar100 = (Source.load(name, dataset_root, download) for name in ("cifar10", "cifar100"))
    return build(
        [Task(cifar10, tuple(range(10))), *(Task(cifar100, group) for group in shared_out(classes, others))],
        scenario=scenario,
        train_transform=train_transform,
        eval_transform=eval_transform,
        validation=validation,
        seed=seed,
    )


def shared_out(classes: Sequence[int], n_experiences: int) -> list[tuple[int, ...]]:
    """Share out classes, as many to each experience.

    Args:
        classes: The classes, in order.
        n_experiences: Number of experiences.

    Returns:
        The classes of each.

    Raises:
        ValueError: If they cannot be shared out evenly.
    """
    count = check_count("n_experiences", n_experiences)
    size, left = divmod(len(classes), count)
    if left or not size:
        fits = [str(n) for n in range(1, len(classes) + 1) if len(classes) % n == 0]
        raise ValueError(
            f"{len(classes)} classes cannot be shared out evenly among n_experiences={count}: choose one of "
            f"{', '.join(fits)}, or other classes by class_order"
        )
    return [tuple(classes[start : start + size]) for start in range(0, len(classes), size)]

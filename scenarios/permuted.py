"""Benchmarks whose experiences hold one data set each time under another permutation of the pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from avsi._arguments import check_count
from avsi.scenarios.build import ImageScenario, Options, Scenario, Source, Transform, build
from avsi.scenarios.pieces import permute

if TYPE_CHECKING:
    from typing_extensions import Unpack


class PermutedOptions(Options, total=False):
    """What `permuted` takes beside the data set, ``n_experiences`` and ``scenario``."""

    permute_first: bool


def permuted(
    dataset: str | Source,
    n_experiences: int = 10,
    *,
    scenario: Scenario = "domain",
    permute_first: bool = False,
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
    validation: float = 0.0,
    seed: int = 0,
    dataset_root: str | Path | None = None,
    download: bool = True,
) -> ImageScenario:
    """Show all classes of a data set in every experience, the pixels permuted anew.

        >>> from avsi.scenarios import permuted
        >>> benchmark = permuted("digits", 3)
        >>> [experience.task_label for experience in benchmark.train_stream]
        [0, 0, 0]

    The usual reading is "domain": one head for all, every experience carries the task label 0, as in Avalanche's
    ``PermutedMNIST``. With "task" each experience has a head of its own; with "class" a class under each permutation
    is a class of its own, 10 x ``n_experiences`` for MNIST (van de Ven & Tolias 2019).

    Args:
        dataset: Name of a data set of ``avsi.data``, or a `Source`, which may hold your own arrays.
        n_experiences: How many.
        scenario: "task", "domain" or "class"; see `split`.
        permute_first: Whether the first one is permuted too.
        train_transform: Augmentation, applied to the permuted inputs of ``train_stream`` in training alone; see
            `split`.
        eval_transform: Applied to the inputs in evaluation, validation and importances; not in training.
        validation: Share of each class's training images that goes to ``valid_stream``, in [0, 1); at least one image.
        seed: Decides the permutations, and which images go to ``valid_stream`` (the same ones in every experience).
        dataset_root: Folder of prepared data sets; default ``$AVSI_DATA``, else the user's cache folder.
        download: Whether to obtain missing data from its publisher.

    Returns:
        The benchmark, with ``train_stream``, ``test_stream`` and, for ``validation`` > 0, ``valid_stream``.
    """
    n_experiences = check_count("n_experiences", n_experiences)
    source = Source.of(dataset, dataset_root, download)
    return build(
        permute(source, tasks=n_experiences, permute_first=permute_first, seed=seed),
        scenario=scenario,
        train_transform=train_transform,
        eval_transform=eval_transform,
        validation=validation,
        seed=seed,
    )


def permuted_digits(
    n_experiences: int = 10, *, scenario: Scenario = "domain", **options: Unpack[PermutedOptions]
) -> ImageScenario:
    """Build permuted digits, of scikit-learn's 8x8 digits: permuted MNIST's small sibling, which needs no download.

    Args:
        n_experiences: How many.
        scenario: "task", "domain" or "class".
        **options: As `permuted` takes them.

    Returns:
        The benchmark.

    Examples:
        >>> benchmark = permuted_digits(3, scenario="task", permute_first=True, seed=1)
        >>> [experience.task_label for experience in benchmark.test_stream]
        [0, 1, 2]
    """
    return permuted("digits", n_experiences, scenario=scenario, **options)


def permuted_mnist(
    n_experiences: int = 10, *, scenario: Scenario = "domain", **options: Unpack[PermutedOptions]
) -> ImageScenario:
    """Build permuted MNIST (Zenke et al. 2017, section 5.2): all ten digits in every task, pixels permuted anew.

    `permuted_digits` shows how it is used. The first task is MNIST as it is, as in the code of Zenke et al.; that the
    DHP paper's text has it permuted too makes no difference to a network without spatial structure.

    Args:
        n_experiences: How many.
        scenario: "task", "domain", as in the papers, or "class".
        **options: As `permuted` takes them.

    Returns:
        The benchmark.
    """
    return permuted("mnist", n_experiences, scenario=scenario, **options)

"""Imbalanced permuted MNIST."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from avsi._arguments import check_count
from avsi.scenarios import draws
from avsi.scenarios.build import ImageScenario, Scenario, Source, Task, Transform, build
from avsi.scenarios.draws import Purpose
from avsi.scenarios.pieces import imbalance, permute, remove_at_random

# Table 2 of the DHP paper (appendix A.2), transposed: a row for each task, a column for each digit. The total printed
# under task 4, 31,120, is 30 less than the sum of its numbers, which are what is used here.
TABLE_2 = (
    (4459, 1872, 2391, 4433, 186, 4292, 2339, 4717, 3295, 2625),
    (3780, 3637, 4125, 1907, 2728, 2472, 3403, 3090, 5493, 3880),
    (1847, 1316, 2434, 1682, 2002, 2924, 4771, 4800, 76, 4735),
    (3820, 6592, 4966, 278, 151, 1369, 5569, 2574, 4184, 1647),
    (5867, 1934, 5245, 3027, 1435, 4094, 1414, 4086, 2034, 2645),
    (122, 1774, 4593, 2315, 5829, 4858, 2851, 1065, 4672, 3921),
    (1013, 5533, 4834, 5761, 1284, 2265, 2921, 3520, 682, 901),
    (4608, 2569, 4432, 3293, 3910, 3289, 4074, 4705, 196, 4546),
    (908, 831, 3207, 2545, 4593, 1134, 336, 5400, 2409, 4649),
    (3933, 886, 3555, 3749, 927, 1413, 3993, 3650, 1709, 2045),
)


def imbalanced_permuted_mnist(
    n_experiences: int = 10,
    *,
    scenario: Scenario = "domain",
    permute_first: bool = False,
    counts: Literal["table2", "random"] | Sequence[Sequence[int]] = "table2",
    removal_seed: int = 0,
    thin_test: bool = False,
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
    validation: float = 0.0,
    seed: int = 0,
    dataset_root: str | Path | None = None,
    download: bool = True,
) -> ImageScenario:
    """Build imbalanced permuted MNIST (DHP paper, section 4.2): permuted MNIST with training images removed.

    How many training images of each digit are left differs from task to task. The paper does not say whether test sets
    are thinned out too. One head serves all tasks; every experience carries the task label 0. See `permuted_mnist`.

    Args:
        n_experiences: How many; at most ten for "table2".
        scenario: "task", "domain", as in the paper, or "class"; see `split`.
        permute_first: Whether the first task is permuted too.
        counts: Training images left, validation included: the paper's own numbers ("table2"); numbers drawn as the
            paper drew them, a probability of removal for each task and digit from U(0, 1), then each image removed with
            that probability ("random"); or a row of ten numbers for each task.
        removal_seed: For "random": decides the probabilities, apart from ``seed``, since the paper keeps one set of
            them over all its trials.
        thin_test: Whether test images are removed in the same proportions; else test sets stay whole.
        train_transform: Augmentation, applied to inputs of ``train_stream`` in training alone; see `split`.
        eval_transform: Applied to the inputs in evaluation, validation and importances; not in training.
        validation: Share of each class's training images that goes to ``valid_stream``, in [0, 1); at least one image.
        seed: Decides the permutations, which images are left, and which of these go to ``valid_stream``.
        dataset_root: Folder of prepared data sets; default ``$AVSI_DATA``, else the user's cache folder.
        download: Whether to obtain missing data from its publisher.

    Returns:
        The benchmark, with ``train_stream``, ``test_stream`` and, for ``validation`` > 0, ``valid_stream``.

    Raises:
        ValueError: If "table2" is asked for more than ten experiences, or an argument is out of range.
    """
    n_experiences = check_count("n_experiences", n_experiences)
    draws.check_seed(removal_seed, "removal_seed")
    if isinstance(counts, str) and counts == "table2" and n_experiences > len(TABLE_2):
        raise ValueError(
            f'counts="table2" has numbers for {len(TABLE_2)} experiences, n_experiences is {n_experiences}: ask for '
            'fewer, or give counts="random" or rows of your own'
        )
    mnist = Source.load("mnist", dataset_root, download)
    made = permute(mnist, tasks=n_experiences, permute_first=permute_first, seed=seed)
    thinned = _thin_out(made, counts, removal_seed, seed, thin_test)
    return build(
        thinned,
        train_transform=train_transform,
        eval_transform=eval_transform,
        validation=validation,
        seed=seed,
        scenario=scenario,
    )


def _thin_out(
    tasks: list[Task], counts: str | Sequence[Sequence[int]], removal_seed: int, seed: int, thin_test: bool
) -> list[Task]:
    if not isinstance(counts, str):
        return imbalance(tasks, counts, seed=seed, thin_test=thin_test)
    if counts == "table2":
        return imbalance(tasks, TABLE_2[: len(tasks)], seed=seed, thin_test=thin_test)
    if counts == "random":
        shape = len(tasks), len(tasks[0].classes)
        probabilities = draws.uniform(shape[0] * shape[1], removal_seed, Purpose.REMOVAL).view(shape)
        return remove_at_random(tasks, probabilities, seed=seed, thin_test=thin_test)
    raise ValueError(f'counts must be "table2", "random" or a row of numbers for each task, got {counts!r}')

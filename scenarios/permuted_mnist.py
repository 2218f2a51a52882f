"""Permuted MNIST."""

from __future__ import annotations

from pathlib import Path

from avsi.scenarios.build import ImageScenario, Source, build
from avsi.scenarios.pieces import permute


def permuted_mnist(
    *,
    tasks: int = 10,
    permute_first: bool = False,
    validation: float = 0.0,
    seed: int = 0,
    root: str | Path | None = None,
    download: bool = True,
) -> ImageScenario:
    """Build permuted MNIST (Zenke et al. 2017, section 5.2): all ten digits in every task, pixels permuted anew.

    One head serves all tasks, so every experience carries the task label 0, as in Avalanche's ``PermutedMNIST``. The
    first task is MNIST as it is, as in the code of Zenke et al.; that the DHP paper's text has it permuted too makes no
    difference to a network without spatial structure.

    Args:
        tasks: How many.
        permute_first: Whether the first task is permuted too.
        validation: Share of each class's training images that goes to ``valid_stream``, in [0, 1).
        seed: Decides the permutations, and which images go to ``valid_stream`` (the same ones in every task).
        root: Folder of prepared data sets; default ``$AVSI_DATA``, else the user's cache folder.
        download: Whether to obtain missing data from its publisher.

    Returns:
        The benchmark, with ``train_stream``, ``test_stream`` and, for ``validation`` > 0, ``valid_stream``.
    """
    mnist = Source.load("mnist", root, download)
    made = permute(mnist, tasks=tasks, permute_first=permute_first, seed=seed)
    return build(made, validation=validation, seed=seed, task_labels=False)

"""Split CIFAR-10/100."""

from __future__ import annotations

from pathlib import Path

from avsi.scenarios.build import ImageScenario, Source, Task, build, consecutive


def split_cifar(
    *, validation: float = 0.0, seed: int = 0, root: str | Path | None = None, download: bool = True
) -> ImageScenario:
    """Build split CIFAR-10/100 (Zenke et al. 2017): CIFAR-10, then classes 0-49 of CIFAR-100, ten to a task.

    Args:
        validation: Share of each class's training images that goes to ``valid_stream``, in [0, 1).
        seed: Decides which images those are.
        root: Folder of prepared data sets; default ``$AVSI_DATA``, else the user's cache folder.
        download: Whether to obtain missing data from its publisher.

    Returns:
        The benchmark, with ``train_stream``, ``test_stream`` and, for ``validation`` > 0, ``valid_stream``.
    """
    cifar10, cifar100 = Source.load("cifar10", root, download), Source.load("cifar100", root, download)
    tasks = [Task(cifar10, tuple(range(10)))] + [Task(cifar100, group) for group in consecutive(0, 50, 10)]
    return build(tasks, validation=validation, seed=seed)

"""Transfer between classes of CIFAR-10."""

from __future__ import annotations

from pathlib import Path

from avsi._arguments import check_count
from avsi.scenarios.build import ImageScenario, Source, Task, Transform, build
from avsi.scenarios.pieces import imbalance


def cifar_transfer(
    *,
    images_per_class: int = 50,
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
    validation: float = 0.0,
    seed: int = 0,
    dataset_root: str | Path | None = None,
    download: bool = True,
) -> ImageScenario:
    """Build the CIFAR-10 transfer task (Zenke et al. 2017, workshop paper, Figure 3, left).

    Task 0 has all training images of classes 0-7, task 1 a few of classes 8 and 9. Test sets are whole. Each task has a
    head of its own.

    Args:
        images_per_class: Training images of classes 8 and 9 each, validation included.
        train_transform: Augmentation, applied to inputs of ``train_stream`` in training alone; see `split`.
        eval_transform: Applied to the inputs in evaluation, validation and importances; not in training.
        validation: Share of each class's training images that goes to ``valid_stream``, in [0, 1); at least one image.
        seed: Decides which images of classes 8 and 9 these are, and which go to ``valid_stream``.
        dataset_root: Folder of prepared data sets; default ``$AVSI_DATA``, else the user's cache folder.
        download: Whether to obtain missing data from its publisher.

    Returns:
        The benchmark, with ``train_stream``, ``test_stream`` and, for ``validation`` > 0, ``valid_stream``.
    """
    images_per_class = check_count("images_per_class", images_per_class)
    cifar = Source.load("cifar10", dataset_root, download)
    rest = imbalance([Task(cifar, (8, 9))], [[images_per_class] * 2], seed=seed)
    return build(
        [Task(cifar, tuple(range(8))), *rest],
        train_transform=train_transform,
        eval_transform=eval_transform,
        validation=validation,
        seed=seed,
    )

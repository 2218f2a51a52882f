"""The vision datasets mixture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avsi.scenarios.build import ImageScenario, Transform, build
from avsi.scenarios.pieces import Statistics, load_all, sequence

DATASETS = ("mnist", "notmnist", "fashion_mnist", "svhn", "cifar10")


def five_vision(
    *,
    datasets: Sequence[str] = DATASETS,
    normalise: bool | Statistics = False,
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
    validation: float = 0.0,
    seed: int = 0,
    dataset_root: str | Path | None = None,
    download: bool = True,
) -> ImageScenario:
    """Build the vision datasets mixture (DHP paper, section 4.4): a data set of ten classes to each task.

    Inputs have the shape (3, 32, 32): grey images are padded with zeros, two pixels on each side, and repeated. Each
    task has a head of its own: experience i carries the task label i.

    Args:
        datasets: Names of the data sets, in order. Fewer than the five make the benchmark partial, and its ``notes``
            say so.
        normalise: Whether to bring every channel of each data set's training images to mean 0 and standard deviation 1,
            padding included; or the means and standard deviations to use, by data set. Default: inputs in [0, 1].
        train_transform: Augmentation, applied to inputs of ``train_stream`` in training alone; see `split`.
        eval_transform: Applied to the inputs in evaluation, validation and importances; not in training.
        validation: Share of each class's training images that goes to ``valid_stream``, in [0, 1); at least one image.
        seed: Decides which images those are.
        dataset_root: Folder of prepared data sets; default ``$AVSI_DATA``, else the user's cache folder.
        download: Whether to obtain missing data from its publisher.

    Returns:
        The benchmark, with ``train_stream``, ``test_stream`` and, for ``validation`` > 0, ``valid_stream``.

    Raises:
        TypeError: If ``datasets`` is a single name.
    """
    if isinstance(datasets, str):
        raise TypeError(f"datasets must be a sequence of names, got {datasets!r}; write [{datasets!r}]")
    tasks = sequence(load_all(datasets, dataset_root, download), size=32, channels=3, normalise=normalise)
    missing = [name for name in DATASETS if name not in datasets]
    notes = []
    if missing:
        notes.append(f"partial: without {', '.join(missing)}")
    elif tuple(datasets) != DATASETS:
        notes.append(f"the published sequence is {', '.join(DATASETS)}; this is {', '.join(datasets)}")
    return build(
        tasks,
        train_transform=train_transform,
        eval_transform=eval_transform,
        validation=validation,
        seed=seed,
        notes=notes,
    )

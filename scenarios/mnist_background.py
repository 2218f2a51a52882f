"""Transfer from MNIST to MNIST with background images."""

from __future__ import annotations

from pathlib import Path

from avsi._arguments import check_count, check_flag
from avsi.data import available
from avsi.scenarios import draws
from avsi.scenarios.backgrounds import on_backgrounds, photographs, upright
from avsi.scenarios.build import ImageScenario, Source, Task, Transform, build
from avsi.scenarios.pieces import imbalance

ORIGINAL = "mnist_background"


def mnist_background(
    *,
    images_per_class: int = 10,
    original: bool | None = None,
    backgrounds: str | Source = "photographs",
    background_seed: int = 0,
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
    validation: float = 0.0,
    seed: int = 0,
    dataset_root: str | Path | None = None,
    download: bool = True,
) -> ImageScenario:
    """Build the transfer task from MNIST to MNIST with background images (Zenke et al. 2017, workshop paper, Figure 3).

    Task 0 has all training images of MNIST, task 1 a few of MNIST with background images (Larochelle et al. 2007). Test
    sets are whole. Each task has a head of its own.

    The original files have no publisher that this library could check them against, so they are used where you have put
    them (the data set "mnist_background", see ``avsi.data``). Where they are not, the data set is rebuilt from MNIST's
    digits on patches of natural images, and the benchmark's ``notes`` call it a rebuild; see
    `avsi.scenarios.backgrounds`.

    Args:
        images_per_class: Training images of each digit in task 1, validation included.
        original: Whether to use the original files (True) or a rebuild (False); None: the files where they are.
        backgrounds: For a rebuild: what the patches are taken from: "photographs", the natural photographs that come
            with scikit-learn and, where it is installed, scikit-image; another data set's name; or a `Source`.
        background_seed: For a rebuild: decides the patches, apart from ``seed``, since the data set is fixed.
        train_transform: Augmentation, applied to inputs of ``train_stream`` in training alone; see `split`.
        eval_transform: Applied to the inputs in evaluation, validation and importances; not in training.
        validation: Share of each class's training images that goes to ``valid_stream``, in [0, 1); at least one image.
        seed: Decides which images of task 1 these are, and which go to ``valid_stream``.
        dataset_root: Folder of prepared data sets; default ``$AVSI_DATA``, else the user's cache folder.
        download: Whether to obtain missing data from its publisher.

    Returns:
        The benchmark, with ``train_stream``, ``test_stream`` and, for ``validation`` > 0, ``valid_stream``.
    """
    images_per_class = check_count("images_per_class", images_per_class)
    draws.check_seed(background_seed, "background_seed")
    if original is not None:
        check_flag("original", original)
    mnist = Source.load("mnist", dataset_root, download)
    notes = []
    if original or (original is None and available(ORIGINAL, dataset_root=dataset_root)):
        with_background = upright(Source.load(ORIGINAL, dataset_root, download), mnist)
    else:
        natural = photographs() if backgrounds == "photographs" else Source.of(backgrounds, dataset_root, download)
        with_background = on_backgrounds(mnist, natural, seed=background_seed)
        notes.append(f"rebuild: {with_background.train.metadata['source']}, not the original files")
    rest = imbalance([Task(with_background, with_background.classes)], [[images_per_class] * 10], seed=seed)
    return build(
        [Task(mnist, mnist.classes), *rest],
        train_transform=train_transform,
        eval_transform=eval_transform,
        validation=validation,
        seed=seed,
        notes=notes,
    )

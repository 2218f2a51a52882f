"""Split digits."""

from __future__ import annotations

from pathlib import Path

from avsi.scenarios.build import ImageScenario, Source, Task, build, consecutive


def split_digits(
    *, validation: float = 0.0, seed: int = 0, root: str | Path | None = None, download: bool = True
) -> ImageScenario:
    """Build split digits: five tasks of two classes each, 0/1 to 8/9, of scikit-learn's 8x8 digits.

    The small sibling of split MNIST: real handwriting that needs no download (see ``avsi.data``).

    Args:
        validation: Share of each class's training images that goes to ``valid_stream``, in [0, 1).
        seed: Decides which images those are.
        root: Folder of prepared data sets; default ``$AVSI_DATA``, else the user's cache folder.
        download: Whether to obtain missing data from its publisher.

    Returns:
        The benchmark, with ``train_stream``, ``test_stream`` and, for ``validation`` > 0, ``valid_stream``.
    """
    digits = Source.load("digits", root, download)
    return build([Task(digits, pair) for pair in consecutive(0, 10, 2)], validation=validation, seed=seed)

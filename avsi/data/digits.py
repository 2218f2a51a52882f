"""The embedded data set: 1,797 real handwritten digits that come with scikit-learn."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from avsi.data.catalog import PUBLISHED
from avsi.data.imageset import ImageSet


def load_digits(split: str) -> ImageSet:
    """Load scikit-learn's digits, which need neither a download nor a prepared file.

    The split is fixed: within each class, in scikit-learn's order, every fifth image (index 4, 9, 14, ...) is a test
    image and the others are training images; both splits keep scikit-learn's order. The intensities 0..16 become
    0..255 by ``(v * 255 + 8) // 16``.

    Args:
        split: "train" or "test".

    Returns:
        1,442 training or 355 test images of shape (1, 8, 8).
    """
    images, labels, is_test = _read()
    chosen = is_test if split == "test" else ~is_test
    metadata = {
        "source": PUBLISHED["digits"].source,
        "complete": "true",
        "note": "every fifth image of each class is a test image",
    }
    # Indexing copies, so what a caller writes into its tensors stays with that caller.
    return ImageSet("digits", split, torch.from_numpy(images[chosen]), torch.from_numpy(labels[chosen]), metadata)


@cache
def _read() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from sklearn import datasets  # takes a second to import, and only this data set needs it

    digits = datasets.load_digits()
    images = ((digits.images.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[4::5]] = True
    return images, labels, is_test

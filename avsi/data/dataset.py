"""Data sets over rows of an image tensor, with transforms that work on whole batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

BatchTransform = Callable[[Tensor], Tensor]
"""Maps uint8 images (N, C, H, W) to float inputs (N, ...)."""


def scale(images: Tensor) -> Tensor:
    """Map pixel values 0..255 to floats in [0, 1].

    Args:
        images: uint8, any shape.

    Returns:
        float32 (torch's default dtype) of the same shape.
    """
    return images.to(torch.get_default_dtype()) / 255


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Chosen rows of an image tensor with labels of their own.

    The images are shared, not copied; :meth:`batch` reads many rows at once, indexing reads one.

    Args:
        images: uint8, (M, C, H, W).
        rows: Rows of ``images``, (N,), int64.
        targets: Labels of those rows, (N,), int64.
        transform: Applied to uint8 batches (n, C, H, W).
    """

    def __init__(self, images: Tensor, rows: Tensor, targets: Tensor, transform: BatchTransform = scale) -> None:
        self.images = images
        self.rows = rows
        self.labels = targets
        self.transform = transform
        self.targets: Sequence[int] = targets.tolist()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[self.rows[index]][None])[0], self.targets[index]

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Read several samples at once.

        Args:
            indices: Positions in this data set, (n,), int64.

        Returns:
            Inputs (n, ...) and labels (n,).
        """
        # index_select copies whole rows; plain indexing takes several times as long.
        return self.transform(self.images.index_select(0, self.rows[indices])), self.labels[indices]

    def select(self, indices: Tensor) -> ImageDataset:
        """Make a data set of some of the samples.

        Args:
            indices: Positions in this data set, (n,), int64.

        Returns:
            A data set over the same images.
        """
        return ImageDataset(self.images, self.rows[indices], self.labels[indices], self.transform)

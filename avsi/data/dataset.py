"""Data sets over rows of an image tensor, with transforms that work on whole batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

BatchTransform = Callable[[Tensor], Tensor]
"""Maps images (N, ...), uint8 as a rule, to float inputs (N, ...); what it makes of an image depends on that alone."""


def scale(images: Tensor) -> Tensor:
    """Map pixel values 0..255 to floats in [0, 1]; floats are taken as they are."""
    inputs = images.to(torch.get_default_dtype())
    return inputs if images.is_floating_point() else inputs / 255


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Chosen rows of an image tensor with labels of their own.

    The images are shared, not copied.

    Args:
        images: uint8 or floats, (M, ...); (M, C, H, W) as a rule.
        rows: Rows of ``images``, (N,), int64.
        targets: Labels of those rows, (N,), int64.
        transform: Applied to batches of images.
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
        # By a list of rows, which copies: a transform may work in place.
        return self.transform(self.images[self.rows[index][None]])[0], self.targets[index]

    def select(self, indices: Tensor) -> ImageDataset:
        """Make a data set of some of the samples, by their positions (n,), over the same images."""
        return ImageDataset(self.images, self.rows[indices], self.labels[indices], self.transform)

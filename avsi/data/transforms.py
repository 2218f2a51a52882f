"""Transforms of whole batches: images (N, C, H, W) in, uint8 as a rule, and out again, or float inputs.

Every transform is a pure function of the batch: what comes out for an image depends on that image alone. Each one can
be pickled, so that the workers of a data loader apply the same one, and follows its batches to any device.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from avsi._arguments import check_count
from avsi.data.dataset import BatchTransform


class Transform(ABC):
    """A transform of whole batches."""

    def __call__(self, images: Tensor) -> Tensor:
        """Transform a batch.

        Args:
            images: (N, C, H, W).

        Returns:
            As many images.
        """
        return self._apply(images)

    @abstractmethod
    def _apply(self, images: Tensor) -> Tensor: ...


class Compose(Transform):
    """Apply transforms one after the other.

    Args:
        *steps: The transforms, first to last.

    Examples:
        >>> import torch
        >>> from avsi.data import Pad, RepeatChannels
        >>> Compose(Pad(32, 32), RepeatChannels(3))(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(self, *steps: BatchTransform) -> None:
        self.steps = steps

    def _apply(self, images: Tensor) -> Tensor:
        for step in self.steps:
            images = step(images)
        return images

    def __repr__(self) -> str:
        return f"Compose({', '.join(getattr(step, '__name__', repr(step)) for step in self.steps)})"


class Permute(Transform):
    """Move the pixels of every image in the same way; the channels of a pixel stay together.

    Samples that are no images with channels, (N, ...) of less than four dimensions, have all their values moved.

    Args:
        permutation: Pixel i of the result, counted row by row, is pixel ``permutation[i]`` of the image; (H * W,).

    Raises:
        ValueError: If it does not hold every number from 0 to H * W - 1 once.

    Examples:
        >>> import torch
        >>> Permute(torch.tensor([3, 0, 1, 2]))(torch.tensor([[[[10, 11], [12, 13]]]])).tolist()
        [[[[13, 10], [11, 12]]]]
    """

    def __init__(self, permutation: Tensor) -> None:
        if not torch.equal(permutation.sort().values, torch.arange(len(permutation), device=permutation.device)):
            raise ValueError(f"a permutation must hold every number from 0 to {len(permutation) - 1} once")
        self._permutation = _Constant(permutation)

    @property
    def permutation(self) -> Tensor:
        """The permutation."""
        return self._permutation.value

    def _apply(self, images: Tensor) -> Tensor:
        size = positions(images)
        pixels = images.flatten(-len(size))
        if pixels.shape[-1] != len(self.permutation):
            shape = " x ".join(map(str, size))
            raise ValueError(f"images of {shape} pixels, but the permutation is of {len(self.permutation)}")
        # On bytes, `gather` is three times as fast as indexing.
        index = self._permutation.to(images.device, torch.int64).expand(pixels.shape)
        return pixels.gather(-1, index).view(images.shape)

    def __repr__(self) -> str:
        return f"Permute({self.permutation[:3].tolist()} ... of {len(self.permutation)})"


@dataclass(frozen=True)
class Pad(Transform):
    """Put every image in the middle of a larger black one; an odd pixel goes below and to the right.

    Attributes:
        height: Height of the result.
        width: Its width.

    Raises:
        ValueError: If one of them is not positive.
        TypeError: If one of them is no whole number.

    Examples:
        >>> import torch
        >>> Pad(3, 4)(torch.tensor([[[[7, 7]]]])).tolist()
        [[[[0, 0, 0, 0], [0, 7, 7, 0], [0, 0, 0, 0]]]]
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        check_count("height", self.height)
        check_count("width", self.width)

    def _apply(self, images: Tensor) -> Tensor:
        rows, columns = self.height - images.shape[2], self.width - images.shape[3]
        if rows < 0 or columns < 0:
            raise ValueError(
                f"images of {images.shape[2]} x {images.shape[3]} pixels cannot be padded to {self.height} x "
                f"{self.width}: choose at least their size"
            )
        return F.pad(images, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


@dataclass(frozen=True)
class RepeatChannels(Transform):
    """Repeat the one channel of grey images; images that have the wanted channels already stay as they are.

    Attributes:
        channels: Channels of the result.

    Raises:
        ValueError: If it is not positive.
        TypeError: If it is no whole number.

    Examples:
        >>> import torch
        >>> RepeatChannels(3)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 3, 8, 8])
    """

    channels: int

    def __post_init__(self) -> None:
        check_count("channels", self.channels)

    def _apply(self, images: Tensor) -> Tensor:
        if images.shape[1] not in {1, self.channels}:
            raise ValueError(f"images of {images.shape[1]} channels cannot be brought to {self.channels} by repetition")
        # Repeated in memory: a later transform may work in place.
        return images if images.shape[1] == self.channels else images.repeat(1, self.channels, 1, 1)


class Normalise(Transform):
    """Subtract a mean from float images, and divide by a standard deviation, channel by channel.

    Args:
        mean: For each channel, or one for all.
        std: For each channel, or one for all; positive.

    Raises:
        ValueError: If a number is not finite, a standard deviation not positive, or their numbers do not go together.
            Images that are not floats are a TypeError.

    Examples:
        >>> import torch
        >>> Normalise(mean=[0.5], std=[0.25])(torch.tensor([[[[0.0, 0.5, 1.0]]]])).tolist()
        [[[[-2.0, 0.0, 2.0]]]]
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        mean, std = (tuple(float(value) for value in values) for values in (mean, std))
        if not all(map(math.isfinite, mean)):
            raise ValueError(f"means must be finite numbers, got {mean}")
        if not all(math.isfinite(value) and value > 0 for value in std):
            raise ValueError(f"standard deviations must be positive, got {std}")
        if not mean or len({1, len(mean), len(std)}) > 2:
            raise ValueError(f"{len(mean)} means and {len(std)} standard deviations: give as many as channels, or one")
        self.mean, self.std = mean, std
        self._mean, self._std = (_Constant(torch.tensor(v, dtype=torch.float64)[:, None, None]) for v in (mean, std))

    def _apply(self, images: Tensor) -> Tensor:
        if not images.is_floating_point():
            raise TypeError(f"images to be normalised must be floats, got {images.dtype}; scale them to [0, 1] before")
        given = max(len(self.mean), len(self.std))
        if given not in {1, images.shape[1]}:
            raise ValueError(f"images of {images.shape[1]} channels, but means or standard deviations for {given}")
        mean, std = (value.to(images.device, images.dtype) for value in (self._mean, self._std))
        return (images - mean) / std

    def __repr__(self) -> str:
        return f"Normalise(mean={self.mean}, std={self.std})"


def positions(images: Tensor) -> torch.Size:
    """Say how many positions a sample's values lie at, along each axis.

    Args:
        images: (N, C, H, W), or more axes; or samples of less, (N, ...).

    Returns:
        (H, W), or all axes of a sample that has no channels.
    """
    return images.shape[2 if images.ndim >= 4 else 1 :]


def channel_statistics(images: Tensor, pixels: int | None = None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute mean and standard deviation of each channel: of bytes on the scale [0, 1], of floats as they are.

    Sums over bytes are made of integers, so the result is the same on every platform.

    Args:
        images: uint8 or floats, (N, C, H, W).
        pixels: H * W of the images once they are padded with zeros, where they will be.

    Returns:
        Means and standard deviations, one of each per channel.
    """
    count = len(images) * (images.shape[2] * images.shape[3] if pixels is None else pixels)
    if images.is_floating_point():
        mean, squares = torch.zeros(2, images.shape[1], dtype=torch.float64)
        for values in _by_channel(images, torch.float64):
            mean += values.sum(1) / count
        for values in _by_channel(images, torch.float64):  # again: the mean of squares less that mean's cancels
            squares += (values - mean[:, None]).square().sum(1)
        squares += (count - images[:, 0].numel()) * mean.square()
        return tuple(mean.tolist()), tuple((squares / count).sqrt().tolist())
    total, squares = torch.zeros(2, images.shape[1], dtype=torch.int64)
    for values in _by_channel(images, torch.int32):
        total += values.sum(1)
        squares += (values * values).sum(1)
    mean = total.double() / count
    std = (squares.double() / count - mean * mean).clamp(min=0).sqrt()
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def _by_channel(images: Tensor, kind: torch.dtype) -> Iterator[Tensor]:
    # (channels, values), a part of the images at a time, which bounds the memory.
    return (chunk.transpose(0, 1).flatten(1).to(kind) for chunk in images.split(4096))


class _Constant:
    # A tensor that is copied once to each device and type that it is used with; only the original is pickled.

    def __init__(self, value: Tensor) -> None:
        self.value = value
        self._copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def to(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        key = (device, dtype)
        if key not in self._copies:
            self._copies[key] = self.value.to(device, dtype)
        return self._copies[key]

    def __reduce__(self) -> tuple:
        return _Constant, (self.value,)

"""Where each data set comes from: the publisher's files, read and if need be downloaded by torchvision.

A source works on a folder in torchvision's layout (the ``root`` of its data sets) and knows three things: which of
the publisher's files belong there, how to download the ones that are missing, and how to read them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Source(ABC):
    """A data set of `torchvision.datasets`.

    Attributes:
        dataset: Name of the class there.
    """

    dataset: str

    @property
    def torchvision(self) -> Any:
        """The class of `torchvision.datasets`."""
        import torchvision.datasets  # only needed where something is prepared

        return getattr(torchvision.datasets, self.dataset)

    @property
    @abstractmethod
    def address(self) -> str:
        """Where a person finds the publisher's files."""

    @abstractmethod
    def archives(self) -> list[tuple[str, str]]:
        """List the files as they are downloaded.

        Returns:
            Path below the folder, and MD5.
        """

    @abstractmethod
    def extracted(self) -> list[tuple[str, str | None]]:
        """List the files that torchvision reads.

        Returns:
            Path below the folder, and MD5 where torchvision knows one.
        """

    def is_readable(self, folder: Path) -> bool:
        """Check that all files that torchvision reads are in a folder.

        Args:
            folder: A folder in torchvision's layout.

        Returns:
            Whether `read` needs nothing else.
        """
        return all(_is_intact(folder / path, md5) for path, md5 in self.extracted())

    def intact_archives(self, folder: Path) -> Iterator[str]:
        """Find the archives in a folder that are the publisher's, byte for byte.

        Args:
            folder: A folder in torchvision's layout.

        Yields:
            Path of each below the folder.
        """
        for path, md5 in self.archives():
            if _is_intact(folder / path, md5):
                yield path

    def fetch(self, folder: Path) -> None:
        """Download the archives that are not in a folder yet, and extract all of them there.

        Args:
            folder: A folder in torchvision's layout; existing archives must be intact.
        """
        self.torchvision(folder, train=False, download=True)

    def read(self, folder: Path, split: str) -> tuple[Tensor, Tensor]:
        """Read a split from a folder that holds the extracted files.

        Args:
            folder: A folder in torchvision's layout.
            split: "train" or "test".

        Returns:
            Images (uint8, N x C x H x W) and labels (int64, N).
        """
        return convert(self.torchvision(folder, train=split == "train", download=False))


class IdxSource(Source):
    """MNIST and its relatives: gzipped idx files."""

    @property
    def address(self) -> str:
        """Where a person finds the publisher's files."""
        return self.torchvision.mirrors[0]

    def archives(self) -> list[tuple[str, str]]:
        """List the files as they are downloaded.

        Returns:
            Path below the folder, and MD5.
        """
        return [(f"{self.dataset}/raw/{name}", md5) for name, md5 in self.torchvision.resources]

    def extracted(self) -> list[tuple[str, str | None]]:
        """List the files that torchvision reads.

        Returns:
            Path below the folder; torchvision knows no MD5 of these.
        """
        return [(path.removesuffix(".gz"), None) for path, _ in self.archives()]


class CifarSource(Source):
    """CIFAR-10 and CIFAR-100: a tar file of pickled batches."""

    @property
    def address(self) -> str:
        """Where a person finds the publisher's files."""
        return self.torchvision.url

    def archives(self) -> list[tuple[str, str]]:
        """List the files as they are downloaded.

        Returns:
            Path below the folder, and MD5.
        """
        return [(self.torchvision.filename, self.torchvision.tgz_md5)]

    def extracted(self) -> list[tuple[str, str | None]]:
        """List the files that torchvision reads.

        Returns:
            Path below the folder, and MD5.
        """
        cifar = self.torchvision
        batches = [*cifar.train_list, *cifar.test_list, (cifar.meta["filename"], cifar.meta["md5"])]
        return [(f"{cifar.base_folder}/{name}", md5) for name, md5 in batches]


SOURCES: dict[str, Source] = {
    "mnist": IdxSource("MNIST"),
    "fashion_mnist": IdxSource("FashionMNIST"),
    "cifar10": CifarSource("CIFAR10"),
    "cifar100": CifarSource("CIFAR100"),
}


def convert(dataset: Any) -> tuple[Tensor, Tensor]:
    """Convert what torchvision holds in memory to tensors of one form.

    Args:
        dataset: A data set of `torchvision.datasets` with ``data`` and ``targets``: grey images (N, H, W) as a tensor,
            or colour images (N, H, W, 3) as an array.

    Returns:
        Images (uint8, N x C x H x W) and labels (int64, N).
    """
    images = torch.as_tensor(dataset.data)
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return images.contiguous(), torch.as_tensor(dataset.targets, dtype=torch.int64)


def _is_intact(path: Path, md5: str | None) -> bool:
    from torchvision.datasets.utils import check_integrity

    try:
        return check_integrity(path, md5)
    except OSError:  # there, but it may not be read
        return False

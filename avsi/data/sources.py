"""Where each data set comes from: the publisher's files, read and if need be downloaded with torchvision's means.

A source works on a folder in torchvision's layout (the ``root`` of its data sets) and knows three things: which of
the publisher's files belong there, how to download the ones that are missing, and how to read them.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from avsi.data.catalog import SPLITS


class Source(ABC):
    """A data set and its publisher's files."""

    downloadable: ClassVar[bool] = True
    """Whether its files can be downloaded and checked."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Where a person finds the publisher's files."""

    @abstractmethod
    def archives(self) -> list[tuple[str, str | None]]:
        """List the files as they are downloaded: path below the folder, and checksum where one is known."""

    def extracted(self) -> list[tuple[str, str | None]]:
        """List the files that are read, likewise; default: the archives, so that all that is read is checked."""
        return self.archives()

    def fetch(self, folder: Path) -> None:
        """Download the archives that a folder lacks, and extract all of them there; those it has are intact."""
        raise RuntimeError("there is nothing to check a download against")

    @abstractmethod
    def read(self, folder: Path, split: str) -> tuple[Tensor, Tensor]:
        """Read a split of the extracted files: images (uint8, N x C x H x W) and labels (int64, N)."""

    def is_intact(self, path: Path, checksum: str | None) -> bool:
        """Check that a file can be read and has the checksum, an MD5; None: any file will do."""
        from torchvision.datasets.utils import check_integrity

        try:
            return check_integrity(path, checksum)
        except OSError:  # there, but it may not be read
            return False

    def is_readable(self, folder: Path) -> bool:
        """Check that all files that are read are in a folder."""
        return all(self.is_intact(folder / path, checksum) for path, checksum in self.extracted())

    def intact_archives(self, folder: Path) -> Iterator[str]:
        """Find the archives in a folder that are the publisher's, byte for byte, by their paths below it."""
        for path, checksum in self.archives():
            if self.is_intact(folder / path, checksum):
                yield path


@dataclass(frozen=True)
class TorchvisionSource(Source):
    """A data set of `torchvision.datasets`, by the name of its class there."""

    dataset: str

    @property
    def torchvision(self) -> Any:
        """The class of `torchvision.datasets`."""
        import torchvision.datasets  # only needed where something is prepared

        return getattr(torchvision.datasets, self.dataset)

    def fetch(self, folder: Path) -> None:
        """Let torchvision download and extract."""
        self.torchvision(folder, train=False, download=True)

    def read(self, folder: Path, split: str) -> tuple[Tensor, Tensor]:
        """Let torchvision read a split."""
        return convert(self.torchvision(folder, train=split == "train", download=False))


class IdxSource(TorchvisionSource):
    """MNIST and its relatives: gzipped idx files."""

    @property
    def address(self) -> str:
        """Where a person finds the publisher's files."""
        return self.torchvision.mirrors[0]

    def archives(self) -> list[tuple[str, str | None]]:
        """List the files as they are downloaded."""
        return [(f"{self.dataset}/raw/{name}", md5) for name, md5 in self.torchvision.resources]

    def extracted(self) -> list[tuple[str, str | None]]:
        """List the files that torchvision reads; it knows no MD5 of these."""
        return [(path.removesuffix(".gz"), None) for path, _ in self.archives()]


class CifarSource(TorchvisionSource):
    """CIFAR-10 and CIFAR-100: a tar file of pickled batches."""

    @property
    def address(self) -> str:
        """Where a person finds the publisher's files."""
        return self.torchvision.url

    def archives(self) -> list[tuple[str, str | None]]:
        """List the files as they are downloaded."""
        return [(self.torchvision.filename, self.torchvision.tgz_md5)]

    def extracted(self) -> list[tuple[str, str | None]]:
        """List the files that torchvision reads."""
        cifar = self.torchvision
        batches = [*cifar.train_list, *cifar.test_list, (cifar.meta["filename"], cifar.meta["md5"])]
        return [(f"{cifar.base_folder}/{name}", md5) for name, md5 in batches]


class SvhnSource(TorchvisionSource):
    """SVHN's cropped digits: one file of MATLAB for each split."""

    @property
    def address(self) -> str:
        """Where a person finds the publisher's files."""
        return self.torchvision.split_list["train"][0].rpartition("/")[0] + "/"

    def archives(self) -> list[tuple[str, str | None]]:
        """List the files as they are downloaded."""
        return [(self.torchvision.split_list[split][1], self.torchvision.split_list[split][2]) for split in SPLITS]

    def fetch(self, folder: Path) -> None:
        """Download what is missing; torchvision's own class would also read it all."""
        from torchvision.datasets.utils import download_url

        for split in SPLITS:
            url, filename, md5 = self.torchvision.split_list[split][:3]
            download_url(url, folder, filename, md5)

    def read(self, folder: Path, split: str) -> tuple[Tensor, Tensor]:
        """Let torchvision read a split; it turns the files' label 10 into 0."""
        data = self.torchvision(folder, split=split, download=False)
        return torch.from_numpy(np.ascontiguousarray(data.data)), torch.as_tensor(data.labels, dtype=torch.int64)


class NotMnistSource(Source):
    """notMNIST: gzipped idx files of a public repository, each known by its git blob SHA-1."""

    mirror: ClassVar[str] = "https://raw.githubusercontent.com/davidflanagan/notMNIST-to-MNIST/HEAD/"
    files: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": "6cf3076b36bafa7da1563b28bbe863fd78a008a8",
        "train-labels-idx1-ubyte.gz": "285bdaffe3b109c555b8d43ff6fe0373e7b2a3ff",
        "t10k-images-idx3-ubyte.gz": "5d531796d90741366f99a5381569a7aac18e63b0",
        "t10k-labels-idx1-ubyte.gz": "52b510386bbe3ed235d22fdd932b2351a461e835",
    }

    @property
    def address(self) -> str:
        """Where a person finds the publisher's files."""
        return self.mirror

    def archives(self) -> list[tuple[str, str | None]]:
        """List the files, which are read as they are downloaded, and their git blob SHA-1."""
        return [(f"notMNIST/raw/{name}", digest) for name, digest in self.files.items()]

    def is_intact(self, path: Path, checksum: str | None) -> bool:
        """Check that a file can be read and is the repository's."""
        try:
            return os.path.isfile(path) and git_blob_sha1(path) == checksum
        except OSError:
            return False

    def fetch(self, folder: Path) -> None:
        """Download what is missing; a RuntimeError refuses what is not the repository's."""
        from torchvision.datasets.utils import download_url

        for name, digest in self.archives():
            path = folder / name
            if self.is_intact(path, digest):
                continue
            path.unlink(missing_ok=True)  # torchvision keeps any file that is there
            download_url(self.mirror + path.name, path.parent, path.name)
            if not self.is_intact(path, digest):
                path.unlink(missing_ok=True)
                raise RuntimeError(f"{path.name} came corrupted: its git blob SHA-1 is not {digest}")

    def read(self, folder: Path, split: str) -> tuple[Tensor, Tensor]:
        """Read a split from gzipped idx files."""
        prefix = folder / "notMNIST" / "raw" / ("train" if split == "train" else "t10k")
        images, labels = (_read_idx(Path(f"{prefix}-{kind}-ubyte.gz")) for kind in ("images-idx3", "labels-idx1"))
        return images[:, None], labels.long()


class AmatSource(Source):
    """MNIST with background images: 785 numbers to a line, pixels in [0, 1] and a label.

    No checksum of the files is known, so they are never downloaded: the user who puts them there vouches for them. In
    which order the pixels of an image come is not said; they are read row by row.
    """

    downloadable = False

    @property
    def address(self) -> str:
        """Where a person finds the publisher's files."""
        return "mnist_background_images.zip, http://www.iro.umontreal.ca/~lisa/icml2007data/, unpacked"

    def archives(self) -> list[tuple[str, str | None]]:
        """List the files."""
        return [(f"mnist_background_images_{split}.amat", None) for split in SPLITS]

    def read(self, folder: Path, split: str) -> tuple[Tensor, Tensor]:
        """Read a split, pixels rounded to 256 levels; a ValueError where a line is not 784 of them and a label."""
        table = np.loadtxt(folder / f"mnist_background_images_{split}.amat", dtype=np.float32, ndmin=2)
        if table.shape[1] != 785:
            raise ValueError(f"its lines hold {table.shape[1]} numbers, not 784 pixels and a label")
        pixels, labels = table[:, :784], table[:, 784]
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # not a number fails this too
            raise ValueError(f"its pixels run from {pixels.min()} to {pixels.max()}, outside 0 to 1")
        if (labels != labels.astype(np.int64)).any():
            raise ValueError("its labels are not whole numbers")
        images = np.rint(pixels * 255).astype(np.uint8).reshape(-1, 1, 28, 28)
        return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


SOURCES: dict[str, Source] = {
    "mnist": IdxSource("MNIST"),
    "fashion_mnist": IdxSource("FashionMNIST"),
    "cifar10": CifarSource("CIFAR10"),
    "cifar100": CifarSource("CIFAR100"),
    "notmnist": NotMnistSource(),
    "svhn": SvhnSource("SVHN"),
    "mnist_background": AmatSource(),
}


def git_blob_sha1(path: Path) -> str:
    """Compute the name that git gives to a file's content: SHA-1 of ``blob <length>``, a zero byte and the content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def convert(dataset: Any) -> tuple[Tensor, Tensor]:
    """Convert what torchvision has, grey images (N, H, W) or colour images (N, H, W, 3), to (N, C, H, W) and labels."""
    images = torch.as_tensor(dataset.data)
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return images.contiguous(), torch.as_tensor(dataset.targets, dtype=torch.int64)


def _read_idx(path: Path) -> Tensor:
    content = gzip.decompress(path.read_bytes())
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy())

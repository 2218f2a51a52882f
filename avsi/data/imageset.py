"""A split of a data set in memory."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avsi.data.catalog import PUBLISHED
from avsi.data.errors import DataError

# A file is told apart by device, inode, size and time of change, so that one that was replaced is hashed anew.
FileKey = tuple[int, int, int, int]

_fingerprints: dict[FileKey, str] = {}


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and labels of one split.

    The tensors of a prepared file are private, copy-on-write views of it: nothing is read before it is used, all
    processes share the pages, and writing into a tensor changes the copy of this `ImageSet` alone, never the file nor
    another load of it. Do not count on such writes: clone what should change.

    Attributes:
        name: Name of the data set.
        split: "train" or "test".
        images: uint8, (N, C, H, W), values 0..255. A user's own may also be floats, and of any shape (N, ...).
        labels: int64, (N,), classes counted from 0.
        metadata: Where it comes from: ``source``, ``complete`` ("true" or "false"), ``note``.
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor
    metadata: dict[str, str]
    _file: FileKey | None = field(default=None, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def complete(self) -> bool:
        """Whether every image of the published split is here.

        The metadata must say so, and the number of images, of each class where that is published, must be right.
        """
        if self.metadata.get("complete") != "true":
            return False
        published = PUBLISHED.get(self.name)
        return published is None or published.is_whole(self.split, self.labels)

    def fingerprint(self) -> str:
        """Identify the pixels and labels.

        It depends on the shapes and bytes of `images` and `labels` alone, not on names or metadata: the same pixels
        from another source have the same fingerprint. It is computed once for each prepared file in a process; tensors
        that were written into through torch, or that come from elsewhere, are hashed on every call.

        Returns:
            SHA-256 in hexadecimal.
        """
        check_whole(self.images)
        if self._file is None or self.images._version or self.labels._version:
            return fingerprint(self.images, self.labels)
        if self._file not in _fingerprints:
            _fingerprints[self._file] = fingerprint(self.images, self.labels)
        return _fingerprints[self._file]


def mapped(
    name: str,
    split: str,
    images: Tensor,
    labels: Tensor,
    metadata: dict[str, str],
    path: Path,
    status: os.stat_result,
) -> ImageSet:
    """Make an `ImageSet` that remembers the file its tensors are mapped from, whose status identifies its content."""
    imageset = ImageSet(name, split, images, labels, metadata)
    file = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    images.mapped_from = path, file  # type: ignore[attr-defined]
    # Not a parameter of the constructor: `dataclasses.replace` must not carry it over to other tensors.
    object.__setattr__(imageset, "_file", file)
    return imageset


def check_whole(images: Tensor) -> None:
    """Raise a DataError if the file behind mapped images was cut short since."""
    # Reading pages that are no longer there ends a process with SIGBUS; whoever is about to read many looks first.
    path, (device, inode, size, _) = getattr(images, "mapped_from", (None, (0, 0, 0, 0)))
    if path is None:
        return
    try:
        now = os.stat(path)
    except OSError:  # removed: the mapping keeps its content
        return
    # A file that was replaced is another one, and the mapping keeps the old one.
    if (now.st_dev, now.st_ino) == (device, inode) and now.st_size < size:
        raise DataError(
            f"{path} was cut short from {size} to {now.st_size} bytes while it was in use. Delete it and run again: it "
            f"is then prepared anew."
        )


def fingerprint(images: Tensor, labels: Tensor) -> str:
    """Identify pixels and labels; see `ImageSet.fingerprint`."""
    floats = "" if images.dtype == torch.uint8 else f"{images.dtype} "
    digest = hashlib.sha256(f"{floats}{tuple(images.shape)} {tuple(labels.shape)}".encode())
    pixels = images.cpu().numpy()
    digest.update(np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<")).view(np.uint8).data)
    digest.update(np.ascontiguousarray(labels.cpu().numpy(), dtype="<i8").data)  # the same on every platform
    return digest.hexdigest()

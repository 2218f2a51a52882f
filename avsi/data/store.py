"""Prepared files: one safetensors file for each split, read by memory mapping and written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from avsi.data.catalog import PUBLISHED
from avsi.data.errors import DataError
from avsi.data.imageset import ImageSet, fingerprint, mapped


def prepared_path(root: Path, name: str, split: str) -> Path:
    """Say where the prepared file of a split lies."""
    return root / name / f"{split}.safetensors"


def is_there(path: Path) -> bool:
    """Check for a file, be it a link to nothing; one in a folder that may not be searched is a DataError."""
    try:
        path.lstat()
    except PermissionError as error:
        raise DataError(_forbidden(path, error)) from error
    except OSError:
        return False
    return True


def read(root: Path, name: str, split: str) -> ImageSet:
    """Map a prepared file into memory; a DataError where it is not what it must be."""
    # Of a file without a checksum only the header and the labels are read. One that has a checksum is read whole when
    # this process maps it for the first time, and compared with it (47 MB: 26 ms).
    path = prepared_path(root, name, split)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for ever
            raise DataError(_damaged(path, "it cannot be read (it is no regular file)"))
        path.open("rb").close()  # safetensors calls a file missing that may not be read
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            held = set(file.keys())
            tensors = {key: file.get_tensor(key) for key in ("images", "labels") if key in held}
    except DataError:
        raise
    except PermissionError as error:
        raise DataError(_forbidden(path, error)) from error
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise DataError(_damaged(path, f"it cannot be read ({error})")) from error

    problem = _find_metadata_problem(name, split, metadata)
    if problem is None and len(tensors) < 2:
        problem = f"it holds no {' and no '.join(sorted({'images', 'labels'} - tensors.keys()))}"
    if problem is None:
        problem = find_problem(name, tensors["images"], tensors["labels"])
    if problem is not None:
        raise DataError(_damaged(path, problem))

    about = {
        "source": "",
        "note": "",
        **{key: value for key, value in metadata.items() if key not in {"name", "split", "sha256"}},
    }
    found = mapped(name, split, tensors["images"], tensors["labels"], about, path, status)
    if "sha256" in metadata and found.fingerprint() != metadata["sha256"]:
        raise DataError(_damaged(path, "its images and labels are not those that were written to it (wrong checksum)"))
    return found


def write(path: Path, work: Path, images: Tensor, labels: Tensor, metadata: dict[str, str]) -> None:
    """Write a prepared file, whole or not at all, by way of the caller's own folder on the same file system."""
    metadata = metadata | {"sha256": fingerprint(images, labels)}
    part = work / f"{path.name}.part"
    with open(part, "wb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777  # what the umask grants; safetensors would write 0600
    save_file({"images": images.contiguous(), "labels": labels.contiguous()}, part, metadata=metadata)
    os.chmod(part, mode)
    _sync(part)
    os.replace(part, path)
    if os.name == "posix":
        _sync(path.parent)  # the new name reaches the disk too


def find_problem(name: str, images: Tensor, labels: Tensor) -> str | None:
    """Say why two tensors cannot be a split of a known data set; None if they can."""
    shape, classes = PUBLISHED[name].shape, PUBLISHED[name].classes
    if images.dtype != torch.uint8:
        return f"its images are {images.dtype}, not torch.uint8"
    if labels.dtype != torch.int64:
        return f"its labels are {labels.dtype}, not torch.int64"
    if images.ndim != 4 or tuple(images.shape[1:]) != shape:
        return f"its images have the shape {tuple(images.shape)}, not (N, {', '.join(map(str, shape))})"
    if labels.ndim != 1:
        return f"its labels have the shape {tuple(labels.shape)}, not (N,)"
    if len(images) != len(labels):
        return f"it has {len(images)} images but {len(labels)} labels"
    if len(labels) == 0:
        return "it holds no images"
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= classes:
        return f"its labels run from {lowest} to {highest}, outside 0 to {classes - 1}"
    return None


def _find_metadata_problem(name: str, split: str, metadata: dict[str, str]) -> str | None:
    for key, allowed in (("name", (name,)), ("split", (split,)), ("complete", ("true", "false"))):
        if metadata.get(key) not in allowed:
            return f"its metadata says {key} {metadata.get(key)!r}, not {' or '.join(map(repr, allowed))}"
    return None


def _damaged(path: Path, problem: str) -> str:
    return f"{path} is not a sound prepared file: {problem}. Delete it and run again: it is then prepared anew."


def _forbidden(path: Path, error: Exception) -> str:
    return (
        f"{path} may not be read ({error}). Give yourself the permission, or choose another folder by --data-root "
        f"FOLDER (dataset_root= in Python) or AVSI_DATA=FOLDER."
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

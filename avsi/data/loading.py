"""Load a data set by its name, obtaining it first where that is needed."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from avsi._arguments import check_flag
from avsi.data import preparing, store
from avsi.data.catalog import SPLITS, check_known
from avsi.data.digits import load_digits
from avsi.data.imageset import ImageSet


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Say where prepared files are kept.

    Args:
        root: A folder, or None for ``$AVSI_DATA`` or, where that is not set, ``avsi`` in the user's cache directory.

    Returns:
        The folder, which need not exist.

    Examples:
        >>> str(data_root("prepared"))
        'prepared'
    """
    chosen = root or os.environ.get("AVSI_DATA")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("avsi", appauthor=False)


def available(name: str, *, dataset_root: str | os.PathLike[str] | None = None) -> bool:
    """Check whether a data set can be loaded without a download.

    Args:
        name: One of `DATASETS`.
        dataset_root: Where prepared files are kept; see `data_root`.

    Returns:
        Whether both splits are prepared, or can be prepared from the user's files.

    Examples:
        >>> available("digits"), available("mnist", dataset_root="a folder that is not there")
        (True, False)
    """
    check_known(name, SPLITS[0])
    if name == "digits":
        return True
    folder = data_root(dataset_root)
    prepared = all(store.is_there(store.prepared_path(folder, name, split)) for split in SPLITS)
    return prepared or preparing.is_given(folder, name)


def load(
    name: str, split: str, *, dataset_root: str | os.PathLike[str] | None = None, download: bool = True
) -> ImageSet:
    """Load one split of a data set.

    ``digits`` is read from scikit-learn. The others are mapped from their prepared files. A data set that has none yet
    is prepared first, both splits at once, from the publisher's files in ``ROOT/<name>/source`` or, if they are not
    there, from a download. Any number of processes may do this at the same time; one of them does the work.

    Args:
        name: One of `DATASETS`.
        split: "train" or "test".
        dataset_root: Where prepared files are kept; see `data_root`.
        download: Whether missing files may be downloaded.

    Returns:
        The images and labels.

    Examples:
        >>> test = load("digits", "test")
        >>> test.images.shape, test.labels.shape
        (torch.Size([355, 1, 8, 8]), torch.Size([355]))
    """
    check_known(name, split)
    check_flag("download", download)
    if name == "digits":
        return load_digits(split)
    folder = data_root(dataset_root)
    if not store.is_there(store.prepared_path(folder, name, split)):
        preparing.prepare(folder, name, download=download)
    return store.read(folder, name, split)

"""Which data sets there are, and what the complete published ones look like."""

from __future__ import annotations

from dataclasses import dataclass

from avsi.data.errors import DataError

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Published:
    """A data set as its publisher gives it out.

    Attributes:
        shape: (C, H, W) of every image.
        counts: Images of each class in each split; the number of entries is the number of classes.
        source: Whose data set it is.
    """

    shape: tuple[int, int, int]
    counts: dict[str, tuple[int, ...]]
    source: str


PUBLISHED = {
    "digits": Published(
        shape=(1, 8, 8),
        counts={
            "train": (143, 146, 142, 147, 145, 146, 145, 144, 140, 144),
            "test": (35, 36, 35, 36, 36, 36, 36, 35, 34, 36),
        },
        source="Alpaydin, Kaynak; scikit-learn's load_digits",
    ),
    "mnist": Published(
        shape=(1, 28, 28),
        counts={
            "train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
            "test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
        },
        source="LeCun, Cortes, Burges",
    ),
    "fashion_mnist": Published(
        shape=(1, 28, 28), counts={"train": (6000,) * 10, "test": (1000,) * 10}, source="Xiao, Rasul, Vollgraf"
    ),
    "cifar10": Published(shape=(3, 32, 32), counts={"train": (5000,) * 10, "test": (1000,) * 10}, source="Krizhevsky"),
    "cifar100": Published(shape=(3, 32, 32), counts={"train": (500,) * 100, "test": (100,) * 100}, source="Krizhevsky"),
}

DATASETS: tuple[str, ...] = tuple(PUBLISHED)


def check_known(name: str, split: str) -> None:
    """Refuse a data set or a split that does not exist.

    Args:
        name: Name of a data set.
        split: "train" or "test".

    Raises:
        DataError: If either is unknown; the message lists the known ones.
    """
    if name not in PUBLISHED:
        raise DataError(f"unknown data set {name!r}; known are {', '.join(DATASETS)}")
    if split not in SPLITS:
        raise DataError(f"the data set {name!r} has no split {split!r}; there are {' and '.join(SPLITS)}")


def published_counts(name: str, split: str) -> tuple[int, ...]:
    """Count the images of each class in the complete published split.

    Args:
        name: One of `DATASETS`.
        split: "train" or "test".

    Returns:
        The number of images of class 0, 1, 2, ...

        >>> published_counts("mnist", "test")
        (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    """
    check_known(name, split)
    return PUBLISHED[name].counts[split]

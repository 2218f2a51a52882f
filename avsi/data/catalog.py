"""Which data sets there are, and what the complete published ones look like."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor

from avsi.data.errors import DataError

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Published:
    """A data set as its publisher gives it out.

    Attributes:
        shape: (C, H, W) of every image.
        source: Whose data set it is.
        counts: Images of each class in each split; empty where nobody publishes them.
        sizes: Images in each split, where there are no `counts`.
        classes: Number of classes, where there are no `counts`.
    """

    shape: tuple[int, int, int]
    source: str
    counts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    classes: int = 0

    def __post_init__(self) -> None:
        if self.counts:
            object.__setattr__(self, "sizes", {split: sum(counts) for split, counts in self.counts.items()})
            object.__setattr__(self, "classes", len(self.counts["train"]))

    def is_whole(self, split: str, labels: Tensor) -> bool:
        """Say whether there are as many labels as published, of each class where that is known."""
        if self.counts:
            return tuple(labels.bincount().tolist()) == self.counts.get(split)
        return len(labels) == self.sizes.get(split)


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
    "notmnist": Published(
        shape=(1, 28, 28),
        counts={"train": (6000,) * 10, "test": (1000,) * 10},
        source="Bulatov; 70,000 images in MNIST's format by Flanagan",
    ),
    "svhn": Published(
        shape=(3, 32, 32),
        counts={
            "train": (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659),
            "test": (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595),
        },
        source="Netzer, Wang, Coates, Bissacco, Wu, Ng; cropped digits",
    ),
    "mnist_background": Published(
        shape=(1, 28, 28),
        sizes={"train": 12_000, "test": 50_000},
        classes=10,
        source="Larochelle, Erhan, Courville, Bergstra, Bengio",
    ),
}

DATASETS: tuple[str, ...] = tuple(PUBLISHED)


def check_known(name: str, split: str) -> None:
    """Refuse a data set or a split that does not exist by a DataError that lists those that do."""
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

    Raises:
        DataError: If the data set or the split is unknown, or nobody publishes its counts.
    """
    check_known(name, split)
    if not PUBLISHED[name].counts:
        raise DataError(f"how many images of each class {name!r} has is not published; `published_size` is known")
    return PUBLISHED[name].counts[split]


def published_size(name: str, split: str, classes: Iterable[int] | None = None) -> int:
    """Count the images of some classes in the complete published split.

    Args:
        name: One of `DATASETS`.
        split: "train" or "test".
        classes: The classes; None: all of them.

    Returns:
        The number of images.

        >>> published_size("mnist", "test"), published_size("mnist", "test", [0, 1])
        (10000, 2115)

    Raises:
        DataError: If the data set, the split or a class is unknown, or nobody publishes the counts of classes.
    """
    check_known(name, split)
    published = PUBLISHED[name]
    known = set(range(published.classes))
    wanted = known if classes is None else set(classes)
    if not wanted <= known:
        raise DataError(f"{name!r} has no class {min(wanted - known)}; there are 0 to {published.classes - 1}")
    return published.sizes[split] if wanted == known else sum(published_counts(name, split)[c] for c in wanted)

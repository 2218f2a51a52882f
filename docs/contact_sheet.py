"""Look at a benchmark: the first images of every experience, as the model gets them, as one PNG.

    python docs/contact_sheet.py permuted_digits sheet.png
    python docs/contact_sheet.py mnist_background sheet.png --data-root FOLDER --no-download

A row for each experience: twelve training images, then eight test images, with their labels. No image data is kept in
this repository, so the sheets are made where the data are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import torch
import tyro
from matplotlib.axes import Axes

from avsi import scenarios

TRAIN, TEST = 12, 8


@dataclass(frozen=True)
class Sheet:
    """Draw the first images of every experience of a benchmark.

    Attributes:
        benchmark: Name of a builder of ``avsi.scenarios``.
        path: The PNG to write.
        seed: The benchmark's seed.
        datasets: For five_vision: the data sets, in order.
        data_root: Folder of prepared data sets.
        download: Whether missing data may be downloaded.
    """

    benchmark: Annotated[str, tyro.conf.Positional]
    path: Annotated[Path, tyro.conf.Positional]
    seed: int = 0
    datasets: tuple[str, ...] = ()
    data_root: Path | None = None
    download: bool = True


def spread(experience: Any, count: int) -> list[tuple[torch.Tensor, int]]:
    """Pick samples evenly from an experience."""
    data = experience.dataset
    return [data[i * len(data) // count][:2] for i in range(count)]


def show(axes: Axes, image: torch.Tensor, label: int) -> None:
    """Draw one image; normalised inputs are brought back to the range of a screen."""
    low, high = min(0.0, float(image.min())), max(1.0, float(image.max()))
    axes.imshow(((image - low) / (high - low)).permute(1, 2, 0), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(str(label), fontsize=7, pad=1)


def main(sheet: Sheet) -> None:
    """Make the sheet."""
    options = {"datasets": sheet.datasets} if sheet.datasets else {}
    builder = getattr(scenarios, sheet.benchmark)
    benchmark = builder(seed=sheet.seed, dataset_root=sheet.data_root, download=sheet.download, **options)
    rows = len(benchmark.train_stream)
    figure, axes = plt.subplots(rows, TRAIN + TEST, figsize=(0.6 * (TRAIN + TEST), 0.75 * rows), squeeze=False)
    for row, (train, test) in enumerate(zip(benchmark.train_stream, benchmark.test_stream, strict=True)):
        for column, (image, label) in enumerate(spread(train, TRAIN) + spread(test, TEST)):
            show(axes[row, column], image, label)
    for ax in axes.flat:
        ax.axis("off")
    figure.suptitle("; ".join([sheet.benchmark, f"seed {sheet.seed}", *benchmark.notes]), fontsize=8)
    figure.savefig(sheet.path, dpi=110)


if __name__ == "__main__":
    main(tyro.cli(Sheet, description=__doc__))

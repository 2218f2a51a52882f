"""Natural photographs: the sample pictures that come with scikit-learn and, where it is installed, scikit-image.

Nothing is downloaded. Which pictures there are depends on what is installed, so whoever uses them says which.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from avsi.data.imageset import ImageSet

SCIKIT_LEARN = ("china.jpg", "flower.jpg")
SCIKIT_IMAGE = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "motorcycle_left.png",
    "rocket.jpg",
)
TILE = 64


def load_photographs() -> tuple[ImageSet, ImageSet]:
    """Cut the photographs into tiles, so that training and test images share no pixel.

    Every fifth tile of a picture (index 4, 9, 14, ..., row by row) is a test image; what is left over at the right and
    lower edges is not used.

    Returns:
        Training and test tiles of (3, 64, 64), labelled by picture.
    """
    pictures = {name: _read("sklearn.datasets.images", name) for name in SCIKIT_LEARN}
    if find_spec("skimage"):
        there = [name for name in SCIKIT_IMAGE if _path("skimage.data", name).is_file()]
        pictures |= {name: _read("skimage.data", name) for name in there}
    # The name says which: results with other pictures are not to be taken for these.
    name = f"photographs ({', '.join(picture.partition('.')[0] for picture in pictures)})"
    metadata = {"source": "sample pictures of scikit-learn and scikit-image", "complete": "true", "note": ""}
    parts: dict[str, list[torch.Tensor]] = {"train": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    for label, picture in enumerate(pictures.values()):
        rows, columns = picture.shape[0] // TILE, picture.shape[1] // TILE
        tiles = picture[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE, 3)
        tiles = tiles.transpose(0, 2, 4, 1, 3).reshape(-1, 3, TILE, TILE)  # (tiles, C, H, W)
        for index, tile in enumerate(tiles):
            split = "test" if index % 5 == 4 else "train"
            parts[split].append(torch.from_numpy(tile))
            labels[split].append(label)
    train, test = (
        ImageSet(name, split, torch.stack(parts[split]), torch.tensor(labels[split]), metadata)
        for split in ("train", "test")
    )
    return train, test


def _path(package: str, name: str) -> Any:
    return files(package) / name


def _read(package: str, name: str) -> np.ndarray:
    # (H, W, 3), uint8; grey pictures have three equal channels.
    from PIL import Image  # comes with torchvision

    with _path(package, name).open("rb") as file:
        return np.array(Image.open(file).convert("RGB"))

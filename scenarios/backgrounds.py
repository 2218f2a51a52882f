"""Digits with natural images behind them.

The original MNIST with background images (Larochelle et al. 2007) put MNIST's digits on patches of twenty black and
white pictures that are not published. The rebuild follows its description with other natural images, photographs as a
rule: each digit lies on a patch of an image drawn at random, of which the position is drawn too, in shades of grey
(luma of ITU-R BT.601); at each pixel the brighter of digit and patch shows. Training digits lie on patches of training
images, test digits on patches of test images. Unlike the original, patches with little texture are not left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from avsi.data import ImageSet
from avsi.data.photographs import load_photographs
from avsi.scenarios import draws
from avsi.scenarios.build import Source
from avsi.scenarios.draws import Purpose

LUMA = (299, 587, 114)  # thousandths of red, green and blue
CHUNK = 4096  # images composed at once, which bounds the memory


def on_backgrounds(digits: str | Source, natural: str | Source, *, seed: int = 0) -> Source:
    """Put grey images on patches of natural images.

    Images that do not fit are a ValueError.

    Args:
        digits: What to put there, uint8, (N, 1, H, W), or the name of one of ``avsi.data``.
        natural: Where the patches are taken from, likewise: images of one or three channels, uint8, at least as large.
        seed: Decides the patches.

    Returns:
        The rebuilt data set, with the labels of ``digits``; its metadata says what it is made from.

    Examples:
        >>> from avsi.scenarios import Source, photographs
        >>> rebuilt = on_backgrounds(Source.load("digits"), photographs())
        >>> rebuilt.train.images.shape
        torch.Size([1442, 1, 8, 8])
    """
    draws.check_seed(seed)
    digits, natural = Source.of(digits), Source.of(natural)
    train = _compose(digits.train, natural.train, seed, 0)
    test = _compose(digits.test, natural.test, seed, 1)
    return Source(train, test, made_from=(digits, natural))


def photographs() -> Source:
    """Take the natural photographs that come with scikit-learn and, where it is installed, scikit-image.

    Returns:
        Colour tiles of 64 x 64 pixels; training and test tiles share no pixel. Its metadata names the pictures.

    Examples:
        >>> tuple(photographs().train.images.shape[1:])
        (3, 64, 64)
    """
    return Source(*load_photographs())


def upright(source: Source, like: Source) -> Source:
    """Turn images that were stored column by column, so that they stand as those of another data set do.

    The original files give 784 numbers for each image and do not say in which order. Their own mean images tell: read
    in the right order they resemble the mean images of the same digits in MNIST.

    Args:
        source: Images of (N, 1, S, S), read row by row.
        like: Upright images of the same classes and shape.

    Returns:
        ``source``, or all its images transposed.
    """
    wanted = _mean_images(like.test)
    mean = _mean_images(source.train)
    if float((mean * wanted).sum()) >= float((mean.mT * wanted).sum()):
        return source
    train, test = (
        ImageSet(part.name, part.split, part.images.mT.contiguous(), part.labels, part.metadata)
        for part in (source.train, source.test)
    )
    return Source(train, test, made_from=(source,))


def _compose(front: ImageSet, back: ImageSet, seed: int, key: int) -> ImageSet:
    for image_set in (front, back):
        if image_set.images.ndim != 4 or image_set.images.dtype != torch.uint8:
            raise ValueError(
                f"{image_set.name} has {image_set.images.dtype} of the shape {tuple(image_set.images.shape)}, not "
                f"uint8 images (N, C, H, W)"
            )
    count, (channels, height, width) = len(front), front.images.shape[1:]
    rows, columns = back.images.shape[2] - height + 1, back.images.shape[3] - width + 1
    if channels != 1 or back.images.shape[1] not in {1, 3} or rows < 1 or columns < 1:
        raise ValueError(
            f"{front.name} has images of the shape {tuple(front.images.shape[1:])}, {back.name} of "
            f"{tuple(back.images.shape[1:])}: grey images are needed, and backgrounds at least as large, grey or colour"
        )
    images = torch.empty_like(front.images)
    # For each digit: which image the patch is taken from, its top and its left edge.
    picked, top, left = (
        draws.below(bound, count, seed, Purpose.BACKGROUND, key, what)
        for what, bound in enumerate((len(back), rows, columns))
    )
    grey = torch.cat([_luma(images) for images in back.images.split(CHUNK)])
    for start in range(0, count, CHUNK):
        part = slice(start, start + CHUNK)
        y = top[part, None, None] + torch.arange(height)[:, None]
        x = left[part, None, None] + torch.arange(width)
        patches = grey[picked[part, None, None], y, x]
        images[part, 0] = torch.maximum(front.images[part, 0], patches)
    metadata = {
        "source": f"{front.name} on patches of {back.name}",
        "complete": "false",
        "note": f"rebuilt, background seed {seed}",
    }
    return ImageSet(f"{front.name} on {back.name}", front.split, images, front.labels, metadata)


def _luma(images: Tensor) -> Tensor:
    # (N, H, W), uint8, rounded to nearest; integers, so that every platform agrees.
    if images.shape[1] == 1:
        return images[:, 0]
    weighted = sum(weight * images[:, channel].int() for channel, weight in enumerate(LUMA))
    return ((torch.as_tensor(weighted) + 500) // 1000).to(torch.uint8)


def _mean_images(images: ImageSet) -> Tensor:
    # (classes, H, W), each less its own mean.
    means = torch.stack([images.images[images.labels == c, 0].double().mean(0) for c in images.labels.unique()])
    return means - means.mean((1, 2), keepdim=True)

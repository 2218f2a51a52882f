"""Data sets as uint8 tensors: obtained once, checked, kept in prepared files and memory-mapped from there.

    >>> from avsi.data import load
    >>> train = load("digits", "train")
    >>> train.images.shape, train.images.dtype
    (torch.Size([1442, 1, 8, 8]), torch.uint8)

`digits` comes with scikit-learn. Every other data set of `DATASETS` lies in
``ROOT/<name>/{train,test}.safetensors``; `data_root` says what ROOT is. What is missing is obtained through
torchvision (`notmnist`: from its public repository), or made from the publisher's files in ``ROOT/<name>/source``.
`mnist_background` is made from such files alone: nothing vouches for a download. Prepared files carry a checksum.

`avsi.data.transforms` makes inputs of whole batches of images: permuted, padded, repeated, normalised.
"""

from avsi.data.catalog import DATASETS, published_counts, published_size
from avsi.data.errors import DataError
from avsi.data.imageset import ImageSet
from avsi.data.loading import available, data_root, load
from avsi.data.transforms import Compose, Normalise, Pad, Permute, RepeatChannels

__all__ = [
    "DATASETS",
    "Compose",
    "DataError",
    "ImageSet",
    "Normalise",
    "Pad",
    "Permute",
    "RepeatChannels",
    "available",
    "data_root",
    "load",
    "published_counts",
    "published_size",
]

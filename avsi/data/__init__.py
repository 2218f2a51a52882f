"""Data sets as uint8 tensors: obtained once, checked, kept in prepared files and memory-mapped from there.

    >>> from avsi.data import load
    >>> train = load("digits", "train")
    >>> train.images.shape, train.images.dtype
    (torch.Size([1442, 1, 8, 8]), torch.uint8)

`digits` comes with scikit-learn. Every other data set of `DATASETS` lies in
``ROOT/<name>/{train,test}.safetensors``; `data_root` says what ROOT is. What is missing is obtained through
torchvision, or made from the publisher's files in ``ROOT/<name>/source``.
"""

from avsi.data.catalog import DATASETS, published_counts
from avsi.data.errors import DataError
from avsi.data.imageset import ImageSet
from avsi.data.loading import data_root, load

__all__ = ["DATASETS", "DataError", "ImageSet", "data_root", "load", "published_counts"]

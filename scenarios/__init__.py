"""Benchmark builders, one file per benchmark; importable as ``avsi.scenarios``.

Every builder returns an `ImageScenario`, an Avalanche benchmark with a ``train_stream``, a ``test_stream`` and, for
``validation`` > 0, a ``valid_stream``. The same arguments, seed included, give the same benchmark in every process. New
ones are put together from pieces that work on any data set:

    >>> from avsi.scenarios import Source, build, permute
    >>> benchmark = build(permute(Source.load("digits"), tasks=3, seed=1), task_labels=False)
    >>> len(benchmark.train_stream)
    3

`permute`, `imbalance`, `remove_at_random` and `sequence` make tasks, `build` makes a benchmark of tasks, and
`avsi.data.transforms` holds what happens to the pixels.
"""

from avsi.scenarios.backgrounds import on_backgrounds
from avsi.scenarios.build import ImageScenario, Source, Task, build
from avsi.scenarios.cifar_transfer import cifar_transfer
from avsi.scenarios.five_vision import five_vision
from avsi.scenarios.imbalanced_permuted_mnist import imbalanced_permuted_mnist
from avsi.scenarios.mnist_background import mnist_background
from avsi.scenarios.permuted_digits import permuted_digits
from avsi.scenarios.permuted_mnist import permuted_mnist
from avsi.scenarios.pieces import imbalance, permute, remove_at_random, sequence
from avsi.scenarios.split_cifar import split_cifar
from avsi.scenarios.split_digits import split_digits
from avsi.scenarios.split_mnist import split_mnist

__all__ = [
    "ImageScenario",
    "Source",
    "Task",
    "build",
    "cifar_transfer",
    "five_vision",
    "imbalance",
    "imbalanced_permuted_mnist",
    "mnist_background",
    "on_backgrounds",
    "permute",
    "permuted_digits",
    "permuted_mnist",
    "remove_at_random",
    "sequence",
    "split_cifar",
    "split_digits",
    "split_mnist",
]

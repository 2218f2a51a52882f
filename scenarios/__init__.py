"""Benchmark builders; importable as ``avsi.scenarios``.

Every builder returns an `ImageScenario`, an Avalanche benchmark with a ``train_stream``, a ``test_stream`` and, for
``validation`` > 0, a ``valid_stream``. The same arguments, seed included, give the same benchmark in every process.
They take Avalanche's words: ``n_experiences``, ``dataset_root``, ``train_transform``, ``eval_transform``,
``class_order``; and ``scenario``, where a benchmark can be read in several ways.

    >>> from avsi.scenarios import split_digits
    >>> benchmark = split_digits(5, scenario="domain")
    >>> benchmark.train_stream[3].classes_in_this_experience, benchmark.train_stream[3].task_label
    ([0, 1], 0)

New ones are put together from pieces that work on any data set, a user's own arrays included:

    >>> from avsi.scenarios import Source, build, permute
    >>> benchmark = build(permute(Source.load("digits"), tasks=3, seed=1), scenario="domain")
    >>> len(benchmark.train_stream)
    3

`permute`, `imbalance`, `remove_at_random` and `sequence` make tasks, `build` makes a benchmark of tasks, and
`avsi.data.transforms` holds what happens to the pixels.
"""

from avsi.scenarios.backgrounds import on_backgrounds, photographs
from avsi.scenarios.build import ImageScenario, Source, Task, build
from avsi.scenarios.cifar_transfer import cifar_transfer
from avsi.scenarios.five_vision import five_vision
from avsi.scenarios.imbalanced_permuted_mnist import imbalanced_permuted_mnist
from avsi.scenarios.mnist_background import mnist_background
from avsi.scenarios.permuted import permuted, permuted_digits, permuted_mnist
from avsi.scenarios.pieces import imbalance, permute, remove_at_random, sequence
from avsi.scenarios.splits import (
    split,
    split_cifar,
    split_cifar10,
    split_cifar100,
    split_digits,
    split_fashion_mnist,
    split_mnist,
)

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
    "permuted",
    "permuted_digits",
    "permuted_mnist",
    "photographs",
    "remove_at_random",
    "sequence",
    "split",
    "split_cifar",
    "split_cifar10",
    "split_cifar100",
    "split_digits",
    "split_fashion_mnist",
    "split_mnist",
]

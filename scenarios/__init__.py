"""Benchmark builders, one file per benchmark; importable as ``avsi.scenarios``."""

from avsi.scenarios.split_cifar import split_cifar
from avsi.scenarios.split_digits import split_digits
from avsi.scenarios.split_mnist import split_mnist

__all__ = ["split_cifar", "split_digits", "split_mnist"]

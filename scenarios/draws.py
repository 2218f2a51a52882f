"""Random draws that follow from a seed alone: the same in every process, on every platform, with every release.

Neither ``torch.randperm`` nor the methods of NumPy's ``Generator`` promise that (PyTorch excludes it across releases
and platforms; NumPy reserves the right to change distributions). What NumPy does promise never to change is the
integers that a ``SeedSequence`` and a ``PCG64`` produce (NEP 19), and the draws below use nothing else. No global
random state is read or written.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from avsi._arguments import check_count


class Purpose(IntEnum):
    """What is drawn; one seed gives independent draws for each purpose."""

    PERMUTATION = 0
    REMOVAL = 1
    CHOICE = 2
    BACKGROUND = 3
    VALIDATION = 4
    TEST_CHOICE = 5
    CLASS_ORDER = 6


def integers(count: int, seed: int, *key: int) -> np.ndarray:
    """Draw integers uniformly from 0 to 2**64 - 1.

    Args:
        count: How many.
        seed: The seed, not negative.
        *key: Which of the seed's independent streams: a `Purpose`, then task, class and so on.

    Returns:
        uint64, (count,).
    """
    return np.random.PCG64(np.random.SeedSequence(check_seed(seed), spawn_key=key)).random_raw(count)


def check_seed(seed: int, name: str = "seed") -> int:
    """Take a seed.

    Args:
        seed: A whole number of any library, not negative.
        name: What the argument is called.

    Returns:
        The seed.

    Raises:
        ValueError: If it is negative.
    """
    if isinstance(seed, int) and seed < 0:
        raise ValueError(f"{name} must not be negative, got {seed}")
    return check_count(name, seed, least=0)


def permutation(size: int, seed: int, *key: int) -> Tensor:
    """Draw a permutation.

    Args:
        size: How many numbers are permuted.
        seed: The seed, not negative.
        *key: See `integers`.

    Returns:
        The numbers from 0 to ``size - 1`` in random order, int64.
    """
    return torch.from_numpy(np.argsort(integers(size, seed, *key), kind="stable").astype(np.int64))


def uniform(count: int, seed: int, *key: int) -> Tensor:
    """Draw numbers uniformly from [0, 1).

    Args:
        count: How many.
        seed: The seed, not negative.
        *key: See `integers`.

    Returns:
        float64, (count,).
    """
    return torch.from_numpy((integers(count, seed, *key) >> np.uint64(11)) * 2.0**-53)


def below(bound: int, count: int, seed: int, *key: int) -> Tensor:
    """Draw integers uniformly from 0 to ``bound - 1``.

    Args:
        bound: One more than the largest, below 2**32.
        count: How many.
        seed: The seed, not negative.
        *key: See `integers`.

    Returns:
        int64, (count,).
    """
    high = integers(count, seed, *key) >> np.uint64(32)
    return torch.from_numpy(((high * np.uint64(bound)) >> np.uint64(32)).astype(np.int64))

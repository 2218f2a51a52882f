"""Means over the data of all processes of ``torch.distributed``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Means = dict[str, Tensor]


def mean_over_ranks(measure: Callable[[Iterable[Any]], Means], batches: Iterable[Any]) -> Means:
    """Measure means over this process's samples, and average them over processes, weighted with their samples.

    Args:
        measure: Computes means over the samples of batches, by parameter name.
        batches: Batches whose first item has the samples.

    Returns:
        The means over all samples, the same in every process. With one process, what ``measure`` returns.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return measure(batches)
    samples = 0

    def counted() -> Iterator[Any]:
        nonlocal samples
        for batch in batches:
            samples += len(batch[0])
            yield batch

    means = measure(counted())
    total = torch.tensor(float(samples), dtype=torch.float64, device=_device(means))
    dist.all_reduce(total)
    share = samples / float(total)
    for mean in means.values():
        mean.mul_(share)
        dist.all_reduce(mean)
    return means


def _device(means: Means) -> torch.device | str:
    return next((mean.device for mean in means.values()), "cpu")

"""Means over the data of all processes of ``torch.distributed``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

Means = dict[str, Tensor]


def mean_over_ranks(
    measure: Callable[..., Means], model: nn.Module | None, batches: Iterable[Any] | None, **options: Any
) -> Means:
    """Measure means over this process's samples, and average them over processes, weighted with their samples.

    Args:
        measure: Computes means over the samples of batches, by parameter name, from the model, the batches and options.
        model: The model.
        batches: Batches whose first item has the samples.
        **options: Further arguments of ``measure``.

    Returns:
        The means over all samples, the same in every process. With one process, what ``measure`` returns.

    Raises:
        TypeError: If there is no model, or there are no data.
    """
    if model is None or batches is None:
        raise TypeError("consolidate() needs the task's data: batches of (x, y) or (x, y, task_labels)")
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return measure(model, batches, **options)
    samples, data = 0, batches

    def counted() -> Iterator[Any]:
        nonlocal samples
        for batch in data:
            samples += len(batch[0])
            yield batch

    means = measure(model, counted(), **options)
    if not means:  # nothing is penalised, in no process
        return means
    total = torch.tensor(float(samples), dtype=torch.float64, device=_device(means))
    dist.all_reduce(total)
    share = samples / float(total)
    for mean in means.values():
        mean.mul_(share)
        dist.all_reduce(mean)
    return means


def _device(means: Means) -> torch.device | str:
    return next((mean.device for mean in means.values()), "cpu")

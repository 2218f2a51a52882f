"""Going through large tensors block by block, so that what several operations share is in a core's cache."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, get_num_threads

BLOCK = 1 << 16
"""Elements of a block per thread: a quarter megabyte of float32, of which several fit a core's second-level cache."""


class Blocks:
    """Cuts lists of tensors, each list of the same shapes, into blocks of rows; small tensors stay whole.

    Args:
        tensors: A list of the shapes.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        size = BLOCK * get_num_threads()
        self._rows = [_rows(tensor, size) for tensor in tensors]

    def cut(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Cut a list.

        Args:
            tensors: Tensors of the shapes that the blocks are for.

        Returns:
            Views, in order.
        """
        parts = ((t,) if not rows else t.split(rows) for t, rows in zip(tensors, self._rows, strict=True))
        return list(chain.from_iterable(parts))

    def scratch(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Make a tensor for results beside each block. All share their memory: each is good until the next is used.

        Args:
            tensors: Tensors of the shapes that the blocks are for, and of the results' dtypes.

        Returns:
            Tensors of the blocks' shapes on the CPU, with any values.
        """
        blocks = self.cut(tensors)
        sizes: dict[torch.dtype, int] = {}
        for block in blocks:
            sizes[block.dtype] = max(block.numel(), sizes.get(block.dtype, 0))
        shared = {dtype: torch.empty(size, dtype=dtype, device="cpu") for dtype, size in sizes.items()}
        return [shared[block.dtype][: block.numel()].view(block.shape) for block in blocks]


def _rows(tensor: Tensor, size: int) -> int:
    # As many as make up a block; 0 where the whole tensor is smaller than one.
    if tensor.numel() <= size:
        return 0
    return max(1, size // (tensor.numel() // len(tensor)))

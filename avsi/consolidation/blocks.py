"""Going through many tensors in few operations, and through large ones on CPUs block by block.

CPUs are bound by memory: what several operations share should be in a core's cache. GPUs are bound by the number of
operations, and so are small tensors anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, get_num_threads

BLOCK = 1 << 16
"""Elements of a block per thread: a quarter megabyte of float32, of which several fit a core's second-level cache."""


SMALL = 1 << 12
"""Elements up to which a tensor costs a CPU less time than calling operations on it from Python."""

Divided = tuple[list[Tensor], list[Tensor]]
"""Whole tensors, to be worked on all at once, and blocks, one after the other."""


class Blocks:
    """Divides lists of tensors, each list of the same shapes, into whole tensors and blocks.

    On CPUs large tensors are cut into blocks of rows, those that are smaller than a block are one, and small ones stay
    out of it. Elsewhere all do.

    Args:
        tensors: A list of the shapes.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        size = BLOCK * get_num_threads()
        in_blocks = all(tensor.device.type == "cpu" for tensor in tensors)
        self._whole = [index for index, t in enumerate(tensors) if not in_blocks or t.numel() <= SMALL]
        self._rows = [(i, _rows(t, size)) for i, t in enumerate(tensors) if in_blocks and t.numel() > SMALL]

    def divide(self, tensors: Sequence[Tensor]) -> Divided:
        """Divide a list.

        Args:
            tensors: Tensors of the shapes that the blocks are for.

        Returns:
            The whole ones, and views of the others, in order.
        """
        parts = [tensors[i].split(rows) if rows else (tensors[i],) for i, rows in self._rows]
        return [tensors[i] for i in self._whole], list(chain.from_iterable(parts))

    def scratch(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Make a tensor for results beside each block. All share their memory: each is good until the next is used.

        Args:
            tensors: Tensors of the shapes that the blocks are for, and of the results' dtypes.

        Returns:
            Tensors of the blocks' shapes on the CPU, with any values.
        """
        _, blocks = self.divide(tensors)
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

"""Going through lists of tensors block by block, so that what several operations share is in a core's cache."""

from __future__ import annotations

from itertools import chain

from torch import Tensor, get_num_threads

BLOCK = 1 << 17
"""Elements of a block per thread: half a megabyte of float32, of which a few fit a core's second-level cache."""


class Blocks:
    """Cuts lists of tensors, each list of the same shapes, into blocks.

    On a CPU, large tensors are cut along their first dimension and small ones are put together. Elsewhere all is one
    block: there the cost of a step is the number of operations.

    Args:
        tensors: A list of the shapes and the device.
    """

    def __init__(self, tensors: list[Tensor]) -> None:
        size = BLOCK * get_num_threads()
        self._rows = [_rows(tensor, size) if tensor.device.type == "cpu" else 0 for tensor in tensors]
        pieces = self._pieces(tensors)
        self._bounds = [0]
        filled = 0
        for position, piece in enumerate(pieces):
            if piece.device.type == "cpu" and filled and filled + piece.numel() > size:
                self._bounds.append(position)
                filled = 0
            filled += piece.numel()
        self._bounds.append(len(pieces))

    def cut(self, tensors: list[Tensor]) -> list[list[Tensor]]:
        """Cut a list.

        Args:
            tensors: Tensors of the shapes that the blocks are for.

        Returns:
            For each block, views of its tensors.
        """
        if len(self._bounds) == 2:  # a single block, of whole tensors
            return [tensors]
        pieces = self._pieces(tensors)
        return [pieces[a:b] for a, b in zip(self._bounds, self._bounds[1:], strict=False)]

    def _pieces(self, tensors: list[Tensor]) -> list[Tensor]:
        parts = ((t,) if not rows else t.split(rows) for t, rows in zip(tensors, self._rows, strict=True))
        return list(chain.from_iterable(parts))


def _rows(tensor: Tensor, size: int) -> int:
    # As many as make up a block; 0 where the whole tensor is smaller than one.
    if tensor.numel() <= size:
        return 0
    return max(1, size // (tensor.numel() // len(tensor)))

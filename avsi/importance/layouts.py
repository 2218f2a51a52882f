"""Which dimension of a tensor counts samples."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from avsi.importance.graph import Users, only_user


@dataclass(frozen=True)
class Layout:
    """Where samples are in a tensor.

    Attributes:
        axis: The dimension that counts them.
        order: Whether it counts samples "alone", or samples times places: "slow" samples, whose places are neighbours,
            or "fast" ones, which are neighbours at each place.
    """

    axis: int
    order: Literal["alone", "slow", "fast"] = "alone"

    def fits(self, tensor: Tensor, samples: int) -> bool:
        """Whether a tensor has the dimension, of a suitable length."""
        if tensor.dim() <= self.axis:
            return False
        length = tensor.shape[self.axis]
        return length == samples or (self.order != "alone" and length % samples == 0)

    def samples_first(self, tensor: Tensor, samples: int) -> Tensor:
        """(..., samples and places, ...) -> (samples, ..., places, ...)."""
        is_fast = self.order == "fast"
        return tensor.unflatten(self.axis, (-1, samples) if is_fast else (samples, -1)).movedim(self.axis + is_fast, 0)

    def is_seen(self, users: Users, node: Any, samples: int) -> bool:
        """Whether a view of a node's result, its one use, has samples and places in dimensions of their own."""
        user = only_user(users, node)
        if not user or user[0].name() not in {"ViewBackward0", "UnsafeViewBackward0"}:
            return False
        of_node, of_view = (n._input_metadata[0].shape[self.axis :] for n in (node, user[0]))
        places = of_node[0] // samples
        return tuple(of_view[:2]) == ((places, samples) if self.order == "fast" else (samples, places))


Seen = tuple[int, Tensor | None, Tensor | None]
"""A number of samples; the gradient of a result for the first one's outputs; the rows that went into it, if known."""


def find_layout(one: Seen, other: Seen) -> Layout | None:
    """Find where samples are in a result, from its computation for two numbers of them, the first ones being the same.

    Exactly one dimension must have grown with their number, and the gradient must reach the first sample only. Where
    there are places too, most gradients may be zero (behind a class token, say) and fit any order; so the rows that
    went into the result must be the same for the same samples in one order, and differ in the other.

    Args:
        one: What was seen with some samples.
        other: What was seen with another number of them.

    Returns:
        The layout, or None if it is not sure.
    """
    (n, gradient, rows), (m, other_gradient, other_rows) = one, other
    if gradient is None or other_gradient is None or gradient.dim() != other_gradient.dim():
        return None
    lengths = enumerate(zip(gradient.shape, other_gradient.shape, strict=True))
    grown = [(axis, a, b) for axis, (a, b) in lengths if a != b]
    if len(grown) != 1:
        return None
    ((axis, a, b),) = grown
    if any(r is not None and r.shape[axis : axis + 1] != (length,) for r, length in ((rows, a), (other_rows, b))):
        return None
    found = [Layout(axis)] if (a, b) == (n, m) else []
    if not found and a * m == b * n and rows is not None and other_rows is not None:
        orders, both = (Layout(axis, "slow"), Layout(axis, "fast")), min(n, m)
        pairs = [(o.samples_first(rows, n)[:both], o.samples_first(other_rows, m)[:both]) for o in orders]
        found = [
            o
            for o, (x, y) in zip(orders, pairs, strict=True)
            if (x - y).abs().max() <= rounding(x.dtype) * x.abs().max()
        ]
    if len(found) != 1 or reaches_beyond_first(found[0].samples_first(gradient, n)):
        return None
    return None if reaches_beyond_first(found[0].samples_first(other_gradient, m)) else found[0]


def reaches_beyond_first(gradient: Tensor | None) -> bool:
    """Whether a gradient is other than zero in other rows than the first."""
    return gradient is not None and reaches(gradient[1:])


def reaches(gradient: Tensor) -> bool:
    """Whether a gradient is other than zero somewhere."""
    # not a number arises from an infinite slope times the zero that reached it
    return bool(gradient.nan_to_num(0).any())


def rounding(*types: torch.dtype) -> float:
    """How much results that should be equal may differ, relative to the largest of them, in the coarsest of types."""
    return min(10 * max((torch.finfo(dtype).eps for dtype in types if dtype.is_floating_point), default=0) ** 0.5, 0.03)

"""Which dimension of a tensor counts samples."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Where samples are in a tensor.

    Attributes:
        axis: The dimension that counts them.
        order: Whether it counts samples alone, or samples times places: "slow" samples, whose places are neighbours, or
            "fast" ones, which are neighbours at each place.
    """

    axis: int
    order: Literal["alone", "slow", "fast"] = "alone"

    def fits(self, tensor: Tensor, samples: int) -> bool:
        """Say whether a tensor can have this layout.

        Args:
            tensor: The tensor.
            samples: Number of samples.

        Returns:
            Whether it has the dimension, of a suitable length.
        """
        length = tensor.shape[self.axis] if tensor.dim() > self.axis else -1
        return length == samples or (self.order != "alone" and length % samples == 0)

    def samples_first(self, tensor: Tensor, samples: int) -> Tensor:
        """Rearrange a tensor.

        Args:
            tensor: The tensor, which fits.
            samples: Number of samples.

        Returns:
            (samples, ...), with places where samples times places were.
        """
        is_fast = self.order == "fast"
        return tensor.unflatten(self.axis, (-1, samples) if is_fast else (samples, -1)).movedim(self.axis + is_fast, 0)


Seen = tuple[Tensor | None, Tensor | None]
"""The gradient of a result for the first sample's outputs, and the rows that a matrix was multiplied with, if any."""


def find_layout(of_two: Seen, of_three: Seen) -> Layout | None:
    """Find where samples are in a result, from its computation for two of them and for three.

    Exactly one dimension must have grown by half, and the gradient must reach the first sample only. Where there are
    places too, most gradients may be zero (behind a class token, say) and fit any order; so the rows that went into the
    result must be the same for the same samples in one order, and differ in the other.

    Args:
        of_two: What was seen with two samples.
        of_three: What was seen with a third one behind them.

    Returns:
        The layout, or None if it is not sure.
    """
    (two, rows_of_two), (three, rows_of_three) = of_two, of_three
    if two is None or three is None:
        return None
    sizes = list(zip(two.shape, three.shape, strict=False))
    grown = [axis for axis, (one, other) in enumerate(sizes) if one != other]
    if two.dim() != three.dim() or len(grown) != 1 or 3 * sizes[grown[0]][0] != 2 * sizes[grown[0]][1]:
        return None
    found = [Layout(grown[0])]
    if two.shape[grown[0]] > 2:
        if rows_of_two is None or rows_of_three is None:
            return None
        orders = Layout(grown[0], "slow"), Layout(grown[0], "fast")
        rows = [(o, o.samples_first(rows_of_two, 2), o.samples_first(rows_of_three, 3)[:2]) for o in orders]
        found = [o for o, one, other in rows if (one - other).abs().max() <= rounding(one.dtype) * other.abs().max()]
    if len(found) != 1 or reaches_beyond_first_row(found[0].samples_first(two, 2)):
        return None
    return None if reaches_beyond_first_row(found[0].samples_first(three, 3)) else found[0]


def reaches_beyond_first_row(gradient: Tensor | None) -> bool:
    """Say whether a gradient is other than zero in other rows than the first.

    Args:
        gradient: The gradient, if there is one.

    Returns:
        Whether it is.
    """
    # not a number arises from an infinite slope times the zero that reached it
    return gradient is not None and bool(gradient[1:].nan_to_num(0).any())


def rounding(*types: torch.dtype) -> float:
    """Bound the relative difference of equal results from different kernels.

    Args:
        types: The types of numbers that are involved.

    Returns:
        The bound for the coarsest of them.
    """
    return min(10 * max(torch.finfo(dtype).eps for dtype in types) ** 0.5, 0.03)

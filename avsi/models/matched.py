"""The control of the DHP paper: a linear layer with as many parameters as a DHP layer, all of them slow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from avsi._arguments import check_count
from avsi.hebbian import init_slow_weights
from avsi.importance.closed_forms import CLOSED_FORMS, ClosedForm, Grads, Phi, add_linear


class MatchedLinear(nn.Module):
    r"""Linear layer without bias and with two sets of slow weights: ``z = h (theta + theta')^T``.

    The DHP paper compares with networks that have "an extra set of slow weights" in the softmax layer, "to match the
    capacity" (section 4), and says no more. This takes it literally: the plastic part of a ``DHPLinear``,
    alpha * Hebb, is replaced by a second set of ordinary weights, initialised as the first and trained and
    consolidated like it. The number of parameters is that of ``DHPLinear``, but for its scalar eta. (With an eta per
    connection a ``DHPLinear`` has half as many again.)

    Args:
        in_features: Size of the features, m.
        out_features: Number of classes, d.
        device: Where the tensors are.
        dtype: Their type.

    Attributes:
        weight: theta, (out_features, in_features).
        extra_weight: theta', of the same shape.

    Raises:
        ValueError: If a size is not positive.
        TypeError: If a size is no whole number.

    Examples:
        >>> import torch
        >>> layer, h = MatchedLinear(3, 2), torch.rand(5, 3)  # one per task: MultiHead(3, head=MatchedLinear)
        >>> torch.allclose(layer(h), h @ (layer.weight + layer.extra_weight).T)
        True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = check_count("in_features", in_features)
        self.out_features = check_count("out_features", out_features)
        self.weight = nn.Parameter(torch.empty(self.out_features, self.in_features, device=device, dtype=dtype))
        self.extra_weight = nn.Parameter(torch.empty_like(self.weight))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw both sets of weights anew, as ``DHPLinear`` does its slow weights."""
        init_slow_weights(self.weight)
        init_slow_weights(self.extra_weight)

    def forward(self, h: Tensor) -> Tensor:
        """Compute the logits.

        Args:
            h: Features, (..., in_features).

        Returns:
            Logits, (..., out_features).
        """
        return linear(h, self.weight + self.extra_weight)

    def extra_repr(self) -> str:
        """Describe the layer.

        Returns:
            Its sizes.
        """
        return f"{self.in_features}, {self.out_features}"


def add_matched_linear(
    module: Any, inputs: Tensor, grads: Grads, phi: Phi, totals: Mapping[str, Tensor], workspace: int
) -> None:
    """Closed form of z = h (weight + extra_weight)^T: both have the gradient of a linear layer's weight.

    Args:
        module: The layer.
        inputs: Its input h, samples first.
        grads: Gradients of its output.
        phi: Square or absolute value.
        totals: What to add to: `weight` and/or `extra_weight`.
        workspace: Bytes of working memory.
    """
    both = torch.zeros_like(next(iter(totals.values())))
    add_linear(module, inputs, grads, phi, {"weight": both}, workspace)
    for total in totals.values():
        total.add_(both)


CLOSED_FORMS[MatchedLinear] = ClosedForm(
    add_matched_linear, ("weight", "extra_weight"), lambda module, inputs: inputs.dim() > 1
)

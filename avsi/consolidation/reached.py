"""The arithmetic of a step, on the parameters that a backward pass reached."""

from __future__ import annotations

import torch
from torch import Tensor

from avsi.consolidation.blocks import Blocks


class Reached:
    """The penalised parameters that a backward pass reached, beside a penalty's state for them, in the same order.

    Args:
        parameters: The parameters, at least one.
        importance: Omega.
        anchor: Anchors.
        further: Further lists of tensors.
    """

    def __init__(
        self, parameters: list[Tensor], importance: list[Tensor], anchor: list[Tensor], *further: list[Tensor]
    ) -> None:
        self.parameters = parameters
        self.further = further
        self._whole_importance = self._importance = importance
        self._anchor = anchor
        self._blocks: Blocks | None = None
        self._rates: list[float] = []
        self._shares: list[Tensor] = []
        if all(parameter.device.type == "cpu" for parameter in parameters):
            self._blocks = Blocks(parameters)
            self._importance, self._anchor = self._blocks.cut(importance), self._blocks.cut(anchor)
            self._displacement = self._blocks.scratch(parameters)

    def gradients(self) -> list[Tensor]:
        """Collect what stands in ``.grad`` now.

        Returns:
            The gradients.
        """
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def add_penalty(self, scale: float) -> None:
        """Add ``scale * Omega * (theta - anchor)`` to the gradients."""
        parameters, gradients = self.parameters, self.gradients()
        if self._blocks is None:  # GPUs are bound by the number of operations, and allocate at no cost
            displacements = torch._foreach_sub(parameters, self._anchor)
            torch._foreach_addcmul_(gradients, self._importance, displacements, value=scale)
            return
        # CPUs are bound by memory. Cut anew: gradients are new tensors in each step, parameters may have new storage.
        parameters, gradients = self._blocks.cut(parameters), self._blocks.cut(gradients)
        for theta, gradient, importance, anchor, displacement in zip(
            parameters, gradients, self._importance, self._anchor, self._displacement, strict=True
        ):
            torch.sub(theta, anchor, out=displacement)
            gradient.addcmul_(importance, displacement, value=scale)

    def pull(self, rates: list[float]) -> None:
        """Take the implicit step ``theta <- (theta + rate * Omega * anchor) / (1 + rate * Omega)``.

        Written as ``theta - rate * Omega / (1 + rate * Omega) * (theta - anchor)``, which leaves a parameter of
        importance 0 as it is, to the last bit.

        Args:
            rates: 2 * learning rate * strength, by parameter.
        """
        if rates != self._rates:  # as a rule once per task, or whenever a scheduler moves the learning rate
            weights = [rate * omega for rate, omega in zip(rates, self._whole_importance, strict=True)]
            shares = [weight.div_(weight + 1) for weight in weights]
            self._rates, self._shares = rates, self._blocks.cut(shares) if self._blocks else shares
        if self._blocks is None:
            displacements = torch._foreach_sub(self.parameters, self._anchor)
            torch._foreach_addcmul_(self.parameters, self._shares, displacements, value=-1)
            return
        for theta, share, anchor, displacement in zip(
            self._blocks.cut(self.parameters), self._shares, self._anchor, self._displacement, strict=True
        ):
            torch.sub(theta, anchor, out=displacement)
            theta.addcmul_(share, displacement, value=-1)

"""The arithmetic of a step, on the parameters that a backward pass reached."""

from __future__ import annotations

from operator import attrgetter, is_

import torch
from torch import Tensor

from avsi.consolidation.blocks import Blocks, Divided

GRADIENT = attrgetter("grad")  # half the time of ``parameter.grad`` in a loop, which shows with a hundred heads
TRAINABLE = attrgetter("requires_grad")


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
        self._all_importance = importance
        self._blocks = Blocks(parameters)
        self._importance, self._anchor = self._blocks.divide(importance), self._blocks.divide(anchor)
        self._displacement = self._blocks.scratch(parameters)
        self._rates: list[float] = []
        self._shares: Divided = ([], [])

    def gradients(self) -> list[Tensor]:
        """Collect what stands in ``.grad`` now.

        Returns:
            The gradients.
        """
        return [gradient for gradient in map(GRADIENT, self.parameters) if gradient is not None]

    @torch.no_grad()
    def add_penalty(self, scale: float) -> Added:
        """Add ``scale * Omega * (theta - anchor)`` to the gradients.

        Args:
            scale: 2 * strength.

        Returns:
            What was added to which gradients.
        """
        gradients = self.gradients()
        # Divided anew: gradients are new tensors in each step, parameters may have new storage.
        thetas, targets = self._blocks.divide(self.parameters), self._blocks.divide(gradients)
        self._add_displacement(thetas, targets, self._importance, scale)
        return Added(self, scale, gradients)

    @torch.no_grad()
    def pull(self, rates: list[float]) -> None:
        """Take the implicit step ``theta <- (theta + rate * Omega * anchor) / (1 + rate * Omega)``.

        Written as ``theta - rate * Omega / (1 + rate * Omega) * (theta - anchor)``, which leaves a parameter of
        importance 0 as it is, to the last bit.

        Args:
            rates: 2 * learning rate * strength, by parameter.
        """
        if rates != self._rates:  # as a rule once per task, or whenever a scheduler moves the learning rate
            weights = [rate * omega for rate, omega in zip(rates, self._all_importance, strict=True)]
            self._rates, self._shares = rates, self._blocks.divide([weight.div_(weight + 1) for weight in weights])
        thetas = self._blocks.divide(self.parameters)
        self._add_displacement(thetas, thetas, self._shares, -1.0)

    def _add_displacement(self, thetas: Divided, targets: Divided, factors: Divided, scale: float) -> None:
        """Add ``scale * factor * (theta - anchor)`` to the targets."""
        if thetas[0]:
            displacements = torch._foreach_sub(thetas[0], self._anchor[0])
            torch._foreach_addcmul_(targets[0], factors[0], displacements, value=scale)
        for theta, target, factor, anchor, displacement in zip(
            thetas[1], targets[1], factors[1], self._anchor[1], self._displacement, strict=True
        ):
            torch.sub(theta, anchor, out=displacement)
            target.addcmul_(factor, displacement, value=scale)


class Added:
    """A penalty that was added to gradients.

    Args:
        reached: The parameters.
        scale: 2 * strength.
        gradients: Their gradients.
    """

    def __init__(self, reached: Reached, scale: float, gradients: list[Tensor]) -> None:
        self._reached, self._scale, self._gradients = reached, scale, gradients
        self.renew()

    def renew(self) -> None:
        """Take the gradients as they are now for what they were made."""
        self._version = self._gradients[0]._version

    def is_intact(self) -> bool:
        """Tell whether the gradients are as they were made: not set to zero, clipped or replaced since.

        Returns:
            Whether they are.
        """
        present = map(GRADIENT, self._reached.parameters)
        return self._gradients[0]._version == self._version and all(map(is_, present, self._gradients))

    def take_back(self) -> None:
        """Subtract it again, if they are intact."""
        if self.is_intact():
            self._reached.add_penalty(-self._scale)

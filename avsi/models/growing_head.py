"""Single output layer that grows with the classes of a stream."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from avalanche.models import DynamicModule
from torch import Tensor, nn

from avsi._arguments import check_count, check_number
from avsi.importance.estimators import MASK
from avsi.models.multi_head import check_rows, keep_old_classes, number_of_classes


class GrowingHead(DynamicModule):
    """One output layer for a class-incremental stream: Avalanche's ``IncrementalClassifier`` with any kind of head.

    It grows when Avalanche adapts the model to an experience with labels that it has no outputs for, in training and
    in evaluation; old outputs keep their weights, and in a ``DHPLinear`` their traces. Outputs whose class has not
    been trained on yet are masked: they hold a constant, so that they take no part in softmax or loss and cannot win.
    ``load_state_dict`` grows it too: load before an optimizer is made of the parameters.

    Args:
        in_features: Size of the features, at least 1.
        head: Builds the head, called as ``head(in_features, number_of_classes)``; see ``MultiHead``.
        initial_classes: Number of outputs to begin with.
        mask_value: The constant, as in ``IncrementalClassifier``; None masks nothing.

    Attributes:
        head: The head.
        seen: Which classes have been trained on, (classes,).

    Raises:
        ValueError: If a size is not positive, the mask's value is not finite, or the head has hidden layers.
        TypeError: If a size is no whole number, or the mask's value no number.

    Examples:
        >>> import torch
        >>> from avsi.scenarios import split_digits
        >>> head = GrowingHead(16)  # in an MLP: MLP(64, (16,), head=GrowingHead)
        >>> for experience in split_digits(scenario="class").train_stream[:3]:  # 0/1, 2/3, 4/5
        ...     head.adaptation(experience)  # in training a strategy does it
        ...     print(tuple(head(torch.rand(4, 16)).shape))
        (4, 2)
        (4, 4)
        (4, 6)
    """

    def __init__(
        self,
        in_features: int,
        head: Callable[[int, int], nn.Module] = nn.Linear,
        *,
        initial_classes: int = 2,
        mask_value: float | None = MASK,
    ) -> None:
        super().__init__()
        self.in_features = check_count("in_features", in_features)
        self.make_head = head
        if mask_value is not None:
            mask_value = check_number("mask_value", mask_value, "a finite number or None", math.isfinite)
        self.mask_value = mask_value
        initial_classes = check_count("initial_classes", initial_classes)
        self.head = head(self.in_features, initial_classes)
        check_rows(self.head, initial_classes)
        self.register_buffer("seen", torch.zeros(initial_classes, dtype=torch.bool))
        self.seen: Tensor

    def adaptation(self, experience: Any) -> None:
        """Grow to the experience's classes.

        Args:
            experience: An Avalanche experience.
        """
        super().adaptation(experience)
        classes = [int(label) for label in experience.classes_in_this_experience]
        self.resize(max(classes) + 1)
        if self.training:
            self.seen[classes] = True

    @torch.no_grad()
    def resize(self, classes: int) -> None:
        """Make sure that there are at least so many outputs.

        Args:
            classes: The number of classes wanted, at least 1.
        """
        classes = check_count("classes", classes)
        if number_of_classes(self.head) >= classes:
            return
        placement = next(self.head.parameters())
        new = self.make_head(self.in_features, classes).to(placement).train(self.head.training)
        keep_old_classes(self.head, new)
        self.head = new
        seen = self.seen.new_zeros(classes)
        seen[: len(self.seen)] = self.seen
        self.seen = seen

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits.

        Args:
            x: Features, (N, in_features).

        Returns:
            Logits, (N, classes).
        """
        logits = self.head(x)
        return logits if self.mask_value is None else logits.masked_fill(~self.seen, self.mask_value)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The state of a larger head: grow to it, or what follows would refuse it.
        seen = state_dict.get(f"{prefix}seen")
        if seen is not None:
            self.resize(len(seen))
        super()._load_from_state_dict(state_dict, prefix, *args)

"""A feature extractor with a head on top, single or one per task."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from avalanche.models import MultiTaskModule
from torch import Tensor, nn

from avsi._arguments import check_count
from avsi.models.initialisation import Initialise
from avsi.models.multi_head import MultiHead, call_with_targets

Head = int | Callable[[int], nn.Module]
UNSPECIFIED: Any = object()


class HeadedModel(MultiTaskModule):
    """Features and a head. Task labels reach the head if it takes them; a single head ignores them.

    Args:
        features: Maps a batch of inputs to features, (N, feature_size).
        feature_size: Size of the features.
        head: Number of classes of a single ``nn.Linear`` head, or what builds the head from the size of the features,
            such as ``MultiHead``, ``functools.partial(MultiHead, head=DHPLinear)``, ``GrowingHead``, or
            ``functools.partial(DHPLinear, out_features=10)``.
        init: Initialises each layer of the features, see ``avsi.models.initialisation``; default: PyTorch's own.

    Raises:
        ValueError: If ``head`` is a number that is not positive.
        TypeError: If ``head`` is neither a whole number nor a function.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from torch import nn
        >>> from avsi.models import DHPLinear
        >>> features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten())  # (N, 1, 8, 8) to (N, 4 * 6 * 6)
        >>> model = HeadedModel(features, 4 * 6 * 6, head=partial(DHPLinear, out_features=10))
        >>> model(torch.rand(5, 1, 8, 8), targets=torch.tensor([0, 1, 2, 3, 4])).shape
        torch.Size([5, 10])
    """

    def __init__(self, features: nn.Module, feature_size: int, head: Head, init: Initialise | None = None) -> None:
        super().__init__()
        self.features = features if init is None else features.apply(init)
        if isinstance(head, nn.Module):
            raise TypeError(
                f"head must be a number of classes, or a function that builds the head from the size of the features, "
                f"such as MultiHead or partial(DHPLinear, out_features=10); got a {type(head).__name__} that is built"
            )
        if not callable(head):
            head = partial(nn.Linear, out_features=check_count("head, as a number of classes,", head))
        self.head = head(feature_size)

    def adaptation(self, experience: Any) -> None:
        """Take note of an experience's tasks and classes, where there is a head per task.

        Args:
            experience: The experience; for a single head it need not tell its tasks and classes.
        """
        if isinstance(self.head, MultiTaskModule):
            super().adaptation(experience)

    def forward(
        self, x: Tensor, task_labels: Tensor | int | None = UNSPECIFIED, targets: Tensor | None = None
    ) -> Tensor | dict[int, Tensor]:
        """Compute the logits.

        Args:
            x: Inputs, (N, ...).
            task_labels: Task label of each sample, (N,), or one for all. A single head ignores them. None asks for the
                outputs of every task in a dict, as Avalanche's multi-task modules do; a single head counts as task 0.
            targets: Class of each sample, (N,), for heads that take them in training, such as ``DHPLinear``.

        Returns:
            Logits, (N, classes), or a dict of them by task.
        """
        features = self.features(x)
        if isinstance(self.head, MultiTaskModule):
            labels = None if task_labels is UNSPECIFIED else task_labels
            if isinstance(self.head, MultiHead):
                return self.head(features, labels, targets)
            return self.head(features, labels)
        logits = call_with_targets(self.head, features, targets)
        return {0: logits} if task_labels is None else logits

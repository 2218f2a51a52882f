"""Multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from avsi._arguments import check_count, check_number
from avsi.models.headed import Head, HeadedModel
from avsi.models.initialisation import Initialise


class MLP(HeadedModel):
    """Multi-layer perceptron with ReLU units, the network of the papers' MNIST benchmarks.

    Args:
        in_features: Number of inputs; an input of any shape is flattened to it.
        hidden: Sizes of the hidden layers, e.g. ``(256, 256)``.
        head: Number of classes, or what builds the head; see :class:`HeadedModel`.
        dropout: Probability of dropping a hidden unit, in [0, 1).
        init: Initialises the hidden layers; see :class:`HeadedModel`.

    Raises:
        ValueError: If a size is not positive or the probability is out of range.
        TypeError: If a size is no whole number, or the probability no number.

    Examples:
        >>> import torch
        >>> from avsi.models import MultiHead
        >>> x = torch.rand(5, 1, 8, 8)
        >>> MLP(64, (32,), head=10)(x).shape  # one head for all tasks
        torch.Size([5, 10])
        >>> model = MLP(64, (32,), head=MultiHead)
        >>> model.head.resize(task=3, classes=2)  # in Avalanche a strategy does it
        >>> model(x, task_labels=3).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        head: Head = 10,
        *,
        dropout: float = 0.0,
        init: Initialise | None = None,
    ) -> None:
        sizes = [check_count("in_features", in_features), *(check_count("a hidden layer's size", h) for h in hidden)]
        dropout = check_number("dropout", dropout, "in [0, 1)", lambda value: 0 <= value < 1)
        layers: list[nn.Module] = [nn.Flatten()]
        for size, next_size in pairwise(sizes):
            layers += [nn.Linear(size, next_size), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        super().__init__(nn.Sequential(*layers), sizes[-1], head, init)

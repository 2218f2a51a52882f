"""The papers' convolutional networks."""

from __future__ import annotations

import math

from torch import nn

from avsi._arguments import check_number
from avsi.models.headed import Head, HeadedModel
from avsi.models.initialisation import Initialise
from avsi.models.multi_head import MultiHead


class SplitCIFARNet(HeadedModel):
    """The network of Zenke et al. (2017) for split CIFAR-10/100 (their appendix; Keras's CIFAR-10 example).

    Two blocks of two 3x3 convolutions (the first padded, the second not), 2x2 max pooling and dropout 0.25, with 32 and
    64 channels; a fully connected layer of 512 with dropout 0.5; ReLU throughout. Inputs are (N, 3, 32, 32).

    Args:
        head: Number of classes, or what builds the head; see :class:`HeadedModel`. Default: one head per task.
        init: Initialises the hidden layers; see :class:`HeadedModel`.

    Raises:
        ValueError: If ``head`` is a number that is not positive.
        TypeError: If ``head`` is neither a whole number nor a function.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from avsi.models import MultiHead, glorot_uniform, zero_linear
        >>> model = SplitCIFARNet(partial(MultiHead, head=zero_linear), init=glorot_uniform)  # as in the paper's code
        >>> model.head.resize(task=0, classes=10)  # in Avalanche a strategy does it
        >>> model(torch.rand(2, 3, 32, 32), task_labels=0).shape
        torch.Size([2, 10])
    """

    def __init__(self, head: Head = MultiHead, *, init: Initialise | None = None) -> None:
        features = nn.Sequential(
            *self._block(3, 32),
            *self._block(32, 64),
            nn.Flatten(),
            nn.Linear(64 * 6 * 6, 512),
            nn.ReLU(),
            nn.Dropout(0.5),
        )
        super().__init__(features, 512, head, init)

    @staticmethod
    def _block(channels_in: int, channels: int) -> list[nn.Module]:
        return [
            nn.Conv2d(channels_in, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.25),
        ]


class VisionMixtureNet(HeadedModel):
    """The network of the DHP paper for the vision datasets mixture (section 4.4, appendix A.4).

    Two 5x5 convolutions with padding 1 and 20 and 50 channels, each followed by LeakyReLU and 2x2 max pooling, and a
    fully connected layer of 500 with LeakyReLU. Inputs are (N, 3, 32, 32).

    The paper contradicts itself. Its prose has two convolutions and a slope of 0.3, its Table 3 a third convolution of
    50 channels with pooling, and 0.2. This is the prose's network, which is also that of the works the paper follows
    (Ritter et al. 2018, Zeno et al. 2018); padding, and the LeakyReLU after the fully connected layer, on which the
    prose is silent, are Table 3's.

    Args:
        head: Number of classes, or what builds the head; see :class:`HeadedModel`. Default: one head per task.
        slope: Slope of LeakyReLU for negative inputs, at least 0.
        dropout: Probability of dropping a unit of the fully connected layer, in [0, 1); the paper has none.
        init: Initialises the hidden layers; see :class:`HeadedModel`.

    Raises:
        ValueError: If the slope or the probability is out of range, or ``head`` a number that is not positive.
        TypeError: If one of the first two is no number, or ``head`` neither a whole number nor a function.

    Examples:
        >>> import torch
        >>> VisionMixtureNet(head=10, slope=0.2)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self, head: Head = MultiHead, *, slope: float = 0.3, dropout: float = 0.0, init: Initialise | None = None
    ) -> None:
        slope = check_number("slope", slope, "finite and at least 0", lambda value: 0 <= value < math.inf)
        dropout = check_number("dropout", dropout, "in [0, 1)", lambda value: 0 <= value < 1)
        layers: list[nn.Module] = []
        for channels_in, channels in ((3, 20), (20, 50)):
            layers += [nn.Conv2d(channels_in, channels, 5, padding=1), nn.LeakyReLU(slope), nn.MaxPool2d(2)]
        layers += [nn.Flatten(), nn.Linear(50 * 6 * 6, 500), nn.LeakyReLU(slope)]
        if dropout:
            layers.append(nn.Dropout(dropout))
        super().__init__(nn.Sequential(*layers), 500, head, init)

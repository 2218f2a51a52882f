"""The papers' convolutional networks."""

from __future__ import annotations

from torch import nn

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

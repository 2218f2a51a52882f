"""Initialisations that differ from PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

Initialise = Callable[[nn.Module], None]
"""Initialises one layer in place; given to ``nn.Module.apply``."""


def glorot_uniform(layer: nn.Module) -> None:
    """Initialise a linear or convolutional layer as Keras does: weights U(-a, a) with a = sqrt(6 / (fan_in + fan_out)).

    Biases become 0; other layers are left alone. It is what the code of Zenke et al. (2017) uses in hidden layers,
    PyTorch's own draws smaller weights.

    Args:
        layer: The layer, changed in place.

    Examples:
        >>> from avsi.models import MLP
        >>> hidden = MLP(64, (32,), init=glorot_uniform).features[1]
        >>> bool(hidden.weight.abs().max() <= (6 / (64 + 32)) ** 0.5), hidden.bias.any().item()
        (True, False)
    """
    if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def zero_linear(in_features: int, out_features: int) -> nn.Linear:
    """Make a linear layer of zeros, as the output layers in the code of Zenke et al. (2017).

    Args:
        in_features: Size of the input.
        out_features: Size of the output.

    Returns:
        The layer.

    Examples:
        >>> import torch
        >>> zero_linear(3, 2)(torch.rand(1, 3)).tolist()  # a head per task: partial(MultiHead, head=zero_linear)
        [[0.0, 0.0]]
    """
    layer = nn.Linear(in_features, out_features)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def glorot_linear(in_features: int, out_features: int) -> nn.Linear:
    """Make a linear layer as Keras does by default: Glorot uniform weights and biases of 0.

    Args:
        in_features: Size of the input.
        out_features: Size of the output.

    Returns:
        The layer.

    Examples:
        >>> layer = glorot_linear(4, 2)
        >>> bool(layer.weight.abs().max() <= 1), layer.bias.tolist()  # sqrt(6 / (4 + 2))
        (True, [0.0, 0.0])
    """
    layer = nn.Linear(in_features, out_features)
    glorot_uniform(layer)
    return layer

"""Parts of plasticity.py: a DHP layer with something taken out, and an optimizer that treats eta apart."""

from collections.abc import Iterable

from torch import nn
from torch.optim import SGD

from avsi.models import DHPLinear


def sgd_with_rate_of_eta(parameters: Iterable[nn.Parameter], lr: float, eta_lr: float) -> SGD:
    """Make plain SGD with a learning rate of its own for eta, the network's only scalar parameter.

    Args:
        parameters: The network's parameters.
        lr: Learning rate of all others.
        eta_lr: Learning rate of eta.

    Returns:
        The optimizer.
    """
    known = list(parameters)
    groups = [
        {"params": [parameter for parameter in known if parameter.dim()]},
        {"params": [parameter for parameter in known if not parameter.dim()], "lr": eta_lr},
    ]
    return SGD(groups, lr=lr, fused=True)


def dhp_without(in_features: int, *, alpha: bool = True, eta: float = 0.001) -> DHPLinear:
    """Make a DHP layer with a part of its plasticity taken out.

    Args:
        in_features: Size of the features.
        alpha: Whether it has plasticity coefficients; else they stay at 0.
        eta: Rate of the traces, which is not trained.

    Returns:
        The layer, with ten classes.
    """
    layer = DHPLinear(in_features, 10, eta=eta)
    layer.eta.requires_grad_(False)
    if not alpha:
        nn.init.zeros_(layer.alpha)
        layer.alpha.requires_grad_(False)
    return layer

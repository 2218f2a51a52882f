"""Parts of plasticity.py and output_layer.py: output layers with something taken out, and eta treated apart."""

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import SGD

from avsi.hebbian import init_slow_weights
from avsi.models import DHPLinear, MatchedLinear


def sgd_with_rate_of_eta(parameters: Iterable[nn.Parameter], lr: float, eta_lr: float) -> SGD:
    """Make plain SGD with a learning rate of its own for eta, the network's only scalar parameter."""
    known = list(parameters)
    groups = [
        {"params": [parameter for parameter in known if parameter.dim()]},
        {"params": [parameter for parameter in known if not parameter.dim()], "lr": eta_lr},
    ]
    return SGD(groups, lr=lr, fused=True)


def dhp_without(in_features: int, *, alpha: bool = True, eta: float = 0.001) -> DHPLinear:
    """Make a DHP layer of ten classes whose eta is not trained, and whose coefficients stay at 0 without alpha."""
    layer = DHPLinear(in_features, 10, eta=eta)
    layer.eta.requires_grad_(False)
    if not alpha:
        nn.init.zeros_(layer.alpha)
        layer.alpha.requires_grad_(False)
    return layer


def slow_linear(in_features: int, out_features: int) -> nn.Linear:
    """Make a linear layer without bias that starts as the slow weights of a DHP layer do."""
    layer = nn.Linear(in_features, out_features, bias=False)
    init_slow_weights(layer.weight)
    return layer


def plain_sets(in_features: int, out_features: int) -> MatchedLinear:
    """Make a layer with two sets of weights without bias, each of which starts as those of torch's Linear do."""
    layer = MatchedLinear(in_features, out_features)
    for weight in layer.parameters():
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
    return layer

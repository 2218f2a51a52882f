import math

import pytest
import torch
from torch import nn

from avsi.models import MLP, MultiHead, SplitCIFARNet, glorot_uniform, zero_linear


@pytest.mark.parametrize("layer", [nn.Linear(300, 200), nn.Conv2d(16, 32, 3), nn.Conv1d(30, 40, 5)])
def test_glorot_uniform_fills_its_range_evenly(layer):
    torch.manual_seed(0)
    glorot_uniform(layer)
    window = layer.weight[0, 0].numel()
    bound = math.sqrt(6 / (window * (layer.weight.shape[0] + layer.weight.shape[1])))
    assert layer.weight.abs().max() <= bound
    assert layer.weight.abs().max() > 0.99 * bound
    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    assert (layer.bias == 0).all()


def test_models_initialise_their_hidden_layers_with_it_and_leave_heads_alone():
    for model in (MLP(64, (32, 32), MultiHead, init=glorot_uniform), SplitCIFARNet(init=glorot_uniform)):
        hidden = [layer for layer in model.features if isinstance(layer, nn.Linear | nn.Conv2d)]
        assert all((layer.bias == 0).all() for layer in hidden)
        model.head.resize(0, 2)
        assert (model.head.heads["0"].bias != 0).all()


def test_zero_linear():
    layer = zero_linear(5, 3)
    assert layer.weight.shape == (3, 5)
    assert all((parameter == 0).all() for parameter in layer.parameters())

from functools import partial

import pytest
import torch
from oracles import importance as oracle_importance
from torch import nn
from training import default_dtype

from avsi import fisher_diagonal
from avsi.models import DHPLinear, MatchedLinear, MultiHead, VisionMixtureNet, glorot_uniform


def shapes(model, x):
    """Channels, or features, and their extent after each layer."""
    seen = []
    for layer in model.features:
        x = layer(x)
        seen.append((type(layer).__name__, tuple(x.shape[1:])))
    return seen


def test_layers_are_those_of_the_papers_prose():
    assert shapes(VisionMixtureNet(10), torch.zeros(2, 3, 32, 32)) == [
        ("Conv2d", (20, 30, 30)),
        ("LeakyReLU", (20, 30, 30)),
        ("MaxPool2d", (20, 15, 15)),
        ("Conv2d", (50, 13, 13)),
        ("LeakyReLU", (50, 13, 13)),
        ("MaxPool2d", (50, 6, 6)),
        ("Flatten", (1800,)),
        ("Linear", (500,)),
        ("LeakyReLU", (500,)),
    ]


def test_number_of_parameters():
    model = VisionMixtureNet()
    for task in range(5):
        model.head.resize(task, 10)
    convolutions = (3 * 25 + 1) * 20 + (20 * 25 + 1) * 50
    assert sum(p.numel() for p in model.parameters()) == convolutions + (1800 + 1) * 500 + 5 * (500 + 1) * 10


@pytest.mark.parametrize("slope", [0.3, 0.2])
def test_slope_is_that_of_every_nonlinearity(slope):
    model = VisionMixtureNet(10) if slope == 0.3 else VisionMixtureNet(10, slope=slope)
    leaky = [layer for layer in model.features if isinstance(layer, nn.LeakyReLU)]
    assert [layer(torch.tensor([-1.0, 2.0])).tolist() for layer in leaky] == [pytest.approx([-slope, 2.0])] * 3


def test_dropout_is_on_the_fully_connected_layer_and_off_by_default():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 32, 32)
    assert not any(isinstance(layer, nn.Dropout) for layer in VisionMixtureNet(10).features)
    model = VisionMixtureNet(10, dropout=0.5)
    kept = (model.features(x) != 0).float().mean().item()
    assert kept == pytest.approx(0.5, abs=0.05)
    assert (model.eval().features(x) != 0).float().mean() > 0.99


@pytest.mark.parametrize("head", [nn.Linear, MatchedLinear, partial(DHPLinear, eta=1e-4, per_connection_eta=True)])
def test_takes_single_heads_and_one_per_task_of_every_kind(head):
    x, y = torch.randn(3, 3, 32, 32), torch.tensor([0, 9, 9])
    assert VisionMixtureNet(partial(head, out_features=10))(x, targets=y).shape == (3, 10)
    model = VisionMixtureNet(partial(MultiHead, head=head))
    for task in (0, 1):
        model.head.resize(task, 10)
    assert model(x, torch.tensor([0, 1, 1]), y).shape == (3, 10)
    if head is not nn.Linear and head is not MatchedLinear:
        traces = [model.head.heads[task].hebb.abs().amax(1).nonzero().flatten().tolist() for task in "01"]
        assert traces == [[0], [9]]
        assert model.head.heads["0"].eta.shape == (10, 500)


def test_hidden_layers_take_an_initialisation():
    model = VisionMixtureNet(10, init=glorot_uniform)
    hidden = [layer for layer in model.features if isinstance(layer, nn.Linear | nn.Conv2d)]
    assert len(hidden) == 3
    assert all((layer.bias == 0).all() for layer in hidden)


def test_importances_are_exact():
    with default_dtype(torch.float64):
        torch.manual_seed(0)
        model = VisionMixtureNet()
        model.head.resize(0, 10)
        x, y = torch.randn(4, 3, 32, 32), torch.tensor([1, 2, 3, 4])
    names = [name for name, _ in model.named_parameters()]
    batches = [(x, y, torch.zeros(4, dtype=torch.long))]
    ours, expected = fisher_diagonal(model, batches), oracle_importance.fisher(model, batches, "empirical", names)
    for name in names:
        torch.testing.assert_close(ours[name], expected[name])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"slope": -0.1}, "slope must be finite and at least 0, got -0.1"),
        ({"slope": float("nan")}, "slope must be finite and at least 0, got nan"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        VisionMixtureNet(10, **arguments)

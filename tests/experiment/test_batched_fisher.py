"""Squares of mini-batch gradients, for comparison with the Fisher information."""

import pytest
import torch
from torch import nn

from avsi import fisher_diagonal
from avsi.consolidation import OnlineEWCPenalty
from avsi.experiment.batched_fisher import BatchedEWCPenalty


def measured(batch_size, x, y, model):
    penalty = BatchedEWCPenalty(model, 1.0, batch_size=batch_size)
    penalty.consolidate([(x[:24], y[:24]), (x[24:], y[24:])])
    return penalty.importance


def test_batches_of_one_are_the_empirical_fisher_information_and_larger_ones_are_not():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 3)).double()
    x, y = torch.randn(48, 5, dtype=torch.float64), torch.randint(0, 3, (48,))
    exact = fisher_diagonal(model, [(x, y)])
    for name, value in measured(1, x, y, model).items():
        torch.testing.assert_close(value, exact[name])
    whole = measured(24, x, y, model)
    model.eval()  # by hand
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for part in (slice(0, 24), slice(24, 48)):
        model.zero_grad()
        nn.functional.cross_entropy(model(x[part]), y[part]).backward()
        for name, p in model.named_parameters():
            expected[name] += p.grad.square() / 2
    for name, value in whole.items():
        torch.testing.assert_close(value, expected[name])
    assert sum(v.sum() for v in whole.values()) < 0.5 * sum(v.sum() for v in exact.values())


def test_a_subset_of_the_samples_is_drawn_anew_for_each_task():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    x, y = torch.randn(40, 3), torch.randint(0, 2, (40,))
    penalty = OnlineEWCPenalty(model, 1.0, gamma=0.0, max_samples=5, seed=1)
    penalty.consolidate([(x, y)])
    first = penalty.importance["weight"].clone()
    penalty.consolidate([(x, y)])
    assert not torch.equal(first, penalty.importance["weight"])
    again = OnlineEWCPenalty(model, 1.0, gamma=0.0, max_samples=5, seed=1)
    again.consolidate([(x[:20], y[:20]), (x[20:], y[20:])])  # whatever the batches
    torch.testing.assert_close(again.importance["weight"], first)
    many = OnlineEWCPenalty(model, 1.0, max_samples=1000)
    many.consolidate([(x, y)])
    torch.testing.assert_close(many.importance["weight"], fisher_diagonal(model, [(x, y)])["weight"])


class BrokenError(Exception):
    pass


def test_the_model_is_as_before_also_after_an_error():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[1].eval()  # held
    x, y = torch.randn(8, 3), torch.randint(0, 2, (8,))
    penalty = BatchedEWCPenalty(model, 1.0, batch_size=4)

    def breaking():
        yield x, y
        raise BrokenError

    penalty.consolidate([(x, y)])
    assert [module.training for module in model] == [True, False, True]
    with pytest.raises(BrokenError):
        penalty.consolidate(breaking())
    assert [module.training for module in model] == [True, False, True]
    with pytest.raises(ValueError, match="batches yielded no samples"):
        penalty.consolidate([])

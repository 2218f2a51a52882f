import pytest
import torch
from torch.optim import SGD
from training import naive, seeded_mlp

from avsi.plugins import StopAfter


@pytest.mark.parametrize("iterations", [1, 9, 10, 25])
def test_each_experience_has_that_many_iterations(digits, iterations):
    """Ten make an epoch of 289 samples in batches of 32; samples do not repeat within an epoch."""
    model = seeded_mlp()
    strategy = naive(model, SGD(model.parameters(), lr=0.1), [StopAfter(iterations)], epochs=100)
    for task in range(3):
        strategy.train(digits.train_stream[task], eval_streams=[])
        assert strategy.clock.train_exp_iterations == iterations
        assert strategy.clock.train_iterations == (task + 1) * iterations
    assert not strategy.plugins[0].state_dict()


@pytest.mark.parametrize(("iterations", "epochs"), [(5, 1), (15, 2)])
def test_a_stop_in_the_last_epoch_does_not_skip_the_next_experience(digits, iterations, epochs):
    model = seeded_mlp()
    strategy = naive(model, SGD(model.parameters(), lr=0.1), [StopAfter(iterations)], epochs=epochs)
    strategy.train(digits.train_stream[:3], eval_streams=[])
    assert strategy.clock.train_iterations == 3 * iterations


def test_it_is_the_same_as_that_many_epochs(digits):
    ends = []
    for plugins, epochs in (([StopAfter(2 * 10)], 50), ([], 2)):
        model = seeded_mlp()
        strategy = naive(model, SGD(model.parameters(), lr=0.1), plugins, epochs=epochs)
        torch.manual_seed(0)
        strategy.train(digits.train_stream[0], eval_streams=[])
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*ends)


@pytest.mark.parametrize(("wrong", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("x", TypeError)])
def test_other_numbers_are_refused(wrong, error):
    with pytest.raises(error, match="iterations must be"):
        StopAfter(wrong)

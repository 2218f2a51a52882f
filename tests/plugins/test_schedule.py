"""A schedule for each experience, of which nothing outlasts it."""

from functools import partial

import pytest
import torch
from avalanche.training.plugins import SupervisedPlugin
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from training import naive, seeded_mlp

from avsi.plugins.schedule import Schedule


class Rates(SupervisedPlugin):
    """Notes the rates that epochs are trained with; an experience may be interrupted."""

    def __init__(self):
        super().__init__()
        self.rates, self.interrupt = [], False

    def before_training_epoch(self, strategy, **kwargs):
        self.rates += [group["lr"] for group in strategy.optimizer.param_groups]

    def after_training_epoch(self, strategy, **kwargs):
        if self.interrupt:
            raise KeyboardInterrupt


def test_a_scheduler_in_place_of_what_makes_it_is_refused():
    scheduler = LambdaLR(SGD(seeded_mlp().parameters(), lr=0.1), lambda epoch: 1.0)
    with pytest.raises(TypeError, match=r"make must make a scheduler from an optimizer, such as partial\(StepLR"):
        Schedule(scheduler)


@pytest.mark.parametrize("interrupt", [False, True])
def test_a_rate_that_was_changed_between_experiences_is_the_new_base(digits, interrupt):
    model = seeded_mlp()
    optimizer, rates = SGD(model.parameters(), lr=0.1), Rates()
    strategy = naive(
        model, optimizer, [Schedule(partial(LambdaLR, lr_lambda=lambda epoch: 0.5**epoch)), rates], epochs=2
    )
    rates.interrupt = interrupt
    if interrupt:
        with pytest.raises(KeyboardInterrupt):
            strategy.train(digits.train_stream[0], eval_streams=[])
    else:
        strategy.train(digits.train_stream[0], eval_streams=[])
        assert "initial_lr" not in optimizer.param_groups[0]
    assert rates.rates == [0.1, 0.05][: 2 - interrupt]
    rates.rates, rates.interrupt = [], False
    optimizer.param_groups[0]["lr"] = 0.001
    strategy.train(digits.train_stream[1], eval_streams=[])
    assert rates.rates == [0.001, 0.0005]
    assert optimizer.param_groups[0]["lr"] == 0.001
    assert torch.isfinite(next(model.parameters())).all()


@pytest.mark.parametrize("make", [float, torch.tensor])
def test_after_an_interrupted_experience_the_next_begins_with_the_first_rate(digits, make):
    model, rates = seeded_mlp(), Rates()
    optimizer = SGD(model.parameters(), lr=make(0.5))
    halving = Schedule(partial(LambdaLR, lr_lambda=lambda epoch: 0.5**epoch))
    strategy = naive(model, optimizer, [halving, rates], epochs=2)
    rates.interrupt = True
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            strategy.train(digits.train_stream[0], eval_streams=[])
        assert float(optimizer.param_groups[0]["lr"]) == 0.25
    rates.interrupt, rates.rates = False, []
    seen = []

    class Note(SupervisedPlugin):
        def before_training_epoch(self, strategy, **kwargs):
            seen.append(float(strategy.optimizer.param_groups[0]["lr"]))

    strategy.plugins.append(Note())
    strategy.train(digits.train_stream[1], eval_streams=[])
    assert seen == [0.5, 0.25]
    assert float(optimizer.param_groups[0]["lr"]) == 0.5


def test_a_rate_that_is_a_tensor_is_set_back_too(digits):
    """Schedulers change it in place."""
    model = seeded_mlp()
    optimizer, rates = SGD(model.parameters(), lr=torch.tensor(0.5)), []
    halving = Schedule(partial(LambdaLR, lr_lambda=lambda epoch: 0.5**epoch))
    strategy = naive(model, optimizer, [halving], epochs=2)
    for experience in digits.train_stream[:2]:
        strategy.train(experience, eval_streams=[])
        rates.append(float(optimizer.param_groups[0]["lr"]))
    assert rates == [0.5, 0.5]


def test_a_scheduler_that_needs_a_measured_value_is_refused_before_the_first_step(digits):
    model = seeded_mlp()
    before = [parameter.clone() for parameter in model.parameters()]
    strategy = naive(model, SGD(model.parameters(), lr=0.1), [Schedule(ReduceLROnPlateau)], epochs=1)
    with pytest.raises(TypeError, match="needs a measured value"):
        strategy.train(digits.train_stream[0], eval_streams=[])
    assert all(map(torch.equal, before, model.parameters()))

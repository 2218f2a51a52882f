"""The continual hyper-parameter framework, against one that makes everything anew for each attempt."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from avalanche.training import EWC, Naive
from avalanche.training.plugins import AGEMPlugin, EvaluationPlugin, LRSchedulerPlugin, SupervisedPlugin
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR
from training import naive, seeded_mlp

from avsi import MASPlugin, SIPlugin
from avsi.experiment.strategy_state import fingerprint, random_states, strategy_state
from avsi.metrics import evaluation_metrics
from avsi.models import MultiHead
from avsi.scenarios import split_digits
from avsi.selection import assign_strength, choose_strength
from avsi.strategies import MAS, OnlineEWC, SynapticIntelligence

RATES = (0.2, 0.002, 0.05)
METHODS = {
    "si": (partial(SynapticIntelligence, damping=1e-3), 1e4),
    "online_ewc": (partial(OnlineEWC, labels="exact"), 1e6),
    "mas": (MAS, 1e3),
}


class TooFast(SupervisedPlugin):
    """Stands for training that diverges."""

    def before_training_iteration(self, strategy, **kwargs):
        if strategy.clock.train_exp_iterations == 2 and strategy.optimizer.param_groups[0]["lr"] > 1:
            raise FloatingPointError("too fast")


@pytest.fixture(scope="module")
def benchmark():
    return split_digits(validation=0.2)


def make(method, strength, plugins=(), **kwargs):
    model = seeded_mlp(head=MultiHead)
    strategy = naive(
        model,
        SGD(model.parameters(), lr=0.05),
        plugins,
        strategy=partial(method, strength=strength),
        epochs=4,
        **kwargs,
    )
    torch.manual_seed(1)
    return strategy


@torch.no_grad()
def accuracy(model, experience):
    """By hand: one pass over single samples."""
    model.eval()
    right = sum(int(model(x[None], torch.tensor([task])).argmax()) == y for x, y, task in experience.dataset.eval())
    return right / len(experience.dataset)


def slow(method, benchmark, tasks, strength, margin, decay):
    """Choose for each task, training everything that came before anew for each attempt."""
    history, choices = [], []
    for task in range(tasks):

        def attempt(rate, strength, task=task):
            strategy = make(method, 0.0)
            for experience, (old_rate, old_strength) in zip(
                benchmark.train_stream, [*history, (rate, strength)], strict=False
            ):
                strategy.optimizer.param_groups[0]["lr"] = old_rate
                plugin = next(p for p in strategy.plugins if hasattr(p, "strengths"))
                plugin.core.strengths = (old_strength,)
                try:
                    strategy.train(experience, eval_streams=[])
                except FloatingPointError:  # diverged: far too strong for the explicit step
                    return math.nan, None
            return accuracy(strategy.model, benchmark.valid_stream[task]), strategy

        found = {rate: attempt(rate, 0.0)[0] for rate in RATES}
        best = max(found, key=found.get)
        tried = [(rate, 0.0, value) for rate, value in found.items()]
        while True:
            value, strategy = attempt(best, strength)
            tried.append((best, strength, value))
            if value >= (1 - margin) * found[best]:
                break
            strength *= decay
        history.append((best, strength))
        choices.append(tried)
    return choices, strategy


@pytest.mark.parametrize("name", METHODS)
def test_choices_and_training_are_those_of_attempts_made_from_nothing(name, benchmark):
    method, strength = METHODS[name]
    expected, trained = slow(method, benchmark, 3, strength, margin=0.05, decay=0.1)
    strategy = make(method, strength)
    decayed = 0
    for task in range(3):
        choice = choose_strength(
            strategy, benchmark.train_stream[task], benchmark.valid_stream[task],
            learning_rates=RATES, margin=0.05, decay=0.1,
        )  # fmt: skip
        found = [(a.learning_rate, a.strength, math.nan if a.accuracy is None else a.accuracy) for a in choice.attempts]
        assert [row[0] for row in found] == [row[0] for row in expected[task]]
        torch.testing.assert_close(torch.tensor(found), torch.tensor(expected[task]), equal_nan=True)
        assert (choice.learning_rate, choice.strength, choice.accuracy) == found[-1]
        assert choice.plasticity == max(a.accuracy for a in choice.attempts[:3])
        decayed += len(found) - 4
        strategy.train(benchmark.train_stream[task], eval_streams=[])
    assert decayed  # or the test shows little
    assert fingerprint(strategy.model.state_dict()) == fingerprint(trained.model.state_dict())


def test_everything_but_the_choice_is_as_before(benchmark):
    strategy = make(METHODS["si"][0], 1e3, [TooFast()], evaluator=EvaluationPlugin(*evaluation_metrics()))
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    before, randomness = strategy_state(strategy), fingerprint(random_states("cpu"))
    metrics = strategy.evaluator.get_all_metrics()
    choice = choose_strength(
        strategy, benchmark.train_stream[1], benchmark.valid_stream[1], learning_rates=(0.05, 10.0), strength=5.0
    )
    assert choice.attempts[1].accuracy is None
    assert fingerprint(random_states("cpu")) == randomness
    assert strategy.evaluator.get_all_metrics() == metrics
    assert strategy.optimizer.param_groups[0]["lr"] == choice.learning_rate == 0.05
    plugin = next(p for p in strategy.plugins if isinstance(p, SIPlugin))
    assert plugin.strengths == (choice.strength,)
    assert fingerprint(strategy_state(strategy)) == fingerprint(before)


def test_transforms_that_draw_from_a_generator_of_their_own_begin_each_attempt_alike():
    generator, drawn = np.random.default_rng(0), []

    def noise(x):
        drawn.append(generator.normal())
        return x + drawn[-1]

    noisy = split_digits(validation=0.2, train_transform=noise)
    strategy = make(METHODS["si"][0], 1e3)
    train, valid = noisy.train_stream[0], noisy.valid_stream[0]
    choice = choose_strength(strategy, train, valid, learning_rates=(0.05,))
    strategy.train(train, eval_streams=[])
    trainings = np.array(drawn).reshape(len(choice.attempts) + 1, -1)
    assert (trainings == trainings[0]).all()


def test_a_strategy_whose_weights_broke_has_diverged(benchmark):
    """Others than avsi's own train on."""

    class Breaking(SupervisedPlugin):
        strength = 0.0

        def after_training_exp(self, strategy, **kwargs):
            if self.strength > 1:
                with torch.no_grad():
                    next(strategy.model.parameters()).mul_(math.nan)

    def assign(_, strength):
        breaking.strength = strength

    breaking, model = Breaking(), seeded_mlp(head=MultiHead)
    strategy = naive(model, SGD(model.parameters(), lr=0.05), [breaking])
    choice = choose_strength(
        strategy, benchmark.train_stream[0], benchmark.valid_stream[0],
        learning_rates=(0.05,), strength=4.0, margin=0.99, assign=assign,
    )  # fmt: skip
    assert [attempt.accuracy for attempt in choice.attempts[1:3]] == [None, None]
    assert choice.strength == 1


def test_arguments_of_training_are_passed_on(benchmark):
    class Told(SupervisedPlugin):
        def before_training(self, strategy, **kwargs):
            assert kwargs == {"reset_optimizer_state": True}

    choice = choose_strength(
        make(MAS, 0.1, [Told()]), benchmark.train_stream[0], benchmark.valid_stream[0],
        learning_rates=iter((0.05,)), reset_optimizer_state=True,
    )  # fmt: skip
    assert choice.learning_rate == 0.05


def test_strengths_of_any_strategy(benchmark):
    def assign(strategy, strength):
        strategy.plugins[0].ewc_lambda = strength

    model = seeded_mlp(head=MultiHead)
    strategy = naive(model, SGD(model.parameters(), lr=0.1), strategy=partial(EWC, ewc_lambda=0.0))
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    choice = choose_strength(
        strategy, benchmark.train_stream[1], benchmark.valid_stream[1],
        learning_rates=(0.1,), strength=1e9, margin=0.1, decay=0.01, assign=assign,
    )  # fmt: skip
    assert strategy.plugins[0].ewc_lambda == choice.strength < 1e9


def test_what_cannot_be_chosen(benchmark):
    task, valid = benchmark.train_stream[0], benchmark.valid_stream[0]
    model = seeded_mlp()
    with pytest.raises(ValueError, match="Naive has 0 consolidation plugins"):
        choose_strength(naive(model, SGD(model.parameters(), lr=0.1), strategy=Naive), task, valid, learning_rates=(1,))
    strategy = make(MAS, 0.1)
    strategy.plugins.append(LRSchedulerPlugin(LambdaLR(strategy.optimizer, lambda epoch: 1 / (1 + epoch))))
    with pytest.raises(ValueError, match=r"LRSchedulerPlugin goes by learning rates of its own.*schedule.Schedule"):
        choose_strength(strategy, task, valid, learning_rates=(0.1, 0.01))
    strategy = make(MAS, 0.1)
    strategy.device = torch.device("mps")
    with pytest.raises(ValueError, match="choose_strength works on cpu and cuda, got mps; move the strategy"):
        choose_strength(strategy, task, valid, learning_rates=(0.1,))
    with pytest.raises(TypeError, match=r"attempts must be a whole number, got 3\.0"):
        choose_strength(make(MAS, 0.1, [TooFast()]), task, valid, learning_rates=(10,), attempts=3.0)
    strategy = make(MAS, 0.1, [TooFast()])
    before = fingerprint(strategy_state(strategy))
    with pytest.raises(RuntimeError, match=r"every learning rate of \[10.0, 20.0\]"):
        choose_strength(strategy, task, valid, learning_rates=(10, 20))
    strategy.train(task, eval_streams=[])
    after = fingerprint(strategy_state(strategy))
    with pytest.raises(RuntimeError, match="with every strength from 1e\\+20 to 5e\\+19"):
        choose_strength(
            strategy,
            benchmark.train_stream[1],
            benchmark.valid_stream[1],
            learning_rates=(0.05,),
            strength=1e20,
            attempts=2,
        )
    assert fingerprint(strategy_state(strategy)) == after != before
    for wrong in ({"margin": 1.0}, {"decay": 1.0}, {"strength": -1.0}, {"learning_rates": ()}, {"attempts": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            choose_strength(strategy, task, valid, **{"learning_rates": (0.1,)} | wrong)


def test_strengths_of_later_experiences_stay(benchmark):
    strategy = make(METHODS["mas"][0], [1.0, 2.0, 3.0, 4.0, 5.0])
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    plugin = next(p for p in strategy.plugins if isinstance(p, MASPlugin))
    choice = choose_strength(
        strategy, benchmark.train_stream[1], benchmark.valid_stream[1], learning_rates=(0.05,), margin=0.9
    )
    assert choice.strength == 2.0
    assert plugin.core.strengths == (1.0, 2.0, 3.0, 4.0, 5.0)
    assign_strength(strategy, 0.5)
    assert plugin.core.strengths == (1.0, 0.5, 3.0, 4.0, 5.0)


def test_what_is_no_validation_experience_is_refused_before_any_training(benchmark):
    strategy = make(METHODS["si"][0], 1.0)
    with pytest.raises(TypeError, match="validation must be one experience"):
        choose_strength(strategy, benchmark.train_stream[0], benchmark.valid_stream, learning_rates=(0.1,))
    with pytest.raises(TypeError, match="leave out eval_streams"):
        choose_strength(
            strategy, benchmark.train_stream[0], benchmark.valid_stream[0], learning_rates=(0.1,), eval_streams=[]
        )


def test_a_strategy_that_holds_an_iterator_under_way_is_refused(benchmark):
    model = seeded_mlp(head=MultiHead)
    agem = AGEMPlugin(patterns_per_experience=20, sample_size=7)
    strategy = naive(model, SGD(model.parameters(), lr=0.05), [agem, MASPlugin(1.0)])
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    with pytest.raises(ValueError, match=r"AGEMPlugin holds a generator, an iterator that is under way"):
        choose_strength(strategy, benchmark.train_stream[1], benchmark.valid_stream[1], learning_rates=(0.05,))

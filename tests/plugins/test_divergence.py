"""Training that diverges is stopped, for every method in the same words."""

import re
from functools import partial

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline, with_task_labels
from avalanche.training.plugins import SupervisedPlugin
from torch import nn
from training import naive, seeded_mlp

from avsi import DHPPlugin, DivergencePlugin, MASPlugin, OnlineEWCPlugin, SIPlugin
from avsi.consolidation import DivergenceError, StabilityWarning
from avsi.data.dataset import ImageDataset, scale
from avsi.models import DHPLinear, MultiHead
from avsi.scenarios.build import with_task_label

METHODS = {
    "finetune": lambda: DivergencePlugin(),
    "si": lambda: SIPlugin(1.0),
    "ewc": lambda: OnlineEWCPlugin(1.0),
    "mas": lambda: MASPlugin(1.0),
    "dhp": lambda: DHPPlugin(),
}
dhp_heads = partial(MultiHead, head=partial(DHPLinear, eta=0.1))


def strategy_of(plugins, *, lr=0.05, head=MultiHead, **kwargs):
    model = seeded_mlp(hidden=(64, 32), head=head)
    return naive(model, torch.optim.SGD(model.parameters(), lr=lr), plugins, **kwargs)


@pytest.mark.parametrize("penalty", ["explicit", "proximal"])
@pytest.mark.parametrize(
    "plugin", [partial(SIPlugin, 1000.0), partial(MASPlugin, 1000.0), partial(OnlineEWCPlugin, 1e4)]
)
def test_strengths_beyond_the_stable_one_warn_and_stop_or_are_taken_implicitly(digits, plugin, penalty):
    strategy = strategy_of([plugin := plugin(penalty=penalty)])
    if penalty == "proximal":
        for experience in digits.train_stream:
            strategy.train(experience, eval_streams=[])
        assert max(p.abs().max() for p in strategy.model.parameters()) < 1
        return
    with pytest.warns(StabilityWarning, match="the largest at which"), pytest.raises(DivergenceError) as caught:
        strategy.train(digits.train_stream, eval_streams=[])
    error = caught.value
    assert 0 < error.stable_strength < plugin.strength
    assert (error.task, error.epoch) == (strategy.clock.train_exp_counter, 0)
    assert error.step == strategy.clock.train_epoch_iterations
    assert max(p.abs().max() for p in strategy.model.parameters()) < 1e5  # at once, not at the end
    assert 'choose penalty="proximal"' in str(error)


@pytest.mark.parametrize("name", METHODS)
def test_all_methods_say_the_same_of_a_learning_rate_beyond_reason(digits, name):
    strategy = strategy_of([METHODS[name]()], lr=1e25, head=dhp_heads if name == "dhp" else MultiHead)
    with pytest.raises(DivergenceError, match=r"the learning rate 1e\+25 is probably too large") as caught:
        strategy.train(digits.train_stream[0], eval_streams=[])
    assert re.match(r"training diverged in task 0, epoch 0, step 0 \(from 0\): ", str(caught.value))
    assert caught.value.stable_strength is None
    assert "float64" not in str(caught.value)
    assert strategy.clock.train_exp_iterations <= 1


@pytest.mark.parametrize("name", METHODS)
def test_data_beyond_reason_are_named(digits, name):
    images = digits.image_sets[0]
    rows = torch.nonzero(images.labels < 2).flatten()
    data = with_task_label(ImageDataset(images.images, rows, images.labels[rows], lambda x: 1e20 * scale(x)), 0)
    (experience,) = with_classes_timeline(with_task_labels(benchmark_from_datasets(train=[data]))).train_stream
    strategy = strategy_of([METHODS[name]()], head=dhp_heads if name == "dhp" else MultiHead)
    with pytest.raises(DivergenceError, match=r"training diverged in task 0, epoch 0, step \d \(from 0\)") as caught:
        strategy.train(experience, eval_streams=[])
    assert "inputs of the batch are as large as 1e+20" in str(caught.value)


class BreakIn(SupervisedPlugin):
    """Breaks something in one step."""

    def __init__(self, hook, what, at):
        super().__init__()
        setattr(self, hook, self.run)
        self.what, self.at = what, at

    def run(self, strategy, **kwargs):
        clock = strategy.clock
        if (clock.train_exp_counter, clock.train_exp_epochs, clock.train_epoch_iterations) == self.at:
            self.what(strategy)


def break_loss(strategy):
    strategy.loss = strategy.loss * float("nan")


@torch.no_grad()
def break_weight(strategy):
    strategy.model.features[1].weight[0, 0] = float("inf")


@torch.no_grad()
def break_trace(strategy):
    next(iter(strategy.model.head.heads.values())).hebb[0, 0] = float("nan")


@pytest.mark.parametrize(
    ("hook", "what", "found"),
    [
        ("before_backward", break_loss, "the loss is nan"),
        ("after_update", break_weight, "weights are not finite"),
        ("after_update", break_trace, "Hebbian traces are not finite"),
    ],
)
@pytest.mark.parametrize("at", [(1, 1, 3), (1, 1, "last")])
def test_the_step_where_something_breaks_is_named(digits, hook, what, found, at):
    last = -(-len(digits.train_stream[1].dataset) // 32) - 1
    at = tuple(last if part == "last" else part for part in at)
    strategy = strategy_of([BreakIn(hook, what, at), DHPPlugin()], head=dhp_heads, epochs=3)
    strategy.train(digits.train_stream[0], eval_streams=[])
    head = strategy.model.head

    def own_trace(strategy):  # that of the task at hand: another task's head is not looked at by the loss
        with torch.no_grad():
            head.heads["1"].hebb[0, 0] = float("nan")

    if what is break_trace:
        strategy.plugins[0].what = own_trace
    with pytest.raises(DivergenceError, match=found) as caught:
        strategy.train(digits.train_stream[1], eval_streams=[])
    assert (caught.value.task, caught.value.epoch, caught.value.step) == at


def test_a_loss_on_another_device_is_flagged_and_read_at_the_end_of_the_epoch(digits, monkeypatch):
    """With a flag in place of the device: no step asks for its value."""
    plugin = DivergencePlugin()
    strategy = strategy_of([BreakIn("before_backward", break_loss, (0, 0, 2)), plugin])
    asked = []

    class Elsewhere(torch.Tensor):
        @property
        def device(self):
            return torch.device("cuda")

        @property
        def is_cpu(self):
            return False

        def item(self):
            asked.append(strategy.clock.train_exp_iterations)
            return super().item()

    class Move(SupervisedPlugin):
        def after_backward(self, strategy, **kwargs):
            strategy.loss = strategy.loss.detach().as_subclass(Elsewhere)

    strategy.plugins.insert(1, Move())
    with pytest.raises(DivergenceError, match=r"the loss is not finite|weights are not finite") as caught:
        strategy.train(digits.train_stream[0], eval_streams=[])
    assert (caught.value.epoch, caught.value.step) == (0, 2)
    steps = -(-len(digits.train_stream[0].dataset) // 32)
    assert strategy.clock.train_exp_iterations == steps
    assert not asked


def test_one_of_several_plugins_looks():
    plugins = [SIPlugin(1.0), DHPPlugin(), DivergencePlugin(), MASPlugin(1.0)]
    strategy = strategy_of(plugins, head=dhp_heads)
    for plugin in plugins:
        DivergencePlugin.before_training_exp(plugin, strategy)
    assert [plugin._watches for plugin in plugins] == [True, False, False, False]


def test_watching_changes_no_number(digits):
    outcomes = []
    for plugins in ([], [DivergencePlugin()]):
        strategy = strategy_of(plugins, epochs=2)
        for experience in digits.train_stream[:2]:
            strategy.train(experience, eval_streams=[])
        outcomes.append(list(strategy.model.state_dict().values()))
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


@pytest.mark.parametrize("frozen", [False, True])
def test_what_holds_infinity_on_purpose_is_left_alone(digits, frozen):
    """A buffer, or a parameter that is not trained."""
    model, mask = seeded_mlp(), torch.tensor([-float("inf")])
    if frozen:
        model.mask = nn.Parameter(mask, requires_grad=False)
    else:
        model.register_buffer("mask", mask)
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.05), [DivergencePlugin()])
    strategy.train(digits.train_stream[0], eval_streams=[])
    assert isinstance(strategy.model.features[1], nn.Linear)

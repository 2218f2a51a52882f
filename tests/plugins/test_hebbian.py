import copy
import pickle
from functools import partial

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.training import AGEM, ER_ACE, MER, MIR, JointTraining, LwF, Naive, Replay
from avalanche.training import MAS as AvalancheMAS
from avalanche.training.plugins import SupervisedPlugin
from avalanche.training.templates.base_sgd import PeriodicEval
from oracles.hebbian import dhp_forward
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset
from training import naive, seeded_mlp

from avsi import DHPPlugin, MASPlugin, OnlineEWCPlugin, SIPlugin
from avsi.hebbian import show_targets
from avsi.models import MLP, DHPLinear, GrowingHead, MultiHead

dhp_heads = partial(MultiHead, head=partial(DHPLinear, eta=0.1))
one_dhp_head = partial(DHPLinear, out_features=2, eta=0.1)


def sgd(model, lr=0.05):
    return torch.optim.SGD(model.parameters(), lr=lr)


def trained(digits, model, plugins=(), *, experiences=2, strategy=Naive, **arguments):
    trainer = naive(model, sgd(model), [DHPPlugin(), *plugins], strategy=strategy, **arguments)
    for experience in digits.train_stream[:experiences]:
        trainer.train(experience, eval_streams=[])
    return trainer


class Plain(nn.Module):
    """A model with one head that knows nothing of tasks: LwF wants every multi-task model to have a head for each."""

    def __init__(self, model):
        super().__init__()
        self.features, self.head = model.features, model.head

    def forward(self, x):
        return self.head(self.features(x))


def traces(model):
    return {name: buffer.clone() for name, buffer in model.named_buffers() if name.endswith("hebb")}


class Updates(SupervisedPlugin):
    """Repeats every mini-batch's update of the traces by hand, from the features and labels of the batch."""

    def __init__(self):
        super().__init__()
        self.expected = {}
        self.steps = 0

    def before_forward(self, strategy, **kwargs):
        model = strategy.model
        model.eval()
        with torch.no_grad():
            h = model.features(strategy.mb_x)
        model.train()
        heads = model.head.heads if isinstance(model.head, MultiHead) else {"0": model.head}
        for task, head in heads.items():
            own = strategy.mb_task_id == int(task) if len(heads) > 1 else torch.ones(len(h), dtype=torch.bool)
            expected = self.expected.get(task, torch.zeros_like(head.hebb))
            _, hebb = dhp_forward(h[own], strategy.mb_y[own], head.weight.T, head.alpha.T, head.eta, expected.T)
            self.expected[task] = hebb.T.detach()
        self.steps += 1

    def after_training_iteration(self, strategy, **kwargs):
        head = strategy.model.head
        for task, hebb in self.expected.items():
            layer = head.heads[task] if isinstance(head, MultiHead) else head
            torch.testing.assert_close(layer.hebb, hebb)


@pytest.mark.parametrize("head", [dhp_heads, one_dhp_head])
def test_traces_are_those_of_each_mini_batch(digits, head):
    updates = Updates()
    model = seeded_mlp(head=head)
    trained(digits, model, [updates], epochs=2)
    assert updates.steps > 10
    assert all(hebb.abs().max() > 0 for hebb in updates.expected.values())


def test_replay_mixes_tasks_and_each_head_gets_its_own_samples(digits):
    updates = Updates()
    mixed = []

    class Watch(SupervisedPlugin):
        def before_forward(self, strategy, **kwargs):
            mixed.append(len(strategy.mb_task_id.unique()))

    model = seeded_mlp(head=dhp_heads)
    trained(digits, model, [updates, Watch()], experiences=3, strategy=Replay, mem_size=60)
    assert max(mixed) == 3
    assert len(updates.expected) == 3


def test_joint_training(digits):
    updates = Updates()
    model = seeded_mlp(head=dhp_heads)
    trainer = naive(model, sgd(model), [DHPPlugin(), updates], strategy=JointTraining)
    trainer.train(digits.train_stream, eval_streams=[])
    assert len(updates.expected) == len(digits.train_stream)
    assert all(hebb.abs().max() > 0 for hebb in traces(model).values())


def test_gradient_accumulation(digits):
    class Accumulate(Naive):
        def training_epoch(self, **kwargs):
            self.optimizer.zero_grad()
            for step, self.mbatch in enumerate(self.dataloader):  # noqa: B020 (as Avalanche does)
                self._unpack_minibatch()
                self._before_training_iteration(**kwargs)
                self._before_forward(**kwargs)
                self.mb_output = self.forward()
                self._after_forward(**kwargs)
                self.loss = self.criterion() / 4
                self.backward()
                if step % 4 == 3:
                    self.optimizer_step()
                    self.optimizer.zero_grad()
                self._after_training_iteration(**kwargs)

    updates = Updates()
    trained(digits, seeded_mlp(head=dhp_heads), [updates], strategy=Accumulate)
    assert updates.steps > 10


def test_losses_summed_over_batches_before_one_backward_pass(digits):
    class Summed(Naive):
        def training_epoch(self, **kwargs):
            self.loss = self._make_empty_loss()
            self.optimizer.zero_grad()
            for self.mbatch in self.dataloader:  # noqa: B020
                self._unpack_minibatch()
                self._before_training_iteration(**kwargs)
                self.mb_output = self.forward()
                self.loss += self.criterion()
                self._after_training_iteration(**kwargs)
            self.backward()
            self.optimizer_step()

    model = seeded_mlp(head=dhp_heads)
    trained(digits, model, strategy=Summed)
    assert all(hebb.abs().max() > 0 for hebb in traces(model).values())


def test_several_passes_per_step(digits):
    class Twice(Naive):  # as sharpness-aware minimisation does
        def forward(self):
            first = super().forward()
            return (first + super().forward()) / 2

    model = seeded_mlp(head=one_dhp_head)
    shown = []
    original = DHPLinear._forward_with_update

    def note(self, h, targets):
        shown.append(targets)
        return original(self, h, targets)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DHPLinear, "_forward_with_update", note)
        trained(digits, model, strategy=Twice, experiences=1)
    assert len(shown) > 4
    assert all(first is second for first, second in zip(shown[::2], shown[1::2], strict=True))


def test_evaluation_and_importance_passes_change_no_trace(digits):
    class Compare(SupervisedPlugin):
        def before_eval(self, strategy, **kwargs):
            self.before = traces(strategy.model)

        def after_eval(self, strategy, **kwargs):
            for name, hebb in self.before.items():
                assert torch.equal(dict(strategy.model.named_buffers())[name], hebb)

    class CompareConsolidation(SupervisedPlugin):
        def after_training_epoch(self, strategy, **kwargs):
            self.before = traces(strategy.model)

        def after_training(self, strategy, **kwargs):
            assert self.before.keys() == traces(strategy.model).keys()
            for name, hebb in traces(strategy.model).items():
                assert torch.equal(hebb, self.before[name])

    model = seeded_mlp(head=dhp_heads)
    plugins = [OnlineEWCPlugin(1.0), MASPlugin(0.1), Compare(), CompareConsolidation()]
    strategy = naive(model, sgd(model), [DHPPlugin(), *plugins], eval_every=1, epochs=2)
    for experience in digits.train_stream[:2]:
        strategy.train(experience, eval_streams=[digits.test_stream])  # creates heads of later tasks
        strategy.eval(digits.test_stream)
    used = [hebb.abs().max() > 0 for hebb in traces(model).values()]
    assert used == [True, True, False, False, False]


def test_no_labels_are_shown_in_evaluation(digits):
    model = seeded_mlp(head=dhp_heads)
    shown = {True: [], False: []}
    model.register_forward_pre_hook(lambda *_: shown[model.training].append(model.head.shown_targets is not None))
    strategy = naive(model, sgd(model), [DHPPlugin()], eval_every=1)
    strategy.train(digits.train_stream[0], eval_streams=[digits.test_stream])
    strategy.eval(digits.test_stream)
    assert set(shown[True]) == {True}
    assert set(shown[False]) == {False}


@pytest.mark.parametrize("mode", ["epoch", "iteration"])
def test_heads_added_by_an_evaluation_in_training(digits, mode):
    model = seeded_mlp(head=dhp_heads)
    # Learning without forgetting runs all heads, so from the first evaluation on those of later tasks too.
    strategy = naive(model, sgd(model), [DHPPlugin()], strategy=LwF, alpha=1.0, temperature=2.0, epochs=2, eval_every=1)
    (schedule,) = (plugin for plugin in strategy.plugins if isinstance(plugin, PeriodicEval))
    schedule.peval_mode, schedule.do_initial = mode, False  # heads are to appear in the middle
    for experience in digits.train_stream[:2]:
        strategy.train(experience, eval_streams=[digits.test_stream[: experience.current_experience + 3]])
    used = [hebb.abs().max() > 0 for hebb in traces(model).values()]
    assert used == [True, True, False, False]


@pytest.mark.parametrize("plugin", [SIPlugin(0.1), OnlineEWCPlugin(10.0), MASPlugin(0.1)])
@pytest.mark.parametrize("first", [True, False])
def test_with_consolidation_in_any_order(digits, plugin, first):
    model = seeded_mlp(head=dhp_heads)
    plugin = copy.deepcopy(plugin)
    plugins = [DHPPlugin(), plugin] if first else [plugin, DHPPlugin()]
    strategy = naive(model, sgd(model), plugins, epochs=3)
    for experience in digits.train_stream[:2]:
        strategy.train(experience, eval_streams=[])
    assert plugin.importance["head.heads.0.weight"].max() > 0
    assert all(hebb.abs().max() > 0 for hebb in traces(model).values())


# Passes over other data


@pytest.mark.parametrize(
    ("strategy", "arguments"),
    [
        (AGEM, {"patterns_per_exp": 20, "sample_size": 32}),
        (LwF, {"alpha": 1.0, "temperature": 2.0}),
        (AvalancheMAS, {"verbose": False}),
    ],
)
@pytest.mark.parametrize("dhp_first", [True, False])
@pytest.mark.parametrize("head", [dhp_heads, one_dhp_head])
def test_passes_over_other_data_use_no_wrong_labels(digits, strategy, arguments, dhp_first, head):
    model = seeded_mlp(head=head)
    if strategy is LwF and head is one_dhp_head:
        model = Plain(model)
    updates = Updates()
    trainer = naive(model, sgd(model), [updates], strategy=strategy, **arguments)
    trainer.plugins.insert(0 if dhp_first else len(trainer.plugins) - 1, DHPPlugin())
    for experience in digits.train_stream[:3]:
        trainer.train(experience, eval_streams=[])
    assert updates.steps > 20


def test_a_buffer_of_the_batchs_own_size(digits):
    model = seeded_mlp(head=one_dhp_head)
    updates = Updates()
    trainer = naive(
        model, sgd(model), [DHPPlugin(), updates], strategy=ER_ACE, mem_size=40, batch_size_mem=32, batch_size=32
    )
    for experience in digits.train_stream[:2]:
        trainer.train(experience, eval_streams=[])
    assert updates.steps > 10


@pytest.mark.parametrize(
    ("strategy", "arguments"),
    [(MER, {"mem_size": 20, "n_inner_steps": 1}), (MIR, {"mem_size": 40, "subsample": 20, "batch_size_mem": 10})],
)
def test_other_strategies_run(digits, strategy, arguments):
    model = seeded_mlp(head=one_dhp_head)
    trained(digits, model, strategy=strategy, **arguments)
    assert model.head.hebb.abs().max() > 0


# Without labels


@pytest.mark.parametrize("head", [dhp_heads, one_dhp_head, lambda m: GrowingHead(m, DHPLinear)])
@pytest.mark.parametrize("strategy", [Naive, JointTraining])
def test_without_the_plugin_training_fails(digits, head, strategy):
    model = seeded_mlp(head=head)
    trainer = naive(model, sgd(model), strategy=strategy)
    with pytest.raises(RuntimeError, match=r"give the Avalanche strategy an avsi.DHPPlugin\(\)"):
        trainer.train(digits.train_stream[:1], eval_streams=[])


def test_after_training_with_the_plugin_other_training_still_fails(digits):
    model = seeded_mlp(head=dhp_heads)
    trainer = trained(digits, model)
    assert not [name for name in ("forward", "_train_exp", "_before_training_exp") if name in vars(trainer)]
    twin = copy.deepcopy(model)
    for later in (model, twin):
        later.train()
        with pytest.raises(RuntimeError, match="DHPPlugin"):
            later(torch.zeros(2, 64), 0)
        with pytest.raises(RuntimeError, match="DHPPlugin"):
            naive(later, sgd(later)).train(digits.train_stream[0], eval_streams=[])


def test_the_plugin_holds_the_model_in_training_only(digits):
    model = seeded_mlp(head=dhp_heads)
    trainer = trained(digits, model)
    plugin = next(plugin for plugin in trainer.plugins if isinstance(plugin, DHPPlugin))
    trainer.eval(digits.test_stream[:1])
    assert b"DHPLinear" not in pickle.dumps(plugin)


class DeliberateError(Exception):
    pass


class Raise(SupervisedPlugin):
    pass


HOOKS = [
    "before_training_exp",
    "before_training_iteration",
    "before_forward",
    "after_forward",
    "before_backward",
    "after_update",
    "after_training_epoch",
    "after_training_exp",
    "before_eval",
]


@pytest.mark.parametrize("where", [*HOOKS, "features", "head", "criterion"])
@pytest.mark.parametrize("head", [dhp_heads, one_dhp_head])
def test_no_labels_stay_behind_after_an_error(digits, where, head):
    model = seeded_mlp(head=head)
    trigger = {"armed": False}

    def boom(*args, **kwargs):
        if trigger["armed"]:
            raise DeliberateError

    class Head(DHPLinear):
        def forward(self, h, targets=None):
            boom()
            return super().forward(h, targets)

    if where == "head":
        model = seeded_mlp(head=partial(MultiHead, head=Head) if head is dhp_heads else partial(Head, out_features=2))
    plugin = Raise()
    handles = []
    if where in HOOKS:
        setattr(plugin, where, boom)
    elif where == "features":
        handles = [model.features.register_forward_hook(boom)]

    def criterion(z, y):
        if where == "criterion":
            boom()
        return cross_entropy(z, y)

    trainer = naive(model, sgd(model), [plugin, DHPPlugin(), plugin], criterion=criterion, eval_every=1)
    trainer.train(digits.train_stream[0], eval_streams=[])
    trigger["armed"] = True
    with pytest.raises(DeliberateError):
        trainer.train(digits.train_stream[1])
    trigger["armed"] = False
    for handle in handles:
        handle.remove()

    model.train()
    before = traces(model)
    for size in (32, 2):
        with pytest.raises(RuntimeError, match="DHPPlugin"):
            model(torch.zeros(size, 64), torch.zeros(size, dtype=torch.long))
    with pytest.raises(RuntimeError, match="DHPPlugin"):
        naive(model, sgd(model)).train(digits.train_stream[0], eval_streams=[])
    if where in {"after_forward", "criterion", "after_update"}:  # its batch is still there, and it is still in training
        with pytest.raises(RuntimeError, match="DHPPlugin"):
            trainer.forward()
    for name, hebb in traces(model).items():
        assert torch.equal(hebb, before[name])

    # The same strategy goes on.
    trainer.plugins.insert(0, updates := Updates())
    for task in ("0", "1"):
        layer = model.head.heads[task] if isinstance(model.head, MultiHead) and task in model.head.heads else model.head
        if isinstance(layer, DHPLinear):
            updates.expected[task if isinstance(model.head, MultiHead) else "0"] = layer.hebb.clone()
    trainer.train(digits.train_stream[1], eval_streams=[])
    assert updates.steps > 5
    assert "forward" not in vars(trainer)


def test_a_model_without_dhp_layers_is_refused(digits):
    model = seeded_mlp()
    with pytest.raises(ValueError, match="found no DHPLinear in the model, a MLP"):
        naive(model, sgd(model), [DHPPlugin()]).train(digits.train_stream[0], eval_streams=[])


def test_two_plugins_are_refused(digits):
    model = seeded_mlp(head=dhp_heads)
    with pytest.raises(ValueError, match="more than one DHPPlugin"):
        naive(model, sgd(model), [DHPPlugin(), DHPPlugin()]).train(digits.train_stream[0], eval_streams=[])


def test_a_strategy_that_never_calls_forward_is_reported(digits):
    class Own(Naive):
        def training_epoch(self, **kwargs):
            for self.mbatch in self.dataloader:  # noqa: B020
                self._unpack_minibatch()
                self._before_training_iteration(**kwargs)
                cross_entropy(self.model(self.mb_x), self.mb_y).backward()

    model = seeded_mlp(head=one_dhp_head)
    with pytest.raises(RuntimeError, match="Own trained without calling its forward"):
        trained(digits, model, strategy=Own)


def test_a_forward_method_of_the_strategy_object_is_kept(digits):
    model = seeded_mlp(head=one_dhp_head)
    strategy = naive(model, sgd(model), [DHPPlugin()])
    calls = []

    def own():
        calls.append(1)
        return type(strategy).forward(strategy)

    strategy.forward = own
    strategy.train(digits.train_stream[0], eval_streams=[])
    assert calls
    assert strategy.forward is own
    assert model.head.hebb.abs().max() > 0


def test_layers_anywhere_in_any_model(digits):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU())
            self.outputs = nn.ModuleList([DHPLinear(8, 2, eta=0.1), nn.Sequential(nn.Linear(8, 4), DHPLinear(4, 2))])

        def forward(self, x):
            h = self.body(x)
            return sum(output(h) for output in self.outputs)

    model = Net()
    trained(digits, model)
    assert len(traces(model)) == 2
    assert all(hebb.abs().max() > 0 for hebb in traces(model).values())


def test_dhp_within_the_heads_of_a_multi_head(digits):
    def head(m, d):
        return nn.Sequential(nn.Linear(m, 4), nn.ReLU(), DHPLinear(4, d, eta=0.1))

    class Fixed(MultiHead):  # such heads cannot grow, and need not
        def resize(self, task, classes):
            if str(task) not in self.heads:
                super().resize(task, classes)

    model = seeded_mlp(head=partial(Fixed, head=head))
    trained(digits, model, strategy=Replay, mem_size=40)
    assert len(traces(model)) == 2
    assert all(hebb.abs().max() > 0 for hebb in traces(model).values())


@pytest.mark.parametrize("consolidation", [None, OnlineEWCPlugin(1.0), MASPlugin(0.1)])
def test_class_incremental_stream(consolidation):
    torch.manual_seed(0)
    y = torch.arange(240) % 6
    data = TensorDataset(torch.randn(240, 64) + y[:, None], y)
    data.targets = y
    benchmark = nc_benchmark(data, data, 3, task_labels=False, fixed_class_order=[0, 1, 2, 5, 3, 4])
    model = MLP(64, (16,), partial(GrowingHead, head=partial(DHPLinear, eta=0.1)))
    strategy = naive(model, sgd(model), [DHPPlugin(), *([copy.deepcopy(consolidation)] if consolidation else [])])
    kept = torch.zeros(0, 16)
    for experience, size in zip(benchmark.train_stream, (2, 6, 6), strict=True):
        strategy.train(experience, eval_streams=[])
        hebb = model.head.head.hebb
        assert len(hebb) == size
        here = sorted(experience.classes_in_this_experience)
        others = [c for c in range(len(kept)) if c not in here]
        assert torch.equal(hebb[others], kept[others])
        assert (hebb[here].abs().amax(1) > 0).all()
        kept = hebb.clone()
    assert (kept.abs().amax(1) > 0).all()


def test_labels_shown_by_hand_go_to_the_right_heads():
    model = seeded_mlp(head=dhp_heads)
    model.head.resize(0, 2)
    model.head.resize(1, 3)
    x, task, y = torch.randn(4, 64), torch.tensor([0, 1, 0, 1]), torch.tensor([0, 2, 0, 2])
    other = copy.deepcopy(model)
    with show_targets(model, y):
        shown = model(x, task)
    torch.testing.assert_close(other(x, task, y), shown)
    h = model.features(x)
    for net in (model, other):
        torch.testing.assert_close(net.head.heads["0"].hebb, torch.stack([0.1 * h[::2].mean(0), 0 * h[0]]))
        torch.testing.assert_close(net.head.heads["1"].hebb[2], 0.1 * h[1::2].mean(0))
        assert (net.head.heads["1"].hebb[:2] == 0).all()
    with pytest.raises(ValueError, match=r"targets must have shape \(4,\)"):
        model(x, task, y[:3])

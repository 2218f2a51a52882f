"""The penalties in training loops of one's own: the same numbers in all of them."""

import copy
import pickle
import warnings
from contextlib import ExitStack

import lightning
import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.training import Naive
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset
from training import naive

from avsi import MASPlugin, OnlineEWCPlugin, SIPlugin
from avsi.consolidation import MASPenalty, OnlineEWCPenalty, SIPenalty
from avsi.consolidation import stability as stability_module
from avsi.consolidation import targets as targets_module
from avsi.consolidation.stability import learning_rates

PENALTIES = {
    "si": lambda model, **kwargs: SIPenalty(model, 2.0, damping=1e-2, **kwargs),
    "ewc": lambda model, **kwargs: OnlineEWCPenalty(model, 5.0, **kwargs),
    "mas": lambda model, **kwargs: MASPenalty(model, 0.05, **kwargs),
}
PLUGINS = {  # the same
    "si": lambda **kwargs: SIPlugin(2.0, damping=1e-2, **kwargs),
    "ewc": lambda **kwargs: OnlineEWCPlugin(5.0, **kwargs),
    "mas": lambda **kwargs: MASPlugin(0.05, **kwargs),
}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=3e-3),
}


def mlp(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2)).to(dtype)


def bare_loop(tasks, name, optimizer="sgd", *, accumulate=1, within=None, before=None, **kwargs):
    model = mlp()
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    penalty = PENALTIES[name](model, **kwargs)
    for task in tasks:
        for x, y in task:
            optimizer.zero_grad()
            for part_x, part_y in zip(x.chunk(accumulate), y.chunk(accumulate), strict=True):
                (cross_entropy(model(part_x), part_y) / accumulate).backward()
            if before:
                before(model)
            with penalty.step(optimizer):
                if within:
                    within(model)
                optimizer.step()
        penalty.consolidate(task)
    return model, penalty


def learn(model, penalty, optimizer, task):
    """Train on a task and consolidate it."""
    for x, y in task:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        with penalty.step(optimizer):
            optimizer.step()
    penalty.consolidate(task)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def omega(penalty):
    return torch.cat([value.flatten() for value in penalty.importance.values()])


def by_hand(tasks, name, optimizer):
    """The same training written out, with the penalty in the loss and autograd differentiating it."""
    model = mlp()
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    parameters = list(model.parameters())
    total = [torch.zeros_like(p) for p in parameters]
    anchor = [p.detach().clone() for p in parameters]
    strength = {"si": 2.0, "ewc": 5.0, "mas": 0.05}[name]
    for task in tasks:
        path = [torch.zeros_like(p) for p in parameters]
        for x, y in task:
            loss = cross_entropy(model(x), y)
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
            optimizer.zero_grad()
            held = sum((o * (p - a) ** 2).sum() for o, p, a in zip(total, parameters, anchor, strict=True))
            (loss + strength * held).backward()
            before = [p.detach().clone() for p in parameters]
            optimizer.step()
            for s, g, p, b in zip(path, gradients, parameters, before, strict=True):
                s -= g * (p.detach() - b)
        for k, p in enumerate(parameters):
            if name == "si":
                moved = p.detach() - anchor[k]
                total[k] = (total[k] + path[k] / (moved**2 + 1e-2)).clamp(min=0)
        if name != "si":
            samples = [(a, b) for x, y in task for a, b in zip(x, y, strict=True)]
            for a, b in samples:
                output = model(a[None])
                target = output.log_softmax(1)[0, b] if name == "ewc" else output.square().sum()
                for k, g in enumerate(torch.autograd.grad(target, parameters)):
                    total[k] = total[k] + (g.square() if name == "ewc" else g.abs()) / len(samples)
        anchor = [p.detach().clone() for p in parameters]
    return weights(model), torch.cat([t.flatten() for t in total])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", PENALTIES)
def test_agrees_with_autograd_over_two_tasks(tasks, name, optimizer):
    model, penalty = bare_loop(tasks, name, optimizer)
    theta, importance = by_hand(tasks, name, optimizer)
    torch.testing.assert_close(weights(model), theta, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(omega(penalty), importance, rtol=1e-9, atol=1e-12)


class Lit(lightning.LightningModule):
    """The loop as Lightning's users write it: the closure runs first, then the step is enclosed."""

    def __init__(self, model, penalty):
        super().__init__()
        self.model, self.penalty = model, penalty

    def training_step(self, batch, index):
        x, y = batch
        return cross_entropy(self.model(x), y)

    def configure_optimizers(self):
        return OPTIMIZERS["sgd"](self.model.parameters())

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        optimizer_closure()
        with self.penalty.step(optimizer):
            optimizer.step()


def in_lightning(tasks, name, *, accumulate=1):
    model = mlp()
    module = Lit(model, PENALTIES[name](model))
    for task in tasks:
        batches = [part for x, y in task for part in zip(x.chunk(accumulate), y.chunk(accumulate), strict=True)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = lightning.Trainer(
                max_epochs=1,
                accumulate_grad_batches=accumulate,
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
        module.penalty.consolidate(task)
    return model, module.penalty


class Accumulating(Naive):
    """Steps once every so many iterations, and announces these steps alone."""

    accumulate = 1

    def training_epoch(self, **kwargs):
        self.optimizer.zero_grad()
        for index, self.mbatch in enumerate(self.dataloader):  # noqa: B020 (as Avalanche does)
            self._unpack_minibatch()
            self._before_training_iteration(**kwargs)
            self._before_forward(**kwargs)
            self.mb_output = self.forward()
            self._after_forward(**kwargs)
            self.loss = self.criterion() / self.accumulate
            self._before_backward(**kwargs)
            self.backward()
            self._after_backward(**kwargs)
            if (index + 1) % self.accumulate == 0:
                self._before_update(**kwargs)
                self.optimizer_step()
                self._after_update(**kwargs)
                self.optimizer.zero_grad()
            self._after_training_iteration(**kwargs)


def in_avalanche(tasks, name, *, accumulate=1):
    model = mlp()
    plugin = PLUGINS[name]()
    data = []
    for task in tasks:
        x, y = (torch.cat(column) for column in zip(*task, strict=True))
        data.append(AvalancheDataset([TensorDataset(x, y)]))
        data[-1].targets = y
    strategy = naive(
        model,
        OPTIMIZERS["sgd"](model.parameters()),
        [plugin],
        strategy=Accumulating if accumulate > 1 else Naive,
        batch_size=64 // accumulate,
    )
    strategy.accumulate = accumulate
    for experience in benchmark_from_datasets(train=data).train_stream:
        strategy.train(experience, eval_streams=[], shuffle=False)
    return model, plugin.core


@pytest.mark.parametrize("name", PENALTIES)
def test_every_loop_trains_two_tasks_to_the_same_weights(tasks, name, tmp_path, monkeypatch):
    """On the same data, in the same order, from the same weights: steps on 64 images, or on 4 times 16."""
    monkeypatch.chdir(tmp_path)
    expected, reference = bare_loop(tasks, name)
    for loop in (bare_loop, in_lightning, in_avalanche):
        for accumulate in (1, 4):
            model, penalty = loop(tasks, name, accumulate=accumulate)
            torch.testing.assert_close(weights(model), weights(expected), rtol=1e-6, atol=1e-12)
            torch.testing.assert_close(omega(penalty), omega(reference), rtol=1e-6, atol=1e-12)
            assert penalty.experiences_seen == 2


@pytest.mark.parametrize("order", [("si", "ewc", "mas"), ("ewc", "mas", "si"), ("mas", "si", "ewc")])
@pytest.mark.parametrize("proximal", [(), ("ewc",), ("si", "mas")])
def test_several_penalties_see_the_task_gradient_alone_in_any_order(tasks, order, proximal):
    """Omega of SI is -g * delta, with g of the task loss and delta of the whole step, whoever is first."""
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    penalties = {n: PENALTIES[n](model, penalty="proximal" if n in proximal else "explicit") for n in PENALTIES}
    parameters = dict(model.named_parameters())
    for task in tasks:
        path = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for x, y in task:
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            gradient = {name: p.grad.clone() for name, p in parameters.items()}
            before = {name: p.detach().clone() for name, p in parameters.items()}
            with ExitStack() as stack:
                for name in order:
                    stack.enter_context(penalties[name].step(optimizer))
                optimizer.step()
            for name, p in parameters.items():
                path[name] -= gradient[name] * (p.detach() - before[name])
        for name, expected in path.items():
            torch.testing.assert_close(penalties["si"].path_integral[name], expected, rtol=1e-9, atol=1e-15)
        for penalty in penalties.values():
            penalty.consolidate(task)


@pytest.mark.parametrize("name", PENALTIES)
def test_clipping_within_the_step_clips_the_penalty_too_and_before_it_the_task_alone(tasks, name):
    def clip(model):
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.05).item())

    norms = []
    bare_loop(tasks, name, within=clip)
    within, norms = norms, []
    bare_loop(tasks, name, before=clip)
    assert within[: len(tasks[0])] == norms[: len(tasks[0])]  # no penalty in the first task
    assert within[-1] != norms[-1]


def test_si_sees_the_unclipped_gradient_and_the_clipped_step(tasks):
    model = mlp()
    optimizer, penalty = torch.optim.SGD(model.parameters(), lr=0.1), SIPenalty(model, 1.0)
    x, y = tasks[0][0]
    cross_entropy(model(x), y).backward()
    gradient = model[0].weight.grad.clone()
    with penalty.step(optimizer):
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
    expected = gradient**2 * 0.1 * 0.01 / norm
    torch.testing.assert_close(penalty.path_integral["0.weight"], expected, rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("kwargs", [{}, {"penalty": "proximal"}])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", PENALTIES)
def test_a_gradient_scaler_changes_nothing_and_steps_it_skips_count_for_nothing(tasks, name, fused, kwargs):
    expected, reference = bare_loop(tasks, name, **kwargs)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, fused=fused)
    penalty = PENALTIES[name](model, **kwargs)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for number, task in enumerate(tasks):
        for index, (x, y) in enumerate(task):
            for overflow in (True, False) if index == 1 else (False,):
                optimizer.zero_grad()
                scaler.scale(cross_entropy(model(x), y)).backward()
                if overflow:
                    model[0].weight.grad[0, 0] = float("inf")
                scaler.unscale_(optimizer)
                before = penalty.steps_seen
                with penalty.step(optimizer):
                    scaler.step(optimizer)
                scaler.update()
                assert penalty.steps_seen == before + (not overflow), (number, index)
        penalty.consolidate(task)
    torch.testing.assert_close(weights(model), weights(expected), rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(omega(penalty), omega(reference), rtol=1e-6, atol=1e-12)


def with_two_optimizers(tasks, name, how, optimizer, **kwargs):
    model = mlp()
    optimizers = [OPTIMIZERS[optimizer](part.parameters()) for part in (model[0], model[2])]
    penalty = PENALTIES[name](model, **kwargs)
    for task in tasks:
        for x, y in task:
            model.zero_grad()
            cross_entropy(model(x), y).backward()
            if how == "at once":
                with penalty.step(optimizers[0]), penalty.step(optimizers[1]):
                    for each in optimizers:
                        each.step()
            else:
                for each in optimizers:
                    with penalty.step(each):
                        each.step()
        penalty.consolidate(task)
    return model, penalty


@pytest.mark.parametrize("kind", ["explicit", "proximal"])
@pytest.mark.parametrize("how", ["in turn", "at once"])
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("name", PENALTIES)
def test_two_optimizers_on_one_model_are_one_over_all_of_it(tasks, name, optimizer, how, kind):
    expected, reference = bare_loop([*tasks, tasks[0]], name, optimizer, penalty=kind)
    model, penalty = with_two_optimizers([*tasks, tasks[0]], name, how, optimizer, penalty=kind)
    assert torch.equal(weights(model), weights(expected))
    assert torch.equal(omega(penalty), omega(reference))


def test_what_an_optimizer_steps_is_looked_up_once_and_where_it_is_given_more(tasks, monkeypatch):
    looked = []
    monkeypatch.setattr(targets_module, "learning_rates", lambda o: looked.append(o) or learning_rates(o))
    model = mlp()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.05)
    penalty = MASPenalty(model, 0.05)
    penalty.consolidate(tasks[0])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    for more in (False, True):
        if more:
            optimizer.add_param_group({"params": model[2].parameters()})
        for x, y in tasks[1]:
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            before = model[2].weight.grad.clone()
            with penalty.step(optimizer):
                assert torch.equal(model[2].weight.grad, before) is not more
                optimizer.step()
        assert len(looked) == 1 + more


def test_an_optimizer_that_holds_nothing_of_the_model_is_refused(tasks):
    model = mlp()
    penalty = MASPenalty(model, 0.05)
    penalty.consolidate(tasks[0])
    cross_entropy(model(tasks[1][0][0]), tasks[1][0][1]).backward()
    stale = OPTIMIZERS["sgd"](mlp().parameters())
    with pytest.raises(ValueError, match=r"holds no parameter of the model, so MASPenalty"), penalty.step(stale):
        pass
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer .*, got 0\.1"):
        MASPenalty(model, 0.05).begin_task(0.1)


def test_optimizers_that_take_turns_are_each_listened_to_once(tasks):
    model = mlp()
    optimizers = [OPTIMIZERS["sgd"](part.parameters()) for part in (model[0], model[2])]
    penalty = SIPenalty(model, 1.0)
    for x, y in tasks[0]:
        cross_entropy(model(x), y).backward()
        for optimizer in optimizers:
            with penalty.step(optimizer):
                optimizer.step()
    assert [len(optimizer._optimizer_step_post_hooks) for optimizer in optimizers] == [1, 1]
    copied, optimizer = copy.deepcopy((penalty, optimizers[0]))  # torch copies an optimizer without its hooks
    with copied.step(optimizer):
        optimizer.step()
    assert copied.steps_seen == penalty.steps_seen + 1


@pytest.mark.parametrize("penalty", ["explicit", "proximal"])
@pytest.mark.parametrize("name", PENALTIES)
def test_steps_that_an_avalanche_strategy_leaves_out_count_for_nothing(tasks, name, penalty):
    """As one does whose optimizer_step asks a GradScaler: training is that of the steps that were taken."""

    class Skipping(Naive):
        def optimizer_step(self):
            if self.clock.train_epoch_iterations % 2:
                self.optimizer.step()

    outcomes = []
    for strategy in (Skipping, Naive):
        plugin, model = PLUGINS[name](penalty=penalty), mlp()
        data = []
        for task in tasks:
            taken = task if strategy is Skipping else task[1::2]
            x, y = (torch.cat(column) for column in zip(*taken, strict=True))
            data.append(AvalancheDataset([TensorDataset(x, y)]))
            data[-1].targets = y
        trainer = naive(model, OPTIMIZERS["sgd"](model.parameters()), [plugin], strategy=strategy, batch_size=64)
        for number, experience in enumerate(benchmark_from_datasets(train=data).train_stream):
            plugin.batches = lambda _, number=number: tasks[number]
            trainer.train(experience, eval_streams=[], shuffle=False)
        outcomes.append((weights(model), omega(plugin)))
    for skipping, taken in zip(*outcomes, strict=True):
        assert torch.equal(skipping, taken)


@pytest.mark.parametrize("name", PENALTIES)
def test_micro_batches_that_all_announce_a_step_are_one_step(tasks, name):
    """As with Accelerate, whose optimizer neither steps nor sets gradients to zero while they are accumulated."""
    expected, reference = bare_loop(tasks, name, "momentum", accumulate=2)
    model = mlp()
    optimizer, penalty = OPTIMIZERS["momentum"](model.parameters()), PENALTIES[name](model)
    for task in tasks:
        for x, y in task:
            for part, (part_x, part_y) in enumerate(zip(x.chunk(2), y.chunk(2), strict=True)):
                (cross_entropy(model(part_x), part_y) / 2).backward()
                with penalty.step(optimizer):
                    if part:
                        optimizer.step()
            optimizer.zero_grad()
        assert penalty.steps_seen == len(task)
        penalty.consolidate(task)
    torch.testing.assert_close(weights(model), weights(expected), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(omega(penalty), omega(reference), rtol=1e-12, atol=1e-15)


def test_micro_batches_with_several_penalties(tasks):
    ends = []
    for announced in (False, True):
        model = mlp()
        optimizer = OPTIMIZERS["sgd"](model.parameters())
        penalties = [PENALTIES[name](model) for name in ("ewc", "si", "mas")]
        for task in tasks:
            for x, y in task:
                for part, (part_x, part_y) in enumerate(zip(x.chunk(2), y.chunk(2), strict=True)):
                    (cross_entropy(model(part_x), part_y) / 2).backward()
                    if part or announced:
                        with ExitStack() as stack:
                            for penalty in penalties:
                                stack.enter_context(penalty.step(optimizer))
                            if part:
                                optimizer.step()
                optimizer.zero_grad()
            for penalty in penalties:
                penalty.consolidate(task)
        ends.append((weights(model), *map(omega, penalties)))
    for pair in zip(*ends, strict=True):
        torch.testing.assert_close(*pair, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("change", ["zero", "none", "clip"])
def test_gradients_that_were_changed_within_a_step_that_was_not_taken_are_left_as_they_are(tasks, change):
    model = mlp()
    optimizer, penalty = OPTIMIZERS["sgd"](model.parameters()), PENALTIES["ewc"](model)
    penalty.consolidate(tasks[0])
    with torch.no_grad():
        model[0].weight.add_(1.0)
    x, y = tasks[1][0]
    cross_entropy(model(x), y).backward()
    with penalty.step(optimizer):
        if change == "clip":
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        else:
            optimizer.zero_grad(set_to_none=change == "none")
        left = None if change == "none" else model[0].weight.grad.clone()
    assert model[0].weight.grad is None if left is None else torch.equal(model[0].weight.grad, left)


@pytest.mark.parametrize("name", PENALTIES)
def test_a_closure_that_computes_the_gradient_within_the_step_is_noticed(tasks, name):
    """It would set the penalty's gradient to zero, and show SI the gradient of the step before."""
    model = mlp()
    optimizer, penalty = OPTIMIZERS["adam"](model.parameters()), PENALTIES[name](model)
    x, y = tasks[0][0]

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="computed anew within the optimizer's step"), penalty.step(optimizer):
        optimizer.step(closure)
    model.zero_grad()

    def closure_in_place():
        for parameter in model.parameters():
            parameter.grad.zero_()
        cross_entropy(model(x), y).backward()

    closure()
    with pytest.raises(RuntimeError, match="computed anew within the optimizer's step"), penalty.step(optimizer):
        optimizer.step(closure_in_place)
    model.zero_grad()

    def both():
        closure()
        optimizer.step()

    with pytest.raises(RuntimeError, match="computed anew within the optimizer's step"), penalty.step(optimizer):
        both()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    closure()
    with penalty.step(optimizer):
        optimizer.step(lambda: None)  # Lightning gives such a one where its own was called before
    assert penalty.steps_seen == 1
    optimizer.step(closure)  # none of the penalty's business


@pytest.mark.parametrize("name", PENALTIES)
def test_gradients_that_a_fused_optimizer_is_to_unscale_are_refused_before_it_steps(tasks, name):
    model = mlp(dtype=torch.float32)
    optimizer, penalty = torch.optim.SGD(model.parameters(), lr=0.1, fused=True), PENALTIES[name](model)
    before, scaler, (x, y) = weights(model), torch.amp.GradScaler("cpu", init_scale=8.0), tasks[0][0]
    scaler.scale(cross_entropy(model(x.float()), y)).backward()
    with pytest.raises(RuntimeError, match=r"still scaled.*call scaler.unscale_\(optimizer\)"), penalty.step(optimizer):
        scaler.step(optimizer)
    assert torch.equal(weights(model), before)


def test_an_overflow_that_one_of_two_optimizers_leaves_out_leaves_omega_finite(tasks):
    model = mlp(dtype=torch.float32)
    optimizers = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (model[0], model[2])]
    penalty, scaler = SIPenalty(model, 1.0), torch.amp.GradScaler("cpu", init_scale=8.0)
    x, y = tasks[0][0]
    scaler.scale(cross_entropy(model(x.float()), y)).backward()
    model[2].weight.grad[0, 0] = float("inf")
    for optimizer in optimizers:
        scaler.unscale_(optimizer)
    for optimizer in optimizers:
        with penalty.step(optimizer):
            scaler.step(optimizer)
    assert all(value.isfinite().all() for value in penalty.path_integral.values())
    assert penalty.path_integral["0.weight"].any()
    assert not penalty.path_integral["2.weight"].any()


@pytest.mark.parametrize("hooks", [False, True])
def test_a_fused_optimizer_that_leaves_out_a_step_leaves_omega_alone(tasks, hooks):
    """It does so on the device, where nobody sees it: the parameters do not move and the gradient is infinite."""
    model = mlp(dtype=torch.float32)
    optimizer, penalty = torch.optim.SGD(model.parameters(), lr=0.1, fused=True), SIPenalty(model, 1.0)
    x, y = tasks[0][0]
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for overflow in (False, True):
        optimizer.zero_grad()
        scaler.scale(cross_entropy(model(x.float()), y)).backward()
        if overflow:
            model[0].weight.grad[0, 0] = float("inf")
        scaler.unscale_(optimizer)
        before = {name: value.clone() for name, value in penalty.path_integral.items()}
        if hooks:  # as a plugin calls them
            penalty.observe()
            penalty.add(optimizer)
            scaler.step(optimizer)
            penalty.finish()
        else:
            with penalty.step(optimizer):
                scaler.step(optimizer)
        scaler.update()
        assert torch.equal(before["0.weight"], penalty.path_integral["0.weight"]) is overflow
    assert all(value.isfinite().all() for value in penalty.path_integral.values())


@pytest.mark.parametrize("name", PENALTIES)
def test_schedulers_and_parameter_groups(tasks, name):
    model = mlp()
    groups = [{"params": model[0].parameters(), "lr": 0.05}, {"params": model[2].parameters(), "lr": 0.01}]
    optimizer = torch.optim.SGD(groups)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    penalty = PENALTIES[name](model, penalty="proximal")
    for task in tasks:
        for x, y in task:
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            expected = {}
            for parameter, group in ((model[0].weight, 0), (model[2].weight, 1)):
                lr = optimizer.param_groups[group]["lr"]
                key = f"{0 if group == 0 else 2}.weight"
                moved = parameter.detach() - lr * parameter.grad
                rate = 2 * lr * penalty.strength * penalty.importance[key] * (penalty.experiences_seen > 0)
                expected[key] = (moved + rate * penalty.anchor[key]) / (1 + rate)
            with penalty.step(optimizer):
                optimizer.step()
            scheduler.step()
            for key, value in expected.items():
                torch.testing.assert_close(model.get_parameter(key).detach(), value, rtol=1e-12, atol=1e-15)
        penalty.consolidate(task)


class OfItsOwnRate(torch.optim.SGD):
    """Finds its learning rate by itself, and gives none, as Adafactor of Hugging Face's transformers."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=0.05)
        self.param_groups[0]["lr"] = None

    def step(self):
        self.param_groups[0]["lr"] = 0.05
        super().step()
        self.param_groups[0]["lr"] = None


def test_an_optimizer_without_a_learning_rate(tasks, monkeypatch):
    expected, _ = bare_loop(tasks, "ewc", "sgd")
    monkeypatch.setitem(OPTIMIZERS, "own", OfItsOwnRate)
    monkeypatch.setattr(stability_module, "_has_bound", lambda optimizer: False)  # it is none of SGD's family
    model, _ = bare_loop(tasks, "ewc", "own")
    assert torch.equal(weights(model), weights(expected))
    with pytest.raises(ValueError, match=r"the optimizer has none \(lr=None\)"):
        bare_loop(tasks, "ewc", "own", penalty="proximal")


@pytest.mark.parametrize("name", PENALTIES)
def test_without_the_optimizer_the_numbers_are_the_same(tasks, name):
    expected, _ = bare_loop(tasks, name)
    model = mlp()
    optimizer, penalty = OPTIMIZERS["sgd"](model.parameters()), PENALTIES[name](model)
    for task in tasks:
        for x, y in task:
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            with penalty.step():
                optimizer.step()
        penalty.consolidate(task)
    assert torch.equal(weights(model), weights(expected))


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("by", ["state_dict", "pickle"])
def test_training_goes_on_bit_for_bit_in_the_middle_of_a_task(tasks, tmp_path, name, by):
    expected, reference = bare_loop(tasks, name, "adam")
    model = mlp()
    optimizer, penalty = OPTIMIZERS["adam"](model.parameters()), PENALTIES[name](model)
    for number, task in enumerate(tasks):
        for index, (x, y) in enumerate(task):
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            with penalty.step(optimizer):
                optimizer.step()
            if (number, index) == (1, 1) and by == "pickle":
                model, optimizer, penalty = pickle.loads(pickle.dumps((model, optimizer, penalty)))
            elif (number, index) == (1, 1):
                parts = {"model": model, "optimizer": optimizer, "penalty": penalty}
                torch.save({key: part.state_dict() for key, part in parts.items()}, tmp_path / "state.pt")
                state = torch.load(tmp_path / "state.pt", weights_only=True)
                model = mlp(seed=1)
                optimizer, penalty = OPTIMIZERS["adam"](model.parameters()), PENALTIES[name](model)
                for key, part in (("model", model), ("optimizer", optimizer), ("penalty", penalty)):
                    part.load_state_dict(state[key])
        penalty.consolidate(task)
    assert torch.equal(weights(model), weights(expected))
    assert torch.equal(omega(penalty), omega(reference))


@pytest.mark.parametrize("wrap", ["compile", "accelerate"])
def test_wrappers_of_models_and_optimizers_are_looked_through(tasks, wrap):
    expected, reference = bare_loop(tasks, "si")
    model = mlp()
    called, optimizer = model, OPTIMIZERS["sgd"](model.parameters())
    stepped = optimizer
    if wrap == "compile":
        called = torch.compile(model, backend="eager")
    else:

        class Wrapped:  # as Accelerate's, which has the optimizer within
            def __init__(self, optimizer):
                self.optimizer, self.step = optimizer, optimizer.step

            @property
            def param_groups(self):
                return self.optimizer.param_groups

        stepped = Wrapped(optimizer)
    penalty = PENALTIES["si"](called)
    for task in tasks:
        for x, y in task:
            optimizer.zero_grad()
            cross_entropy(called(x), y).backward()
            with penalty.step(stepped):
                stepped.step()
        penalty.consolidate()
    assert penalty.importance.keys() == reference.importance.keys()
    torch.testing.assert_close(weights(model), weights(expected), rtol=1e-9, atol=1e-12)


class SharpnessAware(torch.optim.Optimizer):
    """The usual implementation: two phases, the second of which takes the inner optimizer's step."""

    def __init__(self, parameters, rho):
        super().__init__(parameters, {"rho": rho, "lr": 0.05})
        self.base_optimizer = OPTIMIZERS["sgd"](self.param_groups)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self):
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["old"] = parameter.clone()
            parameter.add_(parameter.grad, alpha=self.param_groups[0]["rho"])
        self.zero_grad()

    @torch.no_grad()
    def second_step(self):
        for parameter in self.param_groups[0]["params"]:
            parameter.copy_(self.state[parameter]["old"])
        self.base_optimizer.step()


@pytest.mark.parametrize("name", ["si", "ewc"])
def test_an_optimizer_whose_inner_one_steps_is_the_inner_one(tasks, name):
    ends = []
    for outer in (False, True):
        model = mlp()
        optimizer, penalty = SharpnessAware(model.parameters(), 0.01), PENALTIES[name](model, penalty="proximal")
        for task in tasks:
            for x, y in task:
                cross_entropy(model(x), y).backward()
                optimizer.first_step()
                cross_entropy(model(x), y).backward()
                with penalty.step(optimizer if outer else optimizer.base_optimizer):
                    optimizer.second_step()
                optimizer.zero_grad()
            assert penalty.steps_seen == len(task)
            penalty.consolidate(task)
        ends.append((weights(model), omega(penalty)))
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True))


@pytest.mark.parametrize("name", PENALTIES)
def test_sharpness_aware_minimisation_is_pulled_from_where_its_step_begins(tasks, name):
    """Not from the top of the ascent, which lies away from the anchor."""
    model = mlp()
    optimizer, penalty = SharpnessAware(model.parameters(), 0.05), PENALTIES[name](model)
    for task in tasks[:2]:
        for x, y in task:
            start = [parameter.detach().clone() for parameter in model.parameters()]
            cross_entropy(model(x), y).backward()
            optimizer.first_step()
            cross_entropy(model(x), y).backward()
            gradients = [parameter.grad.clone() for parameter in model.parameters()]
            with penalty.step(optimizer):
                optimizer.second_step()
            omegas, anchors = penalty.importance.values(), penalty.anchor.values()
            for parameter, gradient, theta, omega, anchor in zip(
                model.parameters(), gradients, start, omegas, anchors, strict=True
            ):
                pulled = gradient + (2 * penalty.strength * omega * (theta - anchor) if task is tasks[1] else 0)
                torch.testing.assert_close(parameter.grad, pulled, rtol=1e-9, atol=1e-12)
            optimizer.zero_grad()
        penalty.consolidate(task)


def test_omega_of_sharpness_aware_minimisation_is_that_of_the_step_it_takes(tasks):
    """Without the way back from the ascent, along which the gradient is largest."""
    model = mlp()
    optimizer, penalty = SharpnessAware(model.parameters(), 0.05), PENALTIES["si"](model)
    expected = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for x, y in tasks[0]:
        start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        cross_entropy(model(x), y).backward()
        optimizer.first_step()
        cross_entropy(model(x), y).backward()
        with penalty.step(optimizer):
            optimizer.second_step()
        for name, parameter in model.named_parameters():
            expected[name] -= parameter.grad * (parameter.detach() - start[name])
        optimizer.zero_grad()
    for name, omega_of_path in penalty.path_integral.items():
        torch.testing.assert_close(omega_of_path, expected[name], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", PENALTIES)
def test_both_phases_of_sharpness_aware_minimisation_in_one_step_are_refused(tasks, name):
    """The penalty would enter the ascent alone."""
    model = mlp()
    optimizer, penalty = SharpnessAware(model.parameters(), 0.05), PENALTIES[name](model)
    x, y = tasks[0][0]

    def both():
        optimizer.first_step()
        cross_entropy(model(x), y).backward()
        optimizer.second_step()

    cross_entropy(model(x), y).backward()
    with pytest.raises(RuntimeError, match="enclose the second phase alone"), penalty.step(optimizer):
        both()


@pytest.mark.parametrize("name", ["ewc", "mas"])
@pytest.mark.parametrize("part_first", [False, True])
def test_a_penalty_on_a_part_of_the_model_is_no_gradient_of_the_task_for_si(tasks, name, part_first):
    omegas = []
    for whole in (True, False):
        model = mlp()
        part = model if whole else model[0]
        kwargs = {"exclude": ["2.*"]} if whole else {}
        si = None if part_first else SIPenalty(model, 0.0)
        penalty = PENALTIES[name](part, **kwargs)
        si = si or SIPenalty(model, 0.0)
        optimizer = OPTIMIZERS["sgd"](model.parameters())
        for number, task in enumerate(tasks[:2]):
            for x, y in task:
                optimizer.zero_grad()
                cross_entropy(model(x), y).backward()
                with penalty.step(optimizer), si.step(optimizer):
                    optimizer.step()
            if number == 0:
                si.consolidate(task)
                penalty.bind()
                penalty.begin_task()
                penalty.importance = {key: torch.ones_like(value) for key, value in penalty.importance.items()}
                penalty.experiences_seen = 1
                penalty._forget_targets()
        omegas.append(torch.cat([value.flatten() for value in si.path_integral.values()]))
    torch.testing.assert_close(omegas[1], omegas[0], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", PENALTIES)
def test_a_group_that_is_exchanged_within_a_task_is_noticed(tasks, name):
    """As in staged unfreezing, for another of as many parameters."""
    model = mlp()
    penalty = PENALTIES[name](model)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    learn(model, penalty, optimizer, tasks[0])
    x, y = tasks[1][0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    for layer, other in ((0, 2), (2, 0)):
        optimizer.param_groups[0]["params"] = list(model[layer].parameters())
        model.zero_grad()
        cross_entropy(model(x), y).backward()
        before = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        with penalty.step(optimizer):
            optimizer.step()
        assert not torch.equal(model[layer].weight.grad, before[f"{layer}.weight"])
        assert torch.equal(model[other].weight.grad, before[f"{other}.weight"])


def test_a_step_that_a_scaler_leaves_out_counts_for_nothing_without_the_optimizer_too(tasks):
    """Whose gradient overflowed."""
    omegas = []
    for overflow in (False, True):
        model = mlp()
        penalty, optimizer = PENALTIES["si"](model), OPTIMIZERS["sgd"](model.parameters())
        for number, (x, y) in enumerate(tasks[0]):
            optimizer.zero_grad()
            if number == 2 and not overflow:
                continue
            cross_entropy(model(x), y).backward()
            if number == 2:
                model[0].weight.grad[0, 0] = float("inf")
            with penalty.step():
                if number != 2:
                    optimizer.step()
        omegas.append(torch.cat([value.flatten() for value in penalty.path_integral.values()]))
    torch.testing.assert_close(omegas[1], omegas[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", PENALTIES)
def test_what_a_task_trained_and_froze_is_consolidated_after_a_resume(tasks, name):
    ends = []
    for resume in (False, True):
        model = mlp()
        penalty = PENALTIES[name](model)
        for number, (x, y) in enumerate(tasks[0]):
            if number == 3:
                model[0].requires_grad_(False)
                penalty.bind()
                if resume:
                    state = copy.deepcopy(penalty.state_dict())
                    penalty = PENALTIES[name](model)
                    penalty.load_state_dict(state)
            optimizer = OPTIMIZERS["sgd"]([p for p in model.parameters() if p.requires_grad])
            model.zero_grad()
            cross_entropy(model(x), y).backward()
            with penalty.step(optimizer):
                optimizer.step()
        if resume:  # and at the very end once more
            state = copy.deepcopy(penalty.state_dict())
            penalty = PENALTIES[name](model)
            penalty.load_state_dict(state)
        penalty.consolidate(tasks[0])
        assert torch.equal(penalty.anchor["0.weight"], model[0].weight)
        assert penalty.importance["0.weight"].any()
        assert "frozen_in_task" not in penalty.state_dict()
        ends.append(omega(penalty))
    assert torch.equal(*ends)


def test_steps_of_another_optimizer_than_the_given_one_are_noticed(tasks):
    model = mlp()
    penalty = PENALTIES["ewc"](model)
    given, stepped = (OPTIMIZERS["sgd"](model.parameters()) for _ in range(2))
    x, y = tasks[0][0]
    cross_entropy(model(x), y).backward()
    with penalty.step(given):
        stepped.step()
    with pytest.warns(
        UserWarning, match="no step of task 0 was taken by the optimizer that OnlineEWCPenalty was given"
    ):
        penalty.consolidate(tasks[0])


@pytest.mark.parametrize("name", PENALTIES)
def test_what_was_frozen_before_the_tasks_end_is_consolidated(tasks, name):
    """As if it were not frozen and got no gradient; what was frozen throughout a task keeps what it had."""
    ends = []
    for freeze in (False, True):
        model = mlp()
        optimizer, penalty = OPTIMIZERS["sgd"](model.parameters()), PENALTIES[name](model)
        body = list(model[0].parameters())
        for step, (x, y) in enumerate(tasks[0]):
            if freeze and step == 3:
                model[0].requires_grad_(False)
                penalty.bind()
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            if step >= 3:
                for parameter in body:
                    parameter.grad = None
            with penalty.step(optimizer):
                optimizer.step()
        penalty.consolidate(tasks[0])
        assert all(parameter.requires_grad != freeze for parameter in body)
        ends.append(({n: t.clone() for n, t in penalty.importance.items()}, dict(penalty.anchor)))
        assert torch.equal(penalty.anchor["0.weight"], model[0].weight)
    for kind in (0, 1):
        for key, value in ends[0][kind].items():
            torch.testing.assert_close(ends[1][kind][key], value, rtol=1e-12, atol=0)
    before = penalty.importance["0.weight"].clone()
    learn(model, penalty, optimizer, tasks[1])
    assert torch.equal(penalty.importance["0.weight"], before)


@pytest.mark.parametrize("name", PENALTIES)
def test_what_is_unfrozen_in_the_middle_of_a_task_is_penalised_from_then_on(tasks, name):
    """As if it were bound again there: heads are often trained alone at first."""
    ends = []
    for bind in (False, True):
        model = mlp()
        optimizer, penalty = OPTIMIZERS["sgd"](model.parameters()), PENALTIES[name](model)
        for number, task in enumerate(tasks):
            for step, (x, y) in enumerate(task):
                model[0].requires_grad_(number == 0 or step > 1)
                if bind and step == 2:
                    penalty.bind()
                optimizer.zero_grad()
                cross_entropy(model(x), y).backward()
                with penalty.step(optimizer):
                    optimizer.step()
            penalty.consolidate(task)
        ends.append((weights(model), omega(penalty)))
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True))


def test_consolidating_in_inference_mode_is_consolidating(tasks):
    model = mlp()
    penalty = PENALTIES["ewc"](model)
    with torch.inference_mode():
        penalty.consolidate(tasks[0])
    with torch.no_grad():
        model[0].weight.add_(0.1)
    penalty.value().backward()
    assert model[0].weight.grad.abs().sum() > 0


def test_a_layer_added_between_tasks_is_found_and_one_added_within_is_after_bind(tasks):
    model = mlp()
    optimizer, penalty = torch.optim.SGD(model.parameters(), lr=0.05), SIPenalty(model, 1.0)

    def take_step(index):
        x, y = tasks[index][0]
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        with penalty.step(optimizer):
            optimizer.step()

    take_step(0)
    penalty.consolidate()
    for name, bind in (("between", False), ("within", True)):
        model.add_module(name, nn.Linear(2, 2).double())
        optimizer.add_param_group({"params": model.get_submodule(name).parameters()})
        if bind:
            penalty.bind()
        take_step(1)
        assert penalty.path_integral[f"{name}.weight"].abs().sum() > 0


def test_a_task_that_began_away_from_the_anchor_goes_on_from_a_state(tasks):
    model = mlp()
    optimizer, penalty = torch.optim.SGD(model.parameters(), lr=0.05), SIPenalty(model, 1.0)
    for x, y in tasks[0][:2]:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        with penalty.step(optimizer):
            optimizer.step()
        if penalty.experiences_seen == 0:
            penalty.consolidate()
            with torch.no_grad():
                model[0].weight.add_(0.5)
    resumed = SIPenalty(model, 1.0)
    resumed.load_state_dict(penalty.state_dict())
    for each in (penalty, resumed):
        each.consolidate()
    torch.testing.assert_close(omega(resumed), omega(penalty), rtol=0, atol=0)


def test_consolidating_si_without_a_step_is_an_error(tasks):
    model = mlp()
    with pytest.raises(RuntimeError, match=r"SIPenalty saw no step in task 0.*with penalty\.step\(optimizer\)"):
        SIPenalty(model, 1.0).consolidate()


@pytest.mark.parametrize("name", ["ewc", "mas"])
def test_consolidating_without_data_is_an_error(name):
    with pytest.raises(TypeError, match="needs the task's data"):
        PENALTIES[name](mlp()).consolidate()


def test_a_step_that_fails_or_does_not_step_counts_for_nothing(tasks):
    model = mlp()
    optimizer, penalty = torch.optim.SGD(model.parameters(), lr=0.05), SIPenalty(model, 1.0)
    x, y = tasks[0][0]
    cross_entropy(model(x), y).backward()
    with pytest.raises(KeyboardInterrupt), penalty.step(optimizer):
        raise KeyboardInterrupt
    with penalty.step(optimizer):
        pass
    assert penalty.steps_seen == 0
    with penalty.step(optimizer):
        optimizer.step()
    assert penalty.steps_seen == 1


def test_infinite_gradients_are_looked_for_under_a_scaler_alone(tasks, monkeypatch):
    """It is a pass over memory in each step."""
    looked = []
    monkeypatch.setattr(torch.Tensor, "nan_to_num_", lambda gradient, *_: looked.append(gradient))
    scaler = torch.amp.GradScaler("cpu")
    for scale in (False, True, False):
        model = mlp(dtype=torch.float32)
        optimizer, penalty = torch.optim.SGD(model.parameters(), lr=0.1, fused=True), SIPenalty(model, 1.0)
        x, y = tasks[0][0]
        loss = cross_entropy(model(x.float()), y)
        (scaler.scale(loss) if scale else loss).backward()
        if scale:
            scaler.unscale_(optimizer)
        with penalty.step(optimizer):
            if scale:
                scaler.step(optimizer)
            else:
                optimizer.step()
        assert bool(looked) is scale
        looked.clear()


def test_a_step_that_reaches_no_parameter_adds_nothing(tasks):
    model = mlp()
    optimizer, penalty = torch.optim.SGD(model.parameters(), lr=0.05), SIPenalty(model, 1.0)
    x, y = tasks[0][0]
    cross_entropy(model(x), y).backward()
    for reached in (True, False):
        if not reached:
            optimizer.zero_grad()
        before = {name: value.clone() for name, value in penalty.path_integral.items()}
        with penalty.step(optimizer):
            optimizer.step()
        same = all(torch.equal(before[name], value) for name, value in penalty.path_integral.items())
        assert same is not reached


def test_si_looks_anew_where_another_penaltys_step_showed_it_a_gradient(tasks):
    """Steps that only the other one encloses count for nothing."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    si, mas = SIPenalty(model, 1.0), MASPenalty(model, 1.0)
    for batch, penalty in zip(tasks[0][:2], (mas, si), strict=True):
        optimizer.zero_grad()
        cross_entropy(model(batch[0]), batch[1]).backward()
        gradient = model[0].weight.grad.clone()
        with penalty.step(optimizer):
            optimizer.step()
    torch.testing.assert_close(si.path_integral["0.weight"], 0.05 * gradient**2)


def unfinished(how, model, penalty, optimizer):
    """Begin a step that is not taken."""
    if how == "error":
        with pytest.raises(KeyboardInterrupt), penalty.step(optimizer):
            raise KeyboardInterrupt
        return
    penalty.observe()
    penalty.add(optimizer)
    if how == "consolidation":
        penalty.consolidate([(torch.ones(1, 64, dtype=torch.float64), torch.zeros(1, dtype=torch.int64))])
    else:
        penalty.load_state_dict(penalty.state_dict())
        penalty.bind()


@pytest.mark.parametrize("how", ["error", "consolidation", "loading"])
def test_the_proximal_step_of_a_step_that_was_not_taken_is_forgotten(tasks, how):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    penalty = OnlineEWCPenalty(model, 100.0, mode="separate", penalty="proximal")  # its anchor is not where weights are
    penalty.consolidate(tasks[0])
    with torch.no_grad():
        model[0].weight.add_(1.0)
    cross_entropy(model(tasks[1][0][0]), tasks[1][0][1]).backward()
    unfinished(how, model, penalty, optimizer)
    before = weights(model)
    penalty.finish()
    assert torch.equal(weights(model), before)


@pytest.mark.parametrize("how", ["error", "loading"])
def test_the_gradient_of_a_step_that_was_not_taken_is_forgotten(tasks, how):
    model = mlp()
    optimizer, penalty = torch.optim.SGD(model.parameters(), lr=0.05), SIPenalty(model, 1.0)
    for number, (x, y) in enumerate(tasks[0][:2]):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        gradient = model[0].weight.grad.clone()
        if number == 0:
            unfinished(how, model, penalty, optimizer)
    with penalty.step(optimizer):
        optimizer.step()
    torch.testing.assert_close(penalty.path_integral["0.weight"], 0.05 * gradient**2)


@pytest.mark.parametrize("name", PENALTIES)
def test_no_state_remembers_how_it_was_computed(tasks, name):
    """No autograd graph, also where the hooks are called with gradients on, as Avalanche does."""
    model = mlp()
    optimizer, penalty = OPTIMIZERS["sgd"](model.parameters()), PENALTIES[name](model)
    for task in tasks:
        penalty.begin_task(optimizer)
        for x, y in task:
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            penalty.observe()
            penalty.add(optimizer)
            assert not any(p.grad.requires_grad for p in model.parameters())
            optimizer.step()
            penalty.finish()
            kept = [tensor for tensors in penalty._step_state() for tensor in tensors.values()]
            assert not any(tensor.requires_grad for tensor in kept)
        penalty.consolidate(task)


def test_a_second_step_on_one_backward_pass_adds_nothing(tasks):
    """Its task gradient is not known."""
    model = mlp()
    optimizer, penalty = torch.optim.SGD(model.parameters(), lr=0.05), SIPenalty(model, 1.0)
    x, y = tasks[0][0]
    cross_entropy(model(x), y).backward()
    gradient = model[0].weight.grad.clone()
    penalty.begin_task(optimizer)
    penalty.observe()
    for _ in range(2):
        penalty.add(optimizer)
        optimizer.step()
        penalty.finish()
    torch.testing.assert_close(penalty.path_integral["0.weight"], 0.05 * gradient**2)


def test_no_gradient_is_held_between_tasks(tasks):
    _, penalty = bare_loop(tasks[:1], "si")
    assert penalty._gradients == []


def test_a_model_is_needed_and_lbfgs_refused():
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got 0\.1"):
        SIPenalty(0.1, 1.0)
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters())
    with pytest.raises(TypeError, match=r"LBFGS.*SGD or Adam"), SIPenalty(model, 1.0).step(optimizer):
        optimizer.step()


def test_an_optimizer_that_maximises_is_refused():
    model = mlp()
    optimizer = torch.optim.SGD([{"params": model.parameters(), "maximize": True}], lr=0.1)
    with (
        pytest.raises(ValueError, match=r"maximize=True.*minimise the negative"),
        SIPenalty(model, 1.0).step(optimizer),
    ):
        optimizer.step()


@pytest.mark.parametrize("si_first", [True, False])
def test_the_gradient_of_a_step_that_was_refused_is_forgotten(si_first):
    model = torch.nn.Linear(2, 2)
    si, ewc = SIPenalty(model, 0.0), OnlineEWCPenalty(model, 1.0, penalty="proximal")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.ones(4, 2)
    ewc.consolidate([(x, torch.zeros(4, dtype=torch.long))])
    model(x).sum().backward()
    with pytest.raises(ValueError, match="needs the learning rate"), ewc.step():
        optimizer.step()
    optimizer.zero_grad()
    (100 * model(x).sum()).backward()
    gradient, before = model.bias.grad.clone(), model.bias.detach().clone()
    first, second = (si, ewc) if si_first else (ewc, si)
    with first.step(optimizer), second.step(optimizer):
        optimizer.step()
    torch.testing.assert_close(si.path_integral["bias"], -gradient * (model.bias.detach() - before))

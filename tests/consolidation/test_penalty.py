"""The quadratic penalty: its stability, its proximal step, what is done about divergence, its state and arguments."""

import copy
import inspect
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import prune

from avsi import MASPlugin, OnlineEWCPlugin, SIPlugin
from avsi.consolidation import (
    DivergenceError,
    MASPenalty,
    OnlineEWCPenalty,
    QuadraticPenalty,
    SIPenalty,
    StabilityWarning,
    largest_stable_strength,
)
from avsi.consolidation.divergence import FirstFault, largest
from avsi.consolidation.parameters import penalised_parameters


class Point(nn.Module):
    """A model that is its parameters."""

    def __init__(self, theta):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta, dtype=torch.float64))


class Given(QuadraticPenalty):
    """Importances that are given."""

    def __init__(self, model, strength, omega, **kwargs):
        super().__init__(model, strength, **kwargs)
        self.omega = torch.tensor(omega, dtype=torch.float64)

    def new_importance(self, parameters, batches):
        return {"theta": self.omega.clone()}


def descend(model, penalty, optimizer, steps, slope=0.0):
    for _ in range(steps):
        model.theta.grad = torch.full_like(model.theta, slope)
        with penalty.step(optimizer):
            optimizer.step()


# Stability

SGD = {
    "plain": {"lr": 0.1},
    "heavy ball": {"lr": 0.1, "momentum": 0.8},
    "dampened": {"lr": 0.1, "momentum": 0.8, "dampening": 0.5},
    "nesterov": {"lr": 0.1, "momentum": 0.8, "nesterov": True},
}


@pytest.mark.parametrize("name", SGD)
def test_largest_stable_strength_is_where_displacements_begin_to_grow(name):
    for factor, grows in ((0.95, False), (1.05, True)):
        model = Point([1.0, 1.0])
        optimizer = torch.optim.SGD(model.parameters(), **SGD[name])
        bound = largest_stable_strength(optimizer, {"theta": model.theta}, {"theta": torch.tensor([0.5, 4.0])})
        penalty = Given(model, factor * bound, [0.5, 4.0])
        penalty.consolidate()
        with torch.no_grad():
            model.theta.add_(1e-6)
        if grows:
            with pytest.warns(StabilityWarning, match=f"is beyond {bound:.3g}"), pytest.raises(DivergenceError):
                descend(model, penalty, optimizer, 250)
        else:
            descend(model, penalty, optimizer, 250)
            assert (model.theta - 1).abs().max() < 1e-6
        assert penalty.stable_strength == pytest.approx(bound)


def test_the_bound_of_plain_sgd_is_the_one_of_the_papers_scale():
    model = Point([1.0])
    bound = largest_stable_strength(
        torch.optim.SGD(model.parameters(), lr=0.05), {"theta": model.theta}, {"theta": torch.tensor([3.0])}
    )
    assert 2 * bound * 3.0 * 0.05 == pytest.approx(2)


def test_parameters_without_an_importance_do_not_count():
    model = torch.nn.Linear(2, 1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    assert largest_stable_strength(sgd, dict(model.named_parameters()), {"bias": torch.tensor([4.0])}) == 2.5


def test_other_optimizers_have_no_bound_and_frozen_learning_rates_neither():
    model = Point([1.0])
    for optimizer in (torch.optim.Adam(model.parameters(), lr=0.1), torch.optim.SGD(model.parameters(), lr=0.0)):
        omega = {"theta": torch.tensor([1e9])}
        assert largest_stable_strength(optimizer, {"theta": model.theta}, omega) == math.inf


def test_averaged_sgd_has_the_bound_of_sgd():
    theta, bounds = torch.nn.Parameter(torch.ones(2)), []
    for kind in (torch.optim.SGD, torch.optim.ASGD):
        omega = {"theta": torch.tensor([0.0, 4.0])}
        bounds.append(largest_stable_strength(kind([theta], lr=0.1), {"theta": theta}, omega))
    assert bounds == [2.5, 2.5]


def test_the_warning_comes_once_at_the_start_of_the_task_where_it_first_holds(recwarn):
    model = Point([1.0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    penalty = Given(model, 3.0, [1.0])
    for omega, said in ((1.0, 0), (1.0, 0), (4.0, 0), (4.0, 1), (4.0, 1)):
        descend(model, penalty, optimizer, 1)
        assert len([w for w in recwarn if w.category is StabilityWarning]) == said
        penalty.omega.fill_(omega)
        penalty.consolidate()
    assert "strength 3 of Given is beyond 2.5" in str(recwarn[0].message)
    assert "task 3" in str(recwarn[0].message)


class Heads(nn.Module):
    """A trunk, and a head per task."""

    def __init__(self):
        super().__init__()
        self.trunk, self.heads = nn.Linear(4, 4), nn.ModuleList(nn.Linear(4, 2) for _ in range(2))

    def forward(self, x, task):
        return self.heads[task](self.trunk(x))


class OfHeads(QuadraticPenalty):
    """Importance 1 in the trunk, 100 in the heads."""

    def new_importance(self, parameters, batches):
        return {name: torch.full_like(p, 1.0 if "trunk" in name else 100.0) for name, p in parameters.items()}


@pytest.mark.parametrize("by", ["one optimizer", "two optimizers"])
def test_stability_is_that_of_parameters_the_task_reaches(by, recwarn):
    torch.manual_seed(0)
    model = Heads()
    parts = [model] if by == "one optimizer" else [model.trunk, model.heads]
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in parts]
    penalty = OfHeads(model, 1.0, exclude=["heads.1.*"])
    penalty.consolidate()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)

    def train(task):
        model.zero_grad()
        cross_entropy(model(torch.ones(2, 4), task), torch.tensor([0, 1])).backward()
        for optimizer in optimizers:
            with penalty.step(optimizer):
                optimizer.step()

    train(task=1)
    assert (penalty.unstable, penalty.stable_strength) == (False, pytest.approx(1 / 0.1 / 1.0))
    assert "learning rate" in penalty.why()
    assert not recwarn.list
    with pytest.warns(StabilityWarning, match=r"strength 1 of OfHeads is beyond 0\.1,"):
        train(task=0)
    assert (penalty.unstable, penalty.stable_strength) == (True, pytest.approx(1 / 0.1 / 100.0))
    assert "strength 1 of OfHeads is beyond 0.1, " in penalty.why()


def test_the_warning_comes_before_the_step_it_is_about():
    model = Point([1.0])
    penalty, optimizer = Given(model, 3.0, [4.0]), torch.optim.SGD(model.parameters(), lr=0.1)
    penalty.consolidate()
    penalty.begin_task(optimizer)
    model.theta.grad = torch.ones_like(model.theta)
    step = penalty.step(optimizer)
    with pytest.warns(StabilityWarning):
        step.__enter__()
    step.__exit__(None, None, None)


@pytest.mark.parametrize("tensor", [False, True])
def test_a_learning_rate_that_warms_up_is_looked_at_as_it_rises(recwarn, tensor):
    """Stable up to 1 / (lr Omega): strength 3 with Omega = 4 up to a learning rate of 1 / 12."""
    model = Point([1.0])
    penalty = Given(model, 3.0, [4.0])
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.0) if tensor else 0.0)
    penalty.consolidate()
    for rate, said in ((0.0, 0), (0.04, 0), (0.08, 0), (0.02, 0), (0.09, 1), (0.1, 1)):
        if tensor:
            optimizer.param_groups[0]["lr"].fill_(rate)
        else:
            optimizer.param_groups[0]["lr"] = rate
        descend(model, penalty, optimizer, 1)
        assert len([w for w in recwarn if w.category is StabilityWarning]) == said
        assert penalty.unstable == bool(said)
    assert penalty.stable_strength == pytest.approx(2.5)


class Elsewhere(torch.Tensor):
    """A CPU tensor that says it is on a GPU."""

    @property
    def device(self):
        return torch.device("cuda")


def test_a_task_that_becomes_unstable_late_diverges_where_it_does_on_a_device_too(monkeypatch):
    monkeypatch.setattr("avsi.consolidation.stability.largest", lambda tensors: largest(tensors).as_subclass(Elsewhere))
    model = Point([1.0])
    penalty, optimizer = Given(model, 0.0, [4.0]), torch.optim.SGD(model.parameters(), lr=0.1)
    penalty.consolidate()
    descend(model, penalty, optimizer, 5)
    penalty.strengths = (3.0,)
    with pytest.warns(StabilityWarning):
        descend(model, penalty, optimizer, 1)
    with torch.no_grad():
        model.theta.fill_(1e7)
    descend(model, penalty, optimizer, 2)
    with pytest.raises(DivergenceError) as caught:
        penalty.check()
    assert caught.value.step == 6


# The proximal step


def test_proximal_is_the_formula_and_the_exact_minimiser():
    model = Point([1.0, -2.0, 3.0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    penalty = Given(model, 7.0, [0.0, 2.0, 1e6], penalty="proximal")
    anchor = model.theta.detach().clone()
    penalty.consolidate()
    with torch.no_grad():
        model.theta.add_(0.5)
    moved = model.theta.detach() - 0.1 * 2.0
    descend(model, penalty, optimizer, 1, slope=2.0)
    rate = 2 * 0.1 * 7.0 * penalty.omega
    torch.testing.assert_close(model.theta.detach(), (moved + rate * anchor) / (1 + rate))
    assert model.theta[0].item() == moved[0].item()  # importance 0: to the last bit
    theta = model.theta.detach().clone().requires_grad_()
    objective = 7.0 * (penalty.omega * (theta - anchor) ** 2).sum() + ((theta - moved) ** 2).sum() / (2 * 0.1)
    (gradient,) = torch.autograd.grad(objective, theta)
    torch.testing.assert_close(gradient / (1 + rate), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-9)


def test_proximal_holds_where_explicit_diverges_and_has_its_fixed_point():
    for kind in ("explicit", "proximal"):
        model = Point([1.0])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        penalty = Given(model, 50.0, [1.0], penalty=kind)
        penalty.consolidate()
        if kind == "explicit":
            with pytest.warns(StabilityWarning), pytest.raises(DivergenceError, match="beyond 10,"):
                descend(model, penalty, optimizer, 200, slope=3.0)
            continue
        descend(model, penalty, optimizer, 200, slope=3.0)
        assert model.theta.item() == pytest.approx(1 - 3.0 / (2 * 50.0))


def test_proximal_is_decoupled_from_momentum_and_adam():
    """Buffers see the task gradient alone."""
    for build in (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), lambda p: torch.optim.Adam(p, lr=0.1)):
        states = []
        for strength in (0.0, 5.0):
            model = Point([1.0])
            optimizer = build(model.parameters())
            penalty = Given(model, strength, [1.0], penalty="proximal")
            penalty.consolidate()
            descend(model, penalty, optimizer, 5, slope=2.0)
            states.append((optimizer.state_dict()["state"][0], model.theta.item()))
        (free, moved), (held, stayed) = states
        assert all(torch.equal(torch.as_tensor(free[key]), torch.as_tensor(held[key])) for key in free)
        assert abs(stayed - 1) < abs(moved - 1)


def test_proximal_needs_the_optimizer():
    model = Point([1.0])
    penalty = Given(model, 1.0, [1.0], penalty="proximal")
    penalty.consolidate()
    model.theta.grad = torch.zeros_like(model.theta)
    with pytest.raises(ValueError, match=r"needs the learning rate: write penalty\.step\(optimizer\)"), penalty.step():
        pass


def test_proximal_in_blocks_is_proximal_at_once(monkeypatch):
    from avsi.consolidation import blocks

    outcomes = []
    for block in (blocks.BLOCK, 8):
        monkeypatch.setattr(blocks, "BLOCK", block)
        torch.manual_seed(0)
        model = nn.Linear(16, 16)
        penalty = MASPenalty(model, 3.0, penalty="proximal")
        penalty.consolidate([(torch.randn(8, 16), None)])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(4, 16)).sum().backward()
            with penalty.step(optimizer):
                optimizer.step()
        outcomes.append(model.weight.detach().clone())
    assert torch.equal(*outcomes)


# Divergence


def test_divergence_says_where_and_why_and_can_be_sent():
    model = Point([1.0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    penalty = Given(model, 50.0, [1.0])
    penalty.consolidate()
    with pytest.warns(StabilityWarning), pytest.raises(DivergenceError) as caught:
        descend(model, penalty, optimizer, 200, slope=3.0)
    error = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(error, FloatingPointError)
    assert str(error) == str(caught.value)
    assert (error.task, error.epoch, error.stable_strength) == (1, None, pytest.approx(10.0))
    assert error.step == penalty.steps_seen - 1
    assert 1e3 < model.theta.abs().item() < 1e5  # at once
    assert "beyond 10, the largest at which the explicit step of the penalty is stable" in error.cause


@pytest.mark.parametrize("name", ["si", "ewc", "mas"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e20])
def test_broken_weights_are_never_consolidated(name, value):
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    penalty = {"si": SIPenalty, "ewc": OnlineEWCPenalty, "mas": MASPenalty}[name](model, 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = torch.randn(8, 4), torch.arange(8) % 2
    cross_entropy(model(batch[0]), batch[1]).backward()
    with penalty.step(optimizer):
        optimizer.step()
    anchor = penalty.anchor["weight"].clone()
    with torch.no_grad():
        model.weight[0, 0] = value
    with pytest.raises(DivergenceError, match="training diverged in task 0, step 0") as caught:
        penalty.consolidate([batch])
    assert "float64" not in str(caught.value)
    assert torch.equal(penalty.anchor["weight"], anchor)
    assert penalty.experiences_seen == 0


def test_the_first_fault_is_found_on_a_device_without_asking_it_in_each_step():
    FirstFault().note(torch.ones((), dtype=torch.bool, device="meta"))  # which has no values to ask for
    fault = FirstFault()

    for sound in (True, True, False, True, False):
        assert not fault.note(torch.tensor(sound).as_subclass(Elsewhere))
    assert fault.step() == 2
    assert FirstFault().step() is None


def test_largest_magnitude():
    assert largest([torch.tensor([1.0, -3.0]), torch.zeros(0), torch.tensor(2.0, dtype=torch.float64)]) == 3
    assert largest([torch.tensor([1.0, -2.0]), torch.tensor([3.0, 1.0])]) == 3
    assert largest([torch.tensor([0.0, -math.inf])]) == math.inf
    assert largest([torch.tensor([1.0, float("nan")]), torch.tensor([5.0])]).isnan()


# Separate quadratics, decay, seeds


def test_separate_mode_is_the_sum_of_a_quadratic_per_task():
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    penalty = OnlineEWCPenalty(model, 2.0, gamma=0.5, mode="separate")
    terms = []
    for _ in range(3):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        x, y = torch.randn(20, 3, dtype=torch.float64), torch.arange(20) % 2
        single = OnlineEWCPenalty(model, 2.0)
        single.consolidate([(x, y)])
        terms = [(0.5 * factor, kept) for factor, kept in terms] + [(1.0, single)]
        penalty.consolidate([(x, y)])
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    total = sum(factor * term.value() for factor, term in terms)
    for expected, gradient in zip(
        torch.autograd.grad(total, list(model.parameters())),
        torch.autograd.grad(penalty.value(), list(model.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(gradient, expected)


def test_separate_mode_leaves_parameters_without_importance_where_they_are():
    model = nn.Linear(2, 2)
    penalty = OnlineEWCPenalty(model, 1.0, mode="separate")
    penalty.consolidate([(torch.tensor([[0.0, 1.0]]), torch.tensor([0]))])
    assert (penalty.importance["weight"][:, 0] == 0).all()
    assert torch.equal(penalty.anchor["weight"], model.weight)


def test_mas_decays_its_sum():
    model = nn.Linear(2, 1, bias=False)
    nn.init.ones_(model.weight)
    penalty = MASPenalty(model, 1.0, decay=0.5)
    for _ in range(2):
        penalty.consolidate([(torch.tensor([[1.0, 2.0]]), None)])
    torch.testing.assert_close(penalty.importance["weight"], torch.tensor([[9.0, 18.0]]))


def sampled(trial, tasks=1, **kwargs):
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    x = torch.randn(30, 4)
    torch.manual_seed(trial)
    penalty = OnlineEWCPenalty(model, 1.0, gamma=0.0, labels="sampled", **kwargs)
    for _ in range(tasks):
        penalty.consolidate([(x, torch.zeros(30, dtype=torch.long))])
    return penalty


def test_sampled_labels_follow_the_trials_seed_and_the_number_of_the_task():
    first, again, other = sampled(1), sampled(1), sampled(2)
    assert torch.equal(first.importance["weight"], again.importance["weight"])
    assert not torch.equal(first.importance["weight"], other.importance["weight"])
    assert not torch.equal(first.importance["weight"], sampled(1, tasks=2).importance["weight"])
    assert torch.equal(sampled(1, seed=5).importance["weight"], sampled(2, seed=5).importance["weight"])


def test_the_seed_is_part_of_the_state():
    first, other = sampled(1), sampled(2)
    other.load_state_dict(first.state_dict())
    assert other.seed == first.seed


# Arguments and state


@pytest.mark.parametrize(
    "strength", [np.float32(1.5), np.array(1.5), torch.tensor(1.5), torch.tensor(1.5, dtype=torch.float64), 1.5]
)
def test_numbers_of_every_kind_are_taken(strength):
    assert SIPenalty(None, strength).strengths == (1.5,)
    assert SIPenalty(None, 1.0, damping=strength).damping == 1.5
    assert OnlineEWCPenalty(None, 1.0, gamma=strength / 2).gamma == 0.75


@pytest.mark.parametrize("strengths", [[1, 2], (1.0, np.int64(2)), np.array([1.0, 2.0]), torch.tensor([1, 2])])
def test_sequences_of_every_kind_are_taken(strengths):
    assert SIPenalty(None, strengths).strengths == (1.0, 2.0)


@pytest.mark.parametrize(
    "strength", [b"1", bytearray(b"1"), "1", True, np.True_, None, 1j, {1.0}, [[1.0]], np.ones((2, 2))]
)
def test_what_is_no_strength_is_named(strength):
    with pytest.raises(TypeError, match="strength must be a number or a sequence of numbers, got"):
        SIPenalty(None, strength)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SIPenalty(None, 1.0, penalty="implicit"), "penalty must be one of explicit, proximal, got 'implicit'"),
        (lambda: OnlineEWCPenalty(None, 1.0, mode="both"), "mode must be one of online, separate, got 'both'"),
        (lambda: OnlineEWCPenalty(None, 1.0, labels=1), "labels must be one of empirical, .*, got 1"),
        (lambda: OnlineEWCPenalty(None, 1.0, seed=-1), "seed must be at least 0, got -1"),
        (lambda: MASPenalty(None, 1.0, decay=1.5), r"decay must be in \[0, 1\], got 1.5"),
        (lambda: SIPenalty(None, 1.0, damping=float("nan")), "damping must be finite and greater than 0, got nan"),
    ],
)
def test_choices_and_ranges_are_checked(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def consolidated():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    penalty = SIPenalty(model, 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(2, 3)).square().sum().backward()
    with penalty.step(optimizer):
        optimizer.step()
    penalty.consolidate()
    return model, penalty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experiences_seen": -1}, "experiences_seen must be at least 0, got -1"),
        ({"steps_seen": 1.5}, "steps_seen must be a whole number, got 1.5"),
        ({"experiences_seen": float("nan")}, "experiences_seen must be a whole number"),
        ({"anchor": {"weight": torch.full((2, 3), float("nan")), "bias": torch.zeros(2)}}, "anchor of weight is not"),
        ({"importance": {"weight": torch.full((2, 3), -1.0), "bias": torch.zeros(2)}}, "of weight is negative"),
        ({"importance": {"weight": [1.0], "bias": torch.zeros(2)}}, "importance of weight is not a tensor"),
        ({"anchor": {}}, "not whole"),
        ({"surplus": 1}, "cannot load a state with keys"),
    ],
)
def test_states_that_no_training_can_leave_are_refused_and_change_nothing(change, message):
    _, penalty = consolidated()
    before = copy.deepcopy(penalty.state_dict())
    with pytest.raises(TypeError if "whole number" in message else ValueError, match=message):
        penalty.load_state_dict(penalty.state_dict() | change)
    after = penalty.state_dict()
    assert before["experiences_seen"] == after["experiences_seen"] == 1
    for key in ("importance", "anchor"):
        assert all(torch.equal(before[key][name], after[key][name]) for name in before[key])


def test_numbers_of_a_state_may_be_of_any_kind():
    _, penalty = consolidated()
    other = SIPenalty(None, 1.0)
    other.load_state_dict(penalty.state_dict() | {"experiences_seen": np.int64(3), "steps_seen": torch.tensor(0)})
    assert (other.experiences_seen, other.steps_seen) == (3, 0)


CLASSES = {SIPenalty: SIPlugin, OnlineEWCPenalty: OnlineEWCPlugin, MASPenalty: MASPlugin}
OPTIONS = {
    SIPenalty: {"damping": 0.25},
    OnlineEWCPenalty: {"gamma": 0.5, "labels": "exact", "mode": "separate", "max_samples": 9, "seed": 7},
    MASPenalty: {"decay": 0.5},
}


@pytest.mark.parametrize("penalty", CLASSES)
def test_every_argument_arrives_in_penalties_and_plugins(penalty):
    options = OPTIONS[penalty]
    assert {"model", "strength", "exclude", "penalty", *options} == inspect.signature(penalty).parameters.keys()
    for core in (
        penalty(nn.Linear(3, 2), [2.0, 3.0], exclude=["b*"], penalty="proximal", **options),
        CLASSES[penalty]([2.0, 3.0], exclude=["b*"], penalty="proximal", **options).core,
    ):
        core.bind(nn.Linear(3, 2))
        assert core.strengths == (2.0, 3.0)
        assert core.importance.keys() == core.anchor.keys() == {"weight"}
        assert core.proximal
        separate = options.get("mode") == "separate"
        assert all(getattr(core, name) == value for name, value in options.items() if name != "mode")
        assert getattr(core, "separate", False) is separate


def test_a_sparse_embedding_deep_in_the_model_is_refused():
    model = nn.Sequential(nn.Sequential(nn.Embedding(4, 2, sparse=True)), nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"'0\.0' \(Embedding\) makes sparse gradients.* sparse=False.* exclude"):
        penalised_parameters(model, ())
    assert penalised_parameters(model, ["0.*"]).keys() == {"1.weight", "1.bias"}
    model[0][0].weight.requires_grad_(False)
    assert penalised_parameters(model, ()).keys() == {"1.weight", "1.bias"}


def test_an_attribute_of_that_name_is_no_embedding():
    layer = nn.Linear(2, 2)
    layer.sparse = True  # pruned, say
    assert penalised_parameters(layer, ()).keys() == {"weight", "bias"}


@pytest.mark.parametrize("penalty", [SIPenalty, MASPenalty, OnlineEWCPenalty])
def test_nothing_need_be_penalised(penalty):
    model = nn.Linear(2, 2)
    nothing, optimizer = penalty(model, 1.0, exclude=["*"]), torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(4, 2), torch.randint(0, 2, (4,))
    for _ in range(2):
        cross_entropy(model(x), y).backward()
        with nothing.step(optimizer):
            optimizer.step()
        nothing.consolidate([(x, y)])
    assert nothing.importance == {}
    assert nothing.experiences_seen == 2


def test_a_penalty_does_not_keep_its_model_alive_for_others():
    """Penalties on a model know of one another as long as they live."""
    model, penalty = consolidated()
    assert [peer() for peer in penalty._peers] == [penalty]
    other = MASPenalty(model, 1.0)
    assert [peer() for peer in penalty._peers] == [penalty, other]
    del other
    third = MASPenalty(model, 1.0)
    assert [peer() for peer in penalty._peers] == [penalty, third]


def test_parameters_of_importance_that_get_other_names_are_noticed(recwarn):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    penalty, batches = MASPenalty(model, 1.0), [(torch.randn(8, 3), None)]
    penalty.consolidate(batches)
    model[2].requires_grad_(False)  # still there
    penalty.bind()
    assert not recwarn.list
    prune.random_unstructured(model[0], "weight", 0.5)  # weight is weight_orig now
    with pytest.warns(UserWarning, match=r"importances of 0\.weight, which the model no longer has"):
        penalty.bind()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        penalty.consolidate(batches)  # known already

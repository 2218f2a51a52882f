"""What training did is undone, bit for bit, whatever the strategy."""

import random
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from avalanche.training import EWC, LwF, Replay
from avalanche.training import MAS as AvalancheMAS
from avalanche.training import SynapticIntelligence as AvalancheSI
from torch import nn
from torch.optim import SGD, Adam
from training import naive, seeded_mlp

from avsi.experiment.strategy_state import (
    NotKeptError,
    fingerprint,
    random_states,
    restore_random_states,
    strategy_state,
)
from avsi.models import MLP, DHPLinear, GrowingHead, MultiHead
from avsi.snapshot import Snapshot
from avsi.strategies import DHP, MAS, OnlineEWC, SynapticIntelligence

ADAM = partial(Adam, lr=1e-2)
MOMENTUM = partial(SGD, lr=0.05, momentum=0.9)
STRATEGIES = {
    "si": (partial(SynapticIntelligence, strength=1.0), MultiHead, ADAM),
    "si, growing": (partial(SynapticIntelligence, strength=1.0), GrowingHead, MOMENTUM),
    "online ewc": (partial(OnlineEWC, strength=10.0, labels="sampled"), MultiHead, MOMENTUM),
    "mas": (partial(MAS, strength=0.1), MultiHead, ADAM),
    "dhp": (DHP, partial(MultiHead, head=DHPLinear), MOMENTUM),
    "avalanche's ewc": (partial(EWC, ewc_lambda=10.0), MultiHead, ADAM),
    "avalanche's mas": (partial(AvalancheMAS, lambda_reg=1.0), MultiHead, ADAM),
    "avalanche's si": (partial(AvalancheSI, si_lambda=1.0), MultiHead, ADAM),
    "lwf": (partial(LwF, alpha=1.0, temperature=2.0), MultiHead, ADAM),
    "replay": (partial(Replay, mem_size=50), MultiHead, ADAM),
}


def make(name):
    template, head, optimizer = STRATEGIES[name]
    model = seeded_mlp(head=head)
    return naive(model, optimizer(model.parameters()), strategy=template)


def everything(strategy):
    """A second way to look at a strategy: by what its parts say of their own state."""
    try:
        return fingerprint(strategy_state(strategy))
    except NotKeptError:  # LwF and Replay
        return fingerprint({"model": strategy.model.state_dict(), "optimizer": strategy.optimizer.state_dict()})


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_goes_on_as_if_it_had_not_trained(name, digits):
    ends = []
    for undone in (0, 2):
        strategy = make(name)
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        strategy.train(digits.train_stream[0], eval_streams=[])
        before, randomness = everything(strategy), random_states("cpu")
        snapshot = Snapshot(strategy)
        for _ in range(undone):  # more than once
            strategy.train(digits.train_stream[1], eval_streams=[])
            assert everything(strategy) != before
            snapshot.restore()
            restore_random_states(randomness, "cpu")
            assert everything(strategy) == before
        strategy.train(digits.train_stream[1:3], eval_streams=[])
        ends.append((everything(strategy), fingerprint(random_states("cpu"))))
    assert ends[0] == ends[1]


def test_parts_are_the_same_objects_and_hold_the_same(digits):
    strategy = make("si")
    strategy.train(digits.train_stream[0], eval_streams=[])
    parameters = list(strategy.model.parameters())
    gradients = [p.grad for p in parameters]
    values = deepcopy([(p.data, p.grad) for p in parameters])
    snapshot = Snapshot(strategy)
    strategy.train(digits.train_stream[1], eval_streams=[])
    assert len(list(strategy.model.parameters())) > len(parameters)  # another head
    snapshot.restore()
    assert all(p is q for p, q in zip(strategy.model.parameters(), parameters, strict=True))
    assert all(p is q for p, q in zip(strategy.optimizer.param_groups[0]["params"], parameters, strict=True))
    for p, gradient, (value, slope) in zip(parameters, gradients, values, strict=True):
        assert p.grad is gradient
        assert torch.equal(p, value)
        assert torch.equal(p.grad, slope)


def test_what_a_tensor_is_comes_back():
    layer = torch.nn.Linear(2, 2)
    bits = torch.tensor([-0.0, float("nan")])
    layer.register_buffer("state", bits.clone())
    generator, own = torch.Generator(), random.Random(0)
    drawn = torch.rand(2, generator=generator.manual_seed(3)).tolist(), own.random()
    generator.manual_seed(3)
    own.seed(0)
    snapshot = Snapshot({"layer": layer, "generators": [generator, own], "set": {1, 2}})
    layer.weight.data = torch.zeros(3, 3, dtype=torch.float64)
    layer.weight.requires_grad_(False)
    layer.state.zero_()
    torch.rand(5, generator=generator)
    own.random()
    snapshot.restore()
    assert layer.weight.shape == (2, 2)
    assert layer.weight.dtype == torch.float32
    assert layer.weight.requires_grad
    assert layer.state.numpy().tobytes() == bits.numpy().tobytes()
    assert (torch.rand(2, generator=generator).tolist(), own.random()) == drawn


class Slots:
    __slots__ = ("__hidden", "later", "value")

    def __init__(self):
        self.__hidden, self.value = 1, [2]

    def change(self):
        self.__hidden, self.later = 3, 4
        self.value.append(5)

    def read(self):
        return self.__hidden, self.value, hasattr(self, "later")


class OneSlot(Slots):
    __slots__ = "alone"  # a single name may be given so


@dataclass(frozen=True, slots=True)
class Frozen:
    held: list


def test_slots_come_back():
    plain, child, frozen = Slots(), OneSlot(), Frozen([1])
    child.alone = "before"
    values = plain.value, child.value
    snapshot = Snapshot([plain, child, frozen])
    for _ in range(2):
        plain.change()
        child.change()
        child.alone = child.value = "after"
        object.__setattr__(frozen, "held", [2])
        snapshot.restore()
        assert plain.read() == child.read() == (1, [2], False)
        assert (plain.value, child.value) == values
        assert plain.value is values[0]
        assert child.value is values[1]
        assert child.alone == "before"
        assert frozen.held == [1]


def test_numpy_comes_back():
    numbers, objects = np.array([-0.0, np.nan]), np.array([[1], "two"], dtype=object)
    constant = np.zeros(2)
    constant.flags.writeable = False
    new, old = np.random.default_rng(0), np.random.RandomState(0)
    bits, drawn = numbers.tobytes(), (np.random.default_rng(0).random(), np.random.RandomState(0).random_sample())
    snapshot = Snapshot({"arrays": [numbers, objects, constant], "generators": [new, old]})
    numbers[:] = 7
    objects[0].append(2)
    objects[1] = "three"
    new.random(3)
    old.random_sample(3)
    snapshot.restore()
    assert numbers.tobytes() == bits
    assert objects.tolist() == [[1], "two"]
    assert (new.random(), old.random_sample()) == drawn


def test_data_are_not_copied(digits):
    strategy = make("replay")
    strategy.train(digits.train_stream[0], eval_streams=[])
    images = digits.image_sets[0].images
    snapshot = Snapshot(strategy)
    assert all(tensor.data_ptr() != images.data_ptr() for tensor, *_ in snapshot._tensors)
    model = MLP(64, (16,), MultiHead)
    assert sum(value.numel() for _, value, *_ in snapshot._tensors) < 10 * sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("make", [lambda: (i for i in range(3)), lambda: iter([1, 2]), lambda: map(abs, [1, 2])])
def test_an_iterator_under_way_is_refused_and_one_that_is_not_is_no_obstacle(make):
    class Plugin:
        pass

    plugin = Plugin()
    plugin.drawn = [make()]
    next(plugin.drawn[0])
    with pytest.raises(ValueError, match=r"^Plugin holds a \w+, an iterator that is under way"):
        Snapshot({"plugin": plugin})
    plugin.drawn = [iter([]), (i for i in ())]
    assert list(plugin.drawn[1]) == []
    Snapshot({"plugin": plugin}).restore()


def test_tensors_that_cannot_be_written_as_they_are_come_back_too():
    with torch.inference_mode():
        inferred = torch.ones(2)
    model = nn.Linear(2, 2)
    model.register_buffer("expanded", torch.zeros(1).expand(5))
    snapshot, weight, storage = Snapshot([model, inferred]), model.weight.clone(), model.weight.data_ptr()
    with torch.no_grad():
        model.weight.add_(1)
    model.expanded = torch.ones(5)
    with torch.inference_mode():
        inferred.zero_()
    snapshot.restore()
    assert torch.equal(model.weight, weight)
    assert model.weight.data_ptr() == storage  # written, not replaced: others may look at the same memory
    assert model.expanded.tolist() == [0.0] * 5
    assert inferred.tolist() == [1.0, 1.0]


def test_attributes_of_containers_and_tensors_come_back():
    class Named(dict):
        pass

    named, parameter, raw = Named(a=1), nn.Parameter(torch.zeros(1)), bytearray(b"ab")
    named.tag, parameter.tag = [1], [1]
    snapshot = Snapshot([named, parameter, raw])
    named.tag.append(2)
    parameter.tag = None
    raw[:] = b"c"
    snapshot.restore()
    assert named.tag == [1]
    assert parameter.tag == [1]
    assert raw == b"ab"

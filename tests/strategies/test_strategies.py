import inspect
import sys

import pytest
import torch
from avalanche.training.plugins import ReplayPlugin, SupervisedPlugin
from training import naive, seeded_mlp

from avsi import InMemoryBatches, MASPlugin, OnlineEWCPlugin, SIPlugin
from avsi.plugins.batches import InMemoryLoader
from avsi.strategies import DHP, MAS, OnlineEWC, SynapticIntelligence
from avsi.strategies.template import MethodTemplate, Template


def test_strategy_is_naive_with_the_plugin(digits):
    weights = []
    for build in ("strategy", "plugin"):
        model = seeded_mlp()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        if build == "strategy":
            strategy = naive(model, optimizer, strategy=SynapticIntelligence, strength=5.0, damping=1e-3)
        else:
            strategy = naive(model, optimizer, [SIPlugin(5.0, damping=1e-3)])
        for experience in digits.train_stream[:2]:
            strategy.train(experience, eval_streams=[])
        weights.append(model.features[1].weight.detach())
    assert torch.equal(*weights)


def test_extra_plugins_are_welcome_and_arguments_reach_the_plugin(digits):
    model = seeded_mlp()
    strategy = naive(
        model,
        torch.optim.SGD(model.parameters(), lr=0.01),
        [ReplayPlugin(mem_size=20)],
        strategy=SynapticIntelligence,
        strength=[1.0, 2.0],
        damping=0.3,
        exclude=["*.bias"],
    )
    for experience in digits.train_stream[:2]:
        strategy.train(experience, eval_streams=[])
    assert strategy.si.damping == 0.3
    assert strategy.si.strength == 2.0
    assert "features.1.bias" not in strategy.si.importance
    assert strategy.si.importance["features.1.weight"].sum() > 0


def test_batches_come_from_memory_and_may_do_so_by_the_users_own_plugin(digits):
    class Look(SupervisedPlugin):
        def before_eval_iteration(self, strategy, **kwargs):
            seen.append(type(strategy.dataloader))

    seen = []
    for given in ([], [InMemoryBatches(on_device=True)]):
        model = seeded_mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        strategy = naive(model, optimizer, [*given, Look()], strategy=SynapticIntelligence, strength=1.0)
        strategy.eval(digits.test_stream[:1])
        assert sum(isinstance(plugin, InMemoryBatches) for plugin in strategy.plugins) == 1
    assert set(seen) == {InMemoryLoader}


@pytest.mark.parametrize(
    ("strategy", "plugin", "attribute"),
    [(SynapticIntelligence, SIPlugin, "si"), (OnlineEWC, OnlineEWCPlugin, "online_ewc"), (MAS, MASPlugin, "mas")],
)
def test_strategies_take_what_their_plugins_take_and_pass_it_on(strategy, plugin, attribute, monkeypatch):
    taken = {}
    module = sys.modules[strategy.__module__]
    monkeypatch.setattr(module, plugin.__name__, lambda *args, **kwargs: taken.update(kwargs) or plugin(*args))
    names = inspect.signature(plugin).parameters.keys() - {"strength"}
    assert names <= inspect.signature(strategy).parameters.keys()
    given = {name: object() for name in names}
    model = seeded_mlp()
    made = naive(model, torch.optim.SGD(model.parameters(), lr=0.01), strategy=strategy, strength=3.0, **given)
    assert taken == given
    assert getattr(made, attribute).strength == 3.0


def test_bad_arguments_fail_at_construction():
    model = seeded_mlp()
    with pytest.raises(ValueError, match="strength"):
        SynapticIntelligence(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.01), strength=-1)


@pytest.mark.parametrize("strategy", [DHP, MAS, OnlineEWC, SynapticIntelligence])
def test_signatures_show_the_methods_own_arguments_and_defaults_stand_once(strategy):
    *own, template = inspect.signature(strategy).parameters.values()
    assert template.kind is template.VAR_KEYWORD
    shared = inspect.signature(MethodTemplate).parameters
    assert shared.keys() == Template.__annotations__.keys()
    assert not {parameter.name for parameter in own} & shared.keys()
    assert {name for name in shared if shared[name].default is inspect.Parameter.empty} == {"model", "optimizer"}
    for parameter in own:
        assert f"        {parameter.name}: " in strategy.__doc__


@pytest.mark.parametrize("strategy", [DHP, MAS, OnlineEWC, SynapticIntelligence])
def test_unknown_and_missing_arguments_are_named(strategy):
    model = seeded_mlp()
    given = {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.01)}
    given |= {} if strategy is DHP else {"strength": 1.0}
    with pytest.raises(TypeError, match=r"unexpected keyword argument: train_epoch\b"):
        strategy(**given, train_epoch=3)
    del given["optimizer"]
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'optimizer'"):
        strategy(**given)

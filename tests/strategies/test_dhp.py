from functools import partial

import pytest
import torch
from avalanche.training.plugins import ReplayPlugin
from training import naive, seeded_mlp

from avsi import DHPPlugin, MASPlugin, OnlineEWCPlugin, SIPlugin
from avsi.models import DHPLinear, MultiHead
from avsi.strategies import DHP

dhp_heads = partial(MultiHead, head=partial(DHPLinear, eta=0.1))


def test_strategy_is_naive_with_the_plugin(digits):
    states = []
    for build in ("strategy", "plugin"):
        model = seeded_mlp(head=dhp_heads)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        if build == "strategy":
            strategy = naive(model, optimizer, strategy=DHP)
            assert isinstance(strategy.dhp, DHPPlugin)
        else:
            strategy = naive(model, optimizer, [DHPPlugin()])
        for experience in digits.train_stream[:2]:
            strategy.train(experience, eval_streams=[])
        states.append(model.state_dict())
    assert states[0].keys() == states[1].keys()
    assert any(name.endswith("hebb") for name in states[0])
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])


@pytest.mark.parametrize("plugin", [lambda: SIPlugin(0.1), lambda: OnlineEWCPlugin(1.0), lambda: MASPlugin(0.1)])
def test_with_a_consolidation_plugin_and_replay(digits, plugin):
    plugin = plugin()
    model = seeded_mlp(head=dhp_heads)
    strategy = naive(
        model, torch.optim.SGD(model.parameters(), lr=0.05), [plugin, ReplayPlugin(mem_size=40)], strategy=DHP
    )
    for experience in digits.train_stream[:3]:
        strategy.train(experience, eval_streams=[digits.test_stream[:1]])
        strategy.eval(digits.test_stream[:3])
    assert plugin.importance["head.heads.1.weight"].max() > 0
    assert all(head.hebb.abs().max() > 0 for head in model.head.heads.values())


def test_learns_its_tasks_and_remembers_them(digits):
    model = seeded_mlp(head=partial(MultiHead, head=DHPLinear), hidden=(64,))
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.1), [SIPlugin(1.0)], strategy=DHP, epochs=10)
    for experience in digits.train_stream:
        strategy.train(experience, eval_streams=[])
    model.eval()
    for experience in digits.test_stream:
        x, y = (torch.stack([torch.as_tensor(s[i]) for s in experience.dataset]) for i in (0, 1))
        assert (model(x, experience.task_label).argmax(1) == y).float().mean() > 0.85


def test_default_criterion_is_cross_entropy():
    model = seeded_mlp(head=dhp_heads)
    assert isinstance(
        DHP(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.01))._criterion, torch.nn.CrossEntropyLoss
    )

"""Avalanche's checkpoints pickle a strategy whole, plugins included, with dill."""

import dill
import pytest
import torch
from training import naive, seeded_mlp

from avsi import InMemoryBatches, MASPlugin, OnlineEWCPlugin, SIPlugin

PLUGINS = {"si": lambda: SIPlugin(1.0), "ewc": lambda: OnlineEWCPlugin(10.0), "mas": lambda: MASPlugin(0.1)}


@pytest.mark.parametrize("name", PLUGINS)
def test_plugins_and_their_model_survive_dill_and_go_on_bit_for_bit(digits, name):
    outcomes = []
    for pickled in (False, True):
        model, plugins = seeded_mlp(), [PLUGINS[name](), InMemoryBatches()]
        naive(model, torch.optim.SGD(model.parameters(), lr=0.05), plugins).train(
            digits.train_stream[0], eval_streams=[]
        )
        if pickled:
            model, plugins = dill.loads(dill.dumps((model, plugins)))
            assert plugins[0].core.model is model
        torch.manual_seed(1)
        naive(model, torch.optim.SGD(model.parameters(), lr=0.05), plugins).train(
            digits.train_stream[1], eval_streams=[]
        )
        outcomes.append((model.state_dict(), plugins[0].importance))
    for whole, cut in zip(*outcomes, strict=True):
        assert whole.keys() == cut.keys()
        assert all(torch.equal(whole[key], cut[key]) for key in whole)

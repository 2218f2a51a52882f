from functools import partial

import pytest
import torch
from avalanche.training.plugins import SupervisedPlugin
from training import naive, seeded_mlp

from avsi import DHPPlugin
from avsi.models import DHPLinear, MultiHead
from avsi.plugins.hebbian_dynamics import HebbianDynamics


def test_records_are_the_layers_values_at_those_steps(digits):
    model = seeded_mlp(head=partial(MultiHead, head=partial(DHPLinear, per_connection_eta=True)))
    dynamics = HebbianDynamics(every=4)
    seen = []

    class Watch(SupervisedPlugin):
        def after_training_iteration(self, strategy, **kwargs):
            layer = model.head.heads["0"]
            seen.append([layer.eta.double().mean(), layer.hebb.double().norm(), layer.alpha.double().norm()])

    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.1), [DHPPlugin(), Watch(), dynamics])
    for experience in digits.train_stream[:2]:
        strategy.train(experience, eval_streams=[])
    record = dynamics.records["head.heads.0"]
    assert record["step"] == list(range(4, len(seen) + 1, 4))
    for index, step in enumerate(record["step"]):
        expected = [value.item() for value in seen[step - 1]]
        assert [record[key][index] for key in ("eta", "hebb", "alpha")] == pytest.approx(expected, rel=1e-5)
    assert record["hebb"][0] > 0
    # The second head's records begin with its task.
    assert dynamics.records["head.heads.1"]["step"][0] > len(digits.train_stream[0].dataset) // 32


def test_models_without_plasticity_record_nothing(digits):
    model = seeded_mlp()
    dynamics = HebbianDynamics(every=1)
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.1), [dynamics])
    strategy.train(digits.train_stream[0], eval_streams=[])
    assert dynamics.records == {}


@pytest.mark.parametrize(("every", "error"), [(0, ValueError), (1.5, TypeError)])
def test_bad_steps(every, error):
    with pytest.raises(error, match="every must be"):
        HebbianDynamics(every)

"""What loggers are told of loss and penalty."""

import pytest
import torch
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from torch.nn.functional import cross_entropy
from training import naive, seeded_mlp

from avsi import MASPlugin
from avsi.plugins.scalars import Scalars


class Log(BaseLogger):
    def __init__(self):
        super().__init__()
        self.values = {}

    def log_single_metric(self, name, value, x_plot):
        self.values.setdefault(name, []).append(value)


def test_the_loss_is_the_mean_over_samples_and_the_penalty_is_that_of_the_weights(digits):
    """The last batch of an epoch is smaller than the others; the weights stay as they are."""
    model, log, mas = seeded_mlp(), Log(), MASPlugin(0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    strategy = naive(
        model, optimizer, [Scalars(), mas], epochs=2, batch_size=200, evaluator=EvaluationPlugin(loggers=[log])
    )
    data = digits.train_stream[0].dataset
    assert len(data) % 200
    strategy.train(digits.train_stream[0], eval_streams=[])
    x, y, t = (torch.stack([torch.as_tensor(sample[i]) for sample in data]) for i in range(3))
    with torch.no_grad():
        loss = float(cross_entropy(model(x, t), y))
        model.features[1].weight.add_(1.0)
    assert log.values["Loss/train_epoch"] == pytest.approx([loss, loss])
    assert log.values["Penalty/MASPlugin"] == [0.0, 0.0]
    penalty = float(mas.penalty(model))
    assert penalty > 0
    strategy.train(digits.train_stream[0], eval_streams=[])
    assert log.values["Penalty/MASPlugin"][2:] == pytest.approx([penalty] * 2)

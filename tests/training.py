"""Small real training runs for the tests."""

from contextlib import contextmanager

import torch
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin, SupervisedPlugin
from torch import nn

from avsi.models import MLP, MultiHead


def seeded_mlp(seed=0, hidden=(16,), head=MultiHead, dtype=torch.float32):
    torch.manual_seed(seed)
    return MLP(64, hidden, head).to(dtype)


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def naive(
    model, optimizer, plugins=(), *, epochs=1, batch_size=32, criterion=None, evaluator=None, strategy=Naive, **kwargs
):
    return strategy(
        model=model,
        optimizer=optimizer,
        criterion=criterion or nn.CrossEntropyLoss(),
        train_mb_size=batch_size,
        train_epochs=epochs,
        eval_mb_size=512,
        evaluator=evaluator or EvaluationPlugin(),
        plugins=list(plugins),
        **kwargs,
    )


class TaskGradientRecorder(SupervisedPlugin):
    """Sums -g * delta by hand, with g from autograd of the task loss alone, before anything else touches it."""

    def __init__(self, parameters):
        super().__init__()
        self.parameters = parameters
        self.sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self.total_gradient_differs = False

    def before_backward(self, strategy, **kwargs):
        parameters = list(self.parameters.values())
        self.gradients = torch.autograd.grad(strategy.loss, parameters, retain_graph=True, allow_unused=True)

    def before_update(self, strategy, **kwargs):
        self.before = [p.detach().clone() for p in self.parameters.values()]

    def after_update(self, strategy, **kwargs):
        for (name, p), before, g in zip(self.parameters.items(), self.before, self.gradients, strict=True):
            if g is not None:
                self.sums[name] += -g * (p.detach() - before)
                self.total_gradient_differs |= not torch.equal(p.grad, g)

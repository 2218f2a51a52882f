"""Fused optimizers: SI sees what they really did, and training is that of the others but for rounding."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, AdamW

from avsi.consolidation import SIPenalty

OPTIMIZERS = {
    "sgd": partial(SGD, lr=0.05),
    "nesterov, decay": partial(SGD, lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": partial(Adam, lr=3e-3),
    "adam, decay, amsgrad": partial(Adam, lr=3e-3, weight_decay=0.01, amsgrad=True),
    "adamw": partial(AdamW, lr=3e-3, weight_decay=0.1),
}


def train(tasks, make, *, fused):
    """Two tasks with SI; beside it, sums of -g * delta with g from autograd of the task loss alone."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2)).double()
    optimizer, penalty = make(model.parameters(), fused=fused), SIPenalty(model, 2.0, damping=1e-2)
    parameters = dict(model.named_parameters())
    for task in tasks:
        sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for x, y in task:
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y)
            gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
            loss.backward()
            before = [p.detach().clone() for p in parameters.values()]
            with penalty.step(optimizer):
                optimizer.step()
            for (name, p), g, theta in zip(parameters.items(), gradients, before, strict=True):
                sums[name] -= g * (p.detach() - theta)
        omega = {name: value.clone() for name, value in penalty.path_integral.items()}
        penalty.consolidate()
    return parameters, sums, omega, penalty.importance


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_omega_sums_the_task_gradient_times_the_real_step(tasks, optimizer):
    _, sums, omega, _ = train(tasks, OPTIMIZERS[optimizer], fused=True)
    for name, total in sums.items():
        assert total.abs().max() > 1e-6
        torch.testing.assert_close(omega[name], total, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weights_and_importances_are_those_of_the_unfused_optimizer(tasks, optimizer):
    fused, _, _, importance = train(tasks, OPTIMIZERS[optimizer], fused=True)
    plain, _, _, other = train(tasks, OPTIMIZERS[optimizer], fused=False)
    for name, parameter in plain.items():
        torch.testing.assert_close(fused[name], parameter, rtol=1e-7, atol=1e-10)
        torch.testing.assert_close(importance[name], other[name], rtol=1e-7, atol=1e-10)

"""Synaptic Intelligence written out: one scalar at a time, plain Python floats, Adam by its formula."""

import math

import torch
from torch.nn.functional import cross_entropy


class ScalarAdam:
    """Adam (Kingma & Ba 2015, Algorithm 1) for one scalar."""

    def __init__(self, lr, beta1=0.9, beta2=0.999, eps=1e-8):
        self.lr, self.beta1, self.beta2, self.eps = lr, beta1, beta2, eps
        self.m = self.v = 0.0
        self.t = 0

    def step(self, gradient):
        self.t += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * gradient
        self.v = self.beta2 * self.v + (1 - self.beta2) * gradient**2
        m_hat = self.m / (1 - self.beta1**self.t)
        v_hat = self.v / (1 - self.beta2**self.t)
        return -self.lr * m_hat / (math.sqrt(v_hat) + self.eps)


def train_with_si(model, tasks, *, lr, strength, damping):
    """Train a float64 model on tasks of batches (x, y, task); returns Omega by parameter name after each task.

    The optimizer's state is kept between tasks. Parameters without a gradient are left alone.
    """
    names = [name for name, _ in model.named_parameters()]
    theta = {n: p.detach().flatten().tolist() for n, p in model.named_parameters()}
    omega_cumulative = {n: [0.0] * len(theta[n]) for n in names}
    anchor = {n: list(theta[n]) for n in names}
    optimizers = {n: [ScalarAdam(lr) for _ in theta[n]] for n in names}
    history = []
    for index, batches in enumerate(tasks):
        start = {n: list(theta[n]) for n in names}
        omega = {n: [0.0] * len(theta[n]) for n in names}
        for x, y, task in batches:
            with torch.no_grad():
                for n, p in model.named_parameters():
                    p.copy_(torch.tensor(theta[n], dtype=torch.float64).view_as(p))
            model.zero_grad(set_to_none=True)
            cross_entropy(model(x, task), y).backward()
            gradients = {n: None if p.grad is None else p.grad.flatten().tolist() for n, p in model.named_parameters()}
            for n in names:
                if gradients[n] is None:
                    continue
                for k, g in enumerate(gradients[n]):
                    total = g
                    if index > 0:
                        total += 2 * strength * omega_cumulative[n][k] * (theta[n][k] - anchor[n][k])
                    delta = optimizers[n][k].step(total)
                    omega[n][k] += -g * delta
                    theta[n][k] += delta
        for n in names:
            for k in range(len(theta[n])):
                moved = theta[n][k] - start[n][k]
                omega_cumulative[n][k] = max(0.0, omega_cumulative[n][k] + omega[n][k] / (moved**2 + damping))
            anchor[n] = list(theta[n])
        history.append({n: torch.tensor(omega_cumulative[n], dtype=torch.float64) for n in names})
    return history, {n: torch.tensor(theta[n], dtype=torch.float64) for n in names}

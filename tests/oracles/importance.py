"""Importances by the definition: one sample at a time, plain autograd."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn


def _gradients(model: nn.Module, value: Tensor, names: list[str]) -> list[Tensor]:
    parameters = [dict(model.named_parameters())[name] for name in names]
    return list(torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True))


def _samples(batches) -> Iterator[tuple]:
    for x, y, *tasks in batches:
        for n in range(len(x)):
            yield x[n : n + 1], int(y[n]), *(t[n : n + 1] for t in tasks)


def _mean(model: nn.Module, batches, of_sample: Callable, names: list[str] | None) -> dict[str, Tensor]:
    model.eval()
    names = names or [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    total = {name: torch.zeros_like(dict(model.named_parameters())[name]) for name in names}
    samples = 0
    for x, y, *tasks in _samples(batches):
        outputs = model(x, *tasks)[0]
        for weight, phi, value in of_sample(outputs, y):
            for name, gradient in zip(names, _gradients(model, value, names), strict=True):
                total[name] += weight * phi(gradient)
        samples += 1
    return {name: value / samples for name, value in total.items()}


def fisher(model: nn.Module, batches, labels: str, names: list[str] | None = None) -> dict[str, Tensor]:
    """Mean of the squared gradients of the log-likelihood; `labels` as in `fisher_diagonal`, without "sampled"."""

    def of_sample(outputs: Tensor, y: int):
        log_likelihood = outputs.log_softmax(0)
        if labels == "empirical":
            yield 1.0, torch.square, log_likelihood[y]
        elif labels == "predicted":
            yield 1.0, torch.square, log_likelihood.max()
        elif labels == "reversed":
            yield 1.0, torch.square, (-outputs).log_softmax(0)[y]
        elif labels == "exact":
            for label in range(len(outputs)):
                yield log_likelihood[label].exp().item(), torch.square, log_likelihood[label]
        elif labels == "gaussian":
            for output in outputs:
                yield 1.0, torch.square, output
        else:
            raise ValueError(labels)

    return _mean(model, batches, of_sample, names)


def mas(model: nn.Module, batches, names: list[str] | None = None) -> dict[str, Tensor]:
    """Mean of the absolute gradients of the squared norm of the outputs."""

    def of_sample(outputs: Tensor, y: int):
        yield 1.0, torch.abs, outputs.square().sum()

    return _mean(model, batches, of_sample, names)


def batched_fisher(model: nn.Module, batches) -> dict[str, Tensor]:
    """Mean over mini-batches of the squared gradient of the mini-batch's mean log-likelihood.

    This is NOT the Fisher information: it depends on the batch size, and gradients of samples cancel before they are
    squared. It is what van de Ven (2025) calls "batched" and much published code computes; for comparisons only.
    """
    parameters = dict(model.eval().named_parameters())
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for x, y in batches:
        loss = nn.functional.cross_entropy(model(x), y)
        for name, gradient in zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True):
            total[name] += gradient.square() / len(batches)
    return total

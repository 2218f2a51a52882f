"""Online EWC with the exact Fisher information as code that accompanies papers computes it, written for comparison.

A loader over tensors, Adam as torch makes it by default, the penalty as a term of the loss, and one sample at a time
for the Fisher information: a forward pass, and a backward pass for each output, weighted with its probability.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax
from torch.utils.data import DataLoader, TensorDataset

from perf.floors import EVAL_BATCH, FLOORS, Network

STRENGTH = 20.0


def exact_fisher(network: Network, data: TensorDataset, task: int) -> dict[str, Tensor]:
    """The definition, sample by sample and output by output; batches of one."""
    network.eval()
    named = {name: parameter for name, parameter in network.named_parameters() if name.startswith("body")}
    totals = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    for x, _ in DataLoader(data, batch_size=1):
        log_probabilities = log_softmax(network(x, task), 1)
        probabilities = log_probabilities.detach().exp()[0]
        for label, probability in enumerate(probabilities):
            network.zero_grad()
            (-log_probabilities[0, label]).backward(retain_graph=label < len(probabilities) - 1)
            for name, parameter in named.items():
                assert parameter.grad is not None
                totals[name] += probability * parameter.grad.detach() ** 2
    return {name: total / len(data) for name, total in totals.items()}


def run(every: int = 1) -> list[list[float]]:
    """Train on one task after the other, evaluating on all of them after each.

    Args:
        every: Take one image in so many.

    Returns:
        The accuracy matrix.
    """
    torch.manual_seed(0)
    floor = FLOORS["fisher"]
    network: Network = Network(floor, plastic=False)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    tasks = [
        tuple(TensorDataset(part.images.float() / 255, part.labels) for part in pair) for pair in floor.tasks(every)
    ]
    fisher: dict[str, Tensor] = {}
    anchor: dict[str, Tensor] = {}
    matrix = []
    for task, (train, _) in enumerate(tasks):
        network.train()
        for _ in range(floor.epochs):
            for x, y in DataLoader(train, batch_size=floor.batch, shuffle=True):
                optimizer.zero_grad()
                loss = cross_entropy(network(x, task), y)
                if fisher:
                    terms = [
                        (fisher[name] * (parameter - anchor[name]) ** 2).sum()
                        for name, parameter in network.named_parameters()
                        if name in fisher
                    ]
                    loss = loss + STRENGTH * sum(terms)
                loss.backward()
                optimizer.step()
        new = exact_fisher(network, train, task)
        fisher = {name: fisher[name] + value if fisher else value for name, value in new.items()}
        anchor = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
        matrix.append([accuracy(network, test, i) for i, (_, test) in enumerate(tasks)])
    return matrix


@torch.no_grad()
def accuracy(network: nn.Module, data: TensorDataset, task: int) -> float:
    """Share of samples that are classified right."""
    network.eval()
    hits = sum(int((network(x, task).argmax(1) == y).sum()) for x, y in DataLoader(data, EVAL_BATCH))
    return hits / len(data)

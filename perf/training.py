"""Avalanche strategies that can be stopped between steps, to be timed in turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline, with_task_labels
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin, EWCPlugin, SynapticIntelligencePlugin
from avalanche.training.plugins import MASPlugin as AvalancheMASPlugin
from torch import nn
from torchvision.models import resnet18

from avsi import DHPPlugin, MASPlugin, OnlineEWCPlugin, SIPlugin
from avsi.data.dataset import ImageDataset, scale
from avsi.models import MLP, DHPLinear, MultiHead, SplitCIFARNet
from avsi.models.headed import Head
from avsi.plugins.batches import InMemoryBatches
from avsi.scenarios.build import with_task_label

CLASSES = 10
EVAL_BATCH = 512
"""As in avsi's experiments. avsi consolidates with the larger of the two batch sizes, Avalanche with the smaller."""
NAIVE = "Naive"
METHODS: dict[str, Callable[[], list[Any]]] = {
    NAIVE: list,
    "SI": lambda: [SIPlugin(0.1)],
    "Online EWC": lambda: [OnlineEWCPlugin(0.1)],
    "MAS": lambda: [MASPlugin(1e-4)],
    "DHP": lambda: [DHPPlugin()],
    "Avalanche's SI": lambda: [SynapticIntelligencePlugin(0.1)],
    "Avalanche's EWC, online": lambda: [EWCPlugin(0.1, "online", 1.0)],
    "Avalanche's MAS": lambda: [AvalancheMASPlugin(1e-4)],
}
# Steps so small that training on one batch does not come to gradients of denormal numbers, which are slow.
OPTIMIZERS = {
    "SGD": partial(torch.optim.SGD, lr=1e-5, fused=True),
    "Adam": partial(torch.optim.Adam, lr=1e-8, fused=True),
}


@dataclass(frozen=True)
class Size:
    """A model with its data.

    Attributes:
        model: Builds the model from what its head is.
        shape: Shape of an image.
        batch: Images per step.
        steps: Steps per round.
        epoch: Steps of the epoch that consolidation is compared with.
        optimizer: Name of the optimizer.
    """

    model: Callable[[Head], nn.Module]
    shape: tuple[int, ...]
    batch: int
    steps: int
    epoch: int
    optimizer: str = "SGD"


def resnet(head: Head) -> nn.Module:
    """ResNet-18 with ten classes."""
    model = resnet18(num_classes=CLASSES)
    if not isinstance(head, int):
        model.fc = head(model.fc.in_features)
    return model


SIZES: dict[str, Size] = {
    "mlp256": Size(lambda head: MLP(784, (256, 256), head), (1, 28, 28), 64, 20, 100),
    "mlp256-adam": Size(lambda head: MLP(784, (256, 256), head), (1, 28, 28), 64, 20, 100, "Adam"),
    "mlp2000": Size(lambda head: MLP(784, (2000, 2000), head), (1, 28, 28), 256, 3, 10),
    "mlp2000-adam": Size(lambda head: MLP(784, (2000, 2000), head), (1, 28, 28), 256, 3, 10, "Adam"),
    "cnn": Size(lambda head: SplitCIFARNet(head), (3, 32, 32), 256, 1, 4),
    "resnet18": Size(resnet, (3, 64, 64), 32, 1, 4),
    "resnet18-128": Size(resnet, (3, 64, 64), 128, 1, 4),
}
TITLES = {
    "mlp256": "MLP 256-256, batch 64, SGD",
    "mlp256-adam": "MLP 256-256, batch 64, Adam",
    "mlp2000": "MLP 2000-2000, batch 256, SGD",
    "mlp2000-adam": "MLP 2000-2000, batch 256, Adam",
    "cnn": "CIFAR CNN, batch 256, SGD",
    "resnet18": "ResNet-18, 64x64 images, batch 32, SGD",
    "resnet18-128": "ResNet-18, 64x64 images, batch 128, SGD",
}


def random_tasks(tasks: int, shape: tuple[int, ...], samples: int, *, labels: bool = False) -> Any:
    """A train stream of random images and classes."""
    made = []
    for task in range(tasks):
        images = torch.randint(256, (samples, *shape), dtype=torch.uint8)
        data = ImageDataset(images, torch.arange(samples), torch.arange(samples) % CLASSES, scale)
        made.append(with_task_label(data, task if labels else 0))
    return with_classes_timeline(with_task_labels(benchmark_from_datasets(train=made))).train_stream


def make_strategy(
    model: Callable[[Head], nn.Module],
    batch: int,
    plugins: list[Any],
    device: str,
    optimizer: str = "SGD",
    *,
    in_memory: bool = True,
    evaluator: EvaluationPlugin | None = None,
) -> Any:
    """A strategy, as a rule without metrics and with batches from memory: the cheapest step Avalanche has to offer."""
    torch.manual_seed(0)
    dhp = any(isinstance(plugin, DHPPlugin) for plugin in plugins)
    network = model(partial(DHPLinear, out_features=CLASSES) if dhp else CLASSES).to(device)
    return Naive(
        model=network,
        optimizer=OPTIMIZERS[optimizer](network.parameters()),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=batch,
        eval_mb_size=EVAL_BATCH,
        device=device,
        evaluator=evaluator or EvaluationPlugin(),
        plugins=[*plugins, InMemoryBatches(on_device=device != "cpu")] if in_memory else plugins,
    )


def multi_head(hidden: tuple[int, ...]) -> Callable[[Head], nn.Module]:
    """An MLP with a head for each task, whatever head is asked for."""
    return lambda head: MLP(784, hidden, MultiHead)


class Paused:
    """A strategy in the middle of an experience: what ``strategy.train`` does, cut into pieces.

    Args:
        strategy: The strategy.
        experience: The experience.
    """

    def __init__(self, strategy: Any, experience: Any) -> None:
        self.strategy = strategy
        strategy.is_training, strategy._stop_training = True, False
        strategy.experience = experience
        strategy.model.train()
        strategy._before_training()
        strategy._before_training_exp()
        self.epoch = strategy.dataloader
        self.batch = next(iter(self.epoch))

    def train(self, steps: int | None = None) -> None:
        """Take some steps on one and the same batch, or an epoch."""
        self.strategy.dataloader = self.epoch if steps is None else [self.batch] * steps
        self.strategy._train_exp(self.strategy.experience, [])

    def end(self) -> None:
        """End the experience."""
        self.strategy._after_training_exp()
        self.strategy._after_training()
        self.strategy.is_training = False

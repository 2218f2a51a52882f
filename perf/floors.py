"""Whole runs as loops written by hand: the same arithmetic as a trial, and nothing else.

Data in memory, a fused optimizer, a method's passes over its tensors in place, the same evaluations. Nothing here loads
Avalanche: ``python -m perf.floors digits`` is the digits demo from the process's start to its end. The Fisher
information and MAS are avsi's own functions, which ``perf.importance`` compares with others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from avsi.data import load
from avsi.hebbian import DHPLinear
from avsi.importance import fisher_diagonal, mas_importance

EVAL_BATCH = 512
"""As in avsi's experiments."""
DAMPING = 0.1


@dataclass(frozen=True)
class Split:
    """Bytes of images and their labels.

    Attributes:
        images: uint8, (N, C, H, W).
        labels: Classes counted from 0, (N,).
    """

    images: Tensor
    labels: Tensor

    @classmethod
    def load(cls, name: str, split: str, every: int = 1) -> Split:
        """Load one image in so many."""
        whole = load(name, split)
        return cls(whole.images[::every], whole.labels[::every])

    def of(self, classes: Sequence[int]) -> Split:
        """Select the images of consecutive classes, counted from 0 anew."""
        rows = torch.nonzero((self.labels >= classes[0]) & (self.labels <= classes[-1])).flatten()
        return Split(self.images.index_select(0, rows), self.labels[rows] - classes[0])

    def permuted(self, order: Tensor) -> Split:
        """Move the pixels."""
        return replace(self, images=self.images.flatten(1).index_select(1, order))

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Read it in batches of floats in [0, 1], in order or shuffled."""
        rows = torch.arange(len(self.labels)) if order is None else order
        for chosen, labels in zip(rows.split(size), self.labels[rows].split(size), strict=True):
            yield self.images.index_select(0, chosen).float().div_(255), labels


Pair = tuple[Split, Split]
"""Training and test images of a task."""


@dataclass(frozen=True)
class Floor:
    """A run, but for its method and optimizer.

    Attributes:
        tasks: Makes the tasks from one image in so many.
        body: Makes the network without its output layer.
        features: Size of what it gives.
        classes: Outputs per head.
        heads: How many heads: one for all tasks, or one for each.
        batch: Training batch size.
        epochs: Epochs per task.
        rate: Learning rate, where the optimizer's own default here is not meant.
        reset: Whether the optimizer begins anew with each task.
        channels_last: Whether the convolutions' memory format is that.
    """

    tasks: Callable[[int], list[Pair]]
    body: Callable[[], nn.Module]
    features: int
    classes: int
    heads: int
    batch: int
    epochs: int
    rate: float | None = None
    reset: bool = False
    channels_last: bool = False


def permuted_mnist(every: int, tasks: int = 10) -> list[Pair]:
    """Ten tasks, the first as it is."""
    train, test = (Split.load("mnist", split, every) for split in ("train", "test"))
    orders = [torch.arange(784), *(torch.randperm(784) for _ in range(tasks - 1))]
    return [(train.permuted(order), test.permuted(order)) for order in orders]


def in_pairs(name: str, every: int) -> list[Pair]:
    """Five tasks of two classes."""
    train, test = (Split.load(name, split, every) for split in ("train", "test"))
    return [(train.of([first, first + 1]), test.of([first, first + 1])) for first in range(0, 10, 2)]


def split_cifar(every: int) -> list[Pair]:
    """CIFAR-10, then five times ten classes of CIFAR-100."""
    first, others = (
        [Split.load(name, split, every) for split in ("train", "test")] for name in ("cifar10", "cifar100")
    )
    tasks = [(first[0], first[1])]
    for start in range(0, 50, 10):
        classes = range(start, start + 10)
        tasks.append((others[0].of(classes), others[1].of(classes)))
    return tasks


def mlp(inputs: int, units: int) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU())


def cnn() -> nn.Sequential:
    """The CNN of the split CIFAR-10/100 experiment of Zenke et al. (2017), for 32x32 colour images."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25),
        nn.Flatten(), nn.Linear(2304, 512), nn.ReLU(), nn.Dropout(0.5),
    )  # fmt: skip


FLOORS: dict[str, Floor] = {
    "permuted": Floor(permuted_mnist, partial(mlp, 784, 400), 400, 10, 1, 64, 1),
    "split": Floor(partial(in_pairs, "mnist"), partial(mlp, 784, 256), 256, 2, 5, 64, 10, reset=True),
    "cifar": Floor(split_cifar, cnn, 512, 10, 6, 256, 1, reset=True, channels_last=True),
    "digits": Floor(partial(in_pairs, "digits"), partial(mlp, 64, 256), 256, 2, 5, 16, 30, rate=3e-3, reset=True),
    "fisher": Floor(partial(in_pairs, "mnist"), partial(mlp, 784, 400), 400, 2, 5, 128, 21),
}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": partial(torch.optim.SGD, lr=0.01, fused=True),
    "Adam": partial(torch.optim.Adam, lr=1e-3, fused=True),
}


class Network(nn.Module):
    """A body with one head or several."""

    def __init__(self, floor: Floor, *, plastic: bool) -> None:
        super().__init__()
        layer = DHPLinear if plastic else nn.Linear
        self.body = floor.body()
        self.heads = nn.ModuleList([layer(floor.features, floor.classes) for _ in range(floor.heads)])

    def head(self, task: int) -> nn.Module:
        """The head of a task."""
        return self.heads[task if len(self.heads) > 1 else 0]

    def forward(self, x: Tensor, task: int, y: Tensor | None = None) -> Tensor:
        """Compute logits; plastic heads in training look at the labels."""
        features, head = self.body(x), self.head(task)
        return head(features, y) if isinstance(head, DHPLinear) else head(features)

    def consolidated(self) -> list[nn.Parameter]:
        """The slow weights that several tasks train."""
        modules = [self.body, *(self.heads if len(self.heads) == 1 else [])]
        named = [(name.rpartition(".")[2], p) for module in modules for name, p in module.named_parameters()]
        return [parameter for name, parameter in named if name not in {"alpha", "eta"}]


class FineTuning:
    """No passes of its own."""

    plastic = False

    def __init__(self, network: Network) -> None:
        self.network = network
        self.parameters = network.consolidated()

    def before_step(self) -> None:
        """Between the backward pass and the optimizer's step."""

    def after_step(self) -> None:
        """After the optimizer's step."""

    def consolidate(self, data: Split, task: int) -> None:
        """After a task."""


class Penalised(FineTuning):
    """The quadratic penalty's pass: displacement, then its gradient, tensor by tensor."""

    strength = 0.1

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.importance, self.anchor, self.displacement = (
            [torch.zeros_like(parameter) for parameter in self.parameters] for _ in range(3)
        )
        self.learned = False

    @torch.no_grad()
    def before_step(self) -> None:
        """Add the penalty's gradient."""
        if not self.learned:
            return
        state = zip(self.parameters, self.importance, self.anchor, self.displacement, strict=True)
        for parameter, importance, anchor, displacement in state:
            torch.sub(parameter, anchor, out=displacement)
            parameter.grad.addcmul_(importance, displacement, value=2 * self.strength)  # type: ignore[union-attr]

    @torch.no_grad()
    def consolidate(self, data: Split, task: int) -> None:
        """Add to the importance, move the anchor."""
        torch._foreach_add_(self.importance, self.measure(data, task))
        torch._foreach_copy_(self.anchor, self.parameters)
        self.learned = True

    def measure(self, data: Split, task: int) -> list[Tensor]:
        """The task's importances, in the parameters' order."""
        model = nn.Sequential(self.network.body, self.network.head(task)).eval()
        measured = self.of_batches(model, data.batches(EVAL_BATCH))
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        return [measured[names[id(parameter)]] for parameter in self.parameters]

    def of_batches(self, model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """The importances by name."""
        raise NotImplementedError


class OnlineEWC(Penalised):
    """The empirical Fisher information."""

    strength = 20.0

    def of_batches(self, model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Measure."""
        return fisher_diagonal(model, batches)


class ExactOnlineEWC(Penalised):
    """The Fisher information in expectation over labels."""

    strength = 20.0

    def of_batches(self, model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Measure."""
        return fisher_diagonal(model, batches, labels="exact")


class MAS(Penalised):
    """Memory aware synapses."""

    strength = 0.01

    def of_batches(self, model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Measure."""
        return mas_importance(model, batches)


class SI(Penalised):
    """Synaptic intelligence: snapshots of gradient and parameters before the step, the path integral after it."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.path, self.previous, self.gradient = (
            [torch.zeros_like(parameter) for parameter in self.parameters] for _ in range(3)
        )
        self.anchor = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def before_step(self) -> None:
        """Keep gradient and parameters, then add the penalty."""
        torch._foreach_copy_(self.gradient, [parameter.grad for parameter in self.parameters])
        torch._foreach_copy_(self.previous, self.parameters)
        super().before_step()

    @torch.no_grad()
    def after_step(self) -> None:
        """Add to the path integral."""
        torch._foreach_sub_(self.previous, self.parameters)
        torch._foreach_addcmul_(self.path, self.gradient, self.previous)

    @torch.no_grad()
    def consolidate(self, data: Split, task: int) -> None:
        """Fold the path integral into the importance, and begin it anew."""
        super().consolidate(data, task)
        for importance, path in zip(self.importance, self.path, strict=True):
            importance.clamp_(min=0)
            path.zero_()

    def measure(self, data: Split, task: int) -> list[Tensor]:
        """The path integral over the squared way."""
        state = zip(self.path, self.parameters, self.anchor, strict=True)
        return [path / ((parameter - start).square_() + DAMPING) for path, parameter, start in state]


class PlasticSI(SI):
    """SI on a network with DHP heads."""

    plastic = True


METHODS: dict[str, type[FineTuning]] = {
    "fine-tuning": FineTuning,
    "SI": SI,
    "Online EWC": OnlineEWC,
    "Online EWC, exact": ExactOnlineEWC,
    "MAS": MAS,
    "DHP + SI": PlasticSI,
}


class Loop:
    """A run; its parts are methods, so that they can be timed."""

    def __init__(self, floor: Floor, method: str, optimizer: str, every: int = 1) -> None:
        torch.manual_seed(0)
        self.floor = floor
        self.tasks = floor.tasks(every)
        self.network = Network(floor, plastic=METHODS[method].plastic)
        if floor.channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.method = METHODS[method](self.network)
        arguments = {} if floor.rate is None else {"lr": floor.rate}
        self.make_optimizer = partial(OPTIMIZERS[optimizer], list(self.network.parameters()), **arguments)
        self.optimizer = self.make_optimizer()
        self.steps = 0

    def run(self) -> list[list[float]]:
        """Train on one task after the other, evaluating on all of them after each, and at last on training data.

        Returns:
            The accuracy matrix.
        """
        matrix = []
        for task, (train, _) in enumerate(self.tasks):
            if self.floor.reset and task:
                self.optimizer = self.make_optimizer()
            self.network.train()
            for _ in range(self.floor.epochs):
                for x, y in self.deliver(train):
                    self.backward(self.forward(x, task, y))
                    self.method.before_step()
                    self.step()
                    self.method.after_step()
            self.method.consolidate(train, task)
            matrix.append([self.evaluate(test, i) for i, (_, test) in enumerate(self.tasks)])
        for task, (train, _) in enumerate(self.tasks):
            self.evaluate(train, task)
        return matrix

    def deliver(self, data: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled batches."""
        return data.batches(self.floor.batch, torch.randperm(len(data.labels)))

    def forward(self, x: Tensor, task: int, y: Tensor) -> Tensor:
        """Compute the loss."""
        return cross_entropy(self.network(x, task, y), y)

    def backward(self, loss: Tensor) -> None:
        """Compute gradients."""
        self.optimizer.zero_grad()
        loss.backward()

    def step(self) -> None:
        """Let the optimizer step."""
        self.optimizer.step()
        self.steps += 1

    @torch.no_grad()
    def evaluate(self, data: Split, task: int) -> float:
        """Count, for each class, the samples that are classified right."""
        self.network.eval()
        right, all_ = torch.zeros(2, self.floor.classes)
        for x, y in data.batches(EVAL_BATCH):
            hits = self.network(x, task).argmax(1) == y
            right += torch.bincount(y, hits, self.floor.classes)
            all_ += torch.bincount(y, minlength=self.floor.classes)
        return float(right.sum() / all_.sum())


def main(floor: str, trials: str = "1", every: str = "1") -> None:
    """Run fine-tuning and SI as the demo does, and show accuracies."""
    for method in ("fine-tuning", "SI"):
        for _ in range(int(trials)):
            last = Loop(FLOORS[floor], method, "Adam", int(every)).run()[-1]
            print(f"{method:12} {100 * sum(last) / len(last):.1f} %")


if __name__ == "__main__":
    main(*sys.argv[1:])

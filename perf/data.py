"""What it costs to feed a model: batches in memory, beside Avalanche's own loaders and plain tensor indexing.

Every method runs in this process, in interleaved rounds, so that whatever else the machine does hits all of them alike;
medians over rounds are reported. The data are random numbers in the shapes of the real images.

    python -m perf.data [--rounds 15] [--threads 1] [--cpu-time] [--device cpu] [--json results.json]
"""

import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from avalanche.benchmarks import PermutedMNIST, benchmark_from_datasets, with_classes_timeline, with_task_labels
from avalanche.benchmarks.utils import TaskAwareSupervisedClassificationDataset
from avalanche.benchmarks.utils.data_loader import TaskBalancedDataLoader
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor, nn
from torchvision.transforms import v2

from avsi.data.dataset import BatchTransform, ImageDataset, scale
from avsi.data.transforms import Compose, Permute
from avsi.plugins.batches import InMemoryBatches, InMemoryLoader
from avsi.scenarios.build import with_task_label
from perf import rounds
from perf.floors import Split
from perf.rounds import interleave, machine, ratio
from perf.stock import write_mnist

IMAGES = 60_000
"""As many as MNIST has for training."""
PAIR = 12_000
"""About as many as two of MNIST's classes have."""
BATCH = 64


@dataclass
class Arguments:
    """Cost of feeding a model."""

    rounds: int = 15
    """Interleaved rounds per method."""
    slow_rounds: int = 3
    """Rounds in which slow methods take part; 0: they are not measured."""
    threads: int = 1
    """Threads for torch; 0: torch's own choice."""
    device: str = "cpu"
    """Where the model trains and, for in-memory batches, the images live."""
    cpu_time: bool = False
    """Whether to count CPU seconds of the process in place of wall time."""
    json: Path | None = None
    """Where to write the numbers."""


def dataset(count: int, classes: int, transform: BatchTransform) -> ImageDataset:
    """Random images."""
    images = torch.randint(256, (count, 1, 28, 28), dtype=torch.uint8)
    return ImageDataset(images, torch.arange(count), torch.randint(classes, (count,)), transform)


def permuted_mnist(data: ImageDataset) -> TaskAwareSupervisedClassificationDataset:
    """One experience of Avalanche's benchmark over given images, which it reads from files in MNIST's format."""
    with tempfile.TemporaryDirectory() as root:
        write_mnist(Path(root), dict.fromkeys(("train", "t10k"), Split(data.images, data.labels)))
        benchmark = PermutedMNIST(1, seed=0, train_transform=None, eval_transform=None, dataset_root=root)
    return benchmark.train_stream[0].dataset.train()


def epoch(batches: Callable[[], Iterator[object]]) -> Callable[[], None]:
    """Take every batch, and do nothing with it."""

    def run() -> None:
        for _ in batches():
            pass

    return run


def indexing(
    x: Tensor, y: Tensor, transform: Callable[[Tensor], Tensor]
) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
    """Shuffled batches as one writes them by hand."""

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(x)).split(BATCH):
            yield transform(x[rows]), y[rows]

    return batches


INDEXING = "tensor indexing, images ready"


def delivery(arguments: Arguments) -> dict[str, Callable[[], None]]:
    """One epoch of permuted MNIST, delivered batch by batch on the CPU; augmented by random crops and flips."""
    transform = Compose(Permute(torch.randperm(784)), scale)
    data = dataset(IMAGES, 10, transform)
    ready = transform(data.images)
    loader = TaskBalancedDataLoader(with_task_label(data, 0), batch_size=BATCH, shuffle=True)
    crop = v2.Compose([v2.RandomCrop(28, padding=2), v2.RandomHorizontalFlip()])
    augmented = TaskBalancedDataLoader(with_task_label(data, 0, crop), batch_size=BATCH, shuffle=True)
    theirs = TaskBalancedDataLoader(permuted_mnist(data), batch_size=BATCH, shuffle=True)
    fast = InMemoryLoader(loader)
    by_image, by_batch = InMemoryLoader(augmented), InMemoryLoader(augmented, augment="batch")
    return {
        INDEXING: epoch(indexing(ready, data.labels, lambda x: x)),
        "tensor indexing, then transform": epoch(indexing(data.images, data.labels, transform)),
        "batches in memory": epoch(lambda: iter(fast)),
        "Avalanche over the same data": epoch(lambda: iter(loader)),
        "Avalanche's PermutedMNIST": epoch(lambda: iter(theirs)),
        "in memory, augmented batches": epoch(lambda: iter(by_batch)),
        "in memory, augmented images": epoch(lambda: iter(by_image)),
        "Avalanche, augmented": epoch(lambda: iter(augmented)),
    }


def model() -> nn.Sequential:
    """784-256-256-2."""
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 2)]
    return nn.Sequential(*layers)


BARE = "bare PyTorch loop"


def training(arguments: Arguments) -> dict[str, Callable[[], None]]:
    """One epoch of training on two classes."""
    data = dataset(PAIR, 2, scale)
    benchmark = with_classes_timeline(with_task_labels(benchmark_from_datasets(train=[with_task_label(data, 0)])))
    ready = scale(data.images).to(arguments.device), data.labels.to(arguments.device)
    images, labels = data.images.to(arguments.device), ready[1]

    def bare(batches: Callable[[], Iterator[tuple[Tensor, Tensor]]]) -> Callable[[], None]:
        network, criterion = model().to(arguments.device), nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, fused=True)

        def run() -> None:
            for x, y in batches():
                optimizer.zero_grad()
                criterion(network(x), y).backward()
                optimizer.step()

        return run

    def avalanche(*, in_memory: bool, metrics: bool) -> Callable[[], None]:
        network = model()
        kinds = {"minibatch": False, "epoch": True, "experience": True, "stream": True}  # its default evaluator's
        strategy = Naive(
            model=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=0.01, fused=True),
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=BATCH,
            evaluator=EvaluationPlugin(*([accuracy_metrics(**kinds), loss_metrics(**kinds)] if metrics else [])),
            plugins=[InMemoryBatches(on_device=arguments.device != "cpu")] if in_memory else [],
            device=arguments.device,
        )
        return lambda: strategy.train(benchmark.train_stream, eval_streams=[])

    return {
        BARE: bare(indexing(images, labels, scale)),
        "bare PyTorch loop, images ready": bare(indexing(*ready, lambda x: x)),
        "Naive, batches in memory": avalanche(in_memory=True, metrics=True),
        "Naive, in memory, no metrics": avalanche(in_memory=True, metrics=False),
        "Naive": avalanche(in_memory=False, metrics=True),
        "Naive, no metrics": avalanche(in_memory=False, metrics=False),
    }


SETTINGS: dict[str, tuple[Callable[[Arguments], dict[str, Callable[[], None]]], str, int]] = {
    "One epoch of permuted MNIST, 60,000 images": (delivery, INDEXING, IMAGES),
    "Training on two classes, 12,000 images": (training, BARE, PAIR),
}
SLOW = {
    "Avalanche over the same data",
    "Avalanche's PermutedMNIST",
    "in memory, augmented images",
    "Avalanche, augmented",
}
TARGETS = {"batches in memory": 3.0, "Naive, batches in memory": 1.6}
SPEEDUP = ("batches in memory", "Avalanche's PermutedMNIST", 20.0)


def main(arguments: Arguments) -> None:
    """Print tables, and write them as JSON if asked to."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.cpu_time:
        rounds.clock = time.process_time
    warnings.filterwarnings("ignore", message="No loggers specified")
    rows: list[dict[str, object]] = []
    for setting, (prepare, baseline, samples) in SETTINGS.items():
        print(f"\n{setting}\n{'':34}{'s/epoch':>9}{'us/batch':>10}{'ratio':>8}")
        times = interleave(
            prepare(arguments), arguments.rounds, arguments.device, slow=SLOW, slow_rounds=arguments.slow_rounds
        )
        for method, values in times.items():
            median, to_baseline = statistics.median(values), ratio(values, times[baseline])
            batch = median * BATCH / samples
            target = f"   target {TARGETS[method]}" if method in TARGETS else ""
            print(f"{method:34}{median:9.3f}{1e6 * batch:10.0f}{to_baseline:8.2f}{target}", flush=True)
            rows.append(
                {
                    "setting": setting,
                    "method": method,
                    "seconds per epoch": median,
                    "microseconds per batch": 1e6 * batch,
                    "ratio": to_baseline,
                }
            )
        if times.keys() >= set(SPEEDUP[:2]):
            fast, slow, target = SPEEDUP
            speedup = ratio(times[slow], times[fast])
            print(f"{fast}: {speedup:.0f} times as fast as {slow}   target {target:.0f}", flush=True)
    if arguments.json:
        found = {"machine": machine(arguments.device), "rows": rows}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Arguments))

"""One trial of permuted MNIST, written with avsi and with stock Avalanche."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks import PermutedMNIST
from avalanche.evaluation.metrics import accuracy_metrics, bwt_metrics, forgetting_metrics, loss_metrics
from avalanche.training import SynapticIntelligence as AvalancheSI
from avalanche.training.plugins import EvaluationPlugin as AvalancheEvaluationPlugin
from torch import Tensor, nn

from avsi.metrics import accuracy_row, average_accuracy, evaluation_metrics
from avsi.models import MLP
from avsi.plugins.batches import InMemoryBatches
from avsi.plugins.evaluation import EvaluationPlugin
from avsi.scenarios import permuted_mnist
from avsi.strategies import SynapticIntelligence
from perf.rounds import synchronise

BATCH, EVAL_BATCH, TASKS = 64, 512, 10
TARGET = 4.0


def write_mnist(root: Path, parts: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Write images and labels in MNIST's own format, for torchvision to read."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, (images, labels) in parts.items():
        for kind, values in (("images-idx3", images.squeeze(1)), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, values.dim()]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
            raw.joinpath(f"{part}-{kind}-ubyte").write_bytes(header + values.to(torch.uint8).numpy().tobytes())


def trial(make: Callable[..., Any], device: str, **arguments: Any) -> Any:
    """The strategy, apart from what differs."""
    torch.manual_seed(0)
    model = MLP(784, (400, 400)).to(device)
    return make(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=BATCH,
        train_epochs=1,
        eval_mb_size=EVAL_BATCH,
        device=device,
        **arguments,
    )


def measure(device: str, tasks: int = TASKS) -> dict[str, object]:
    """Train and evaluate task by task, the two in turns."""
    seconds: dict[str, list[list[float]]] = {"avsi": [], "Avalanche": []}
    start = time.perf_counter()
    ours = permuted_mnist(tasks, seed=0)
    building = {"avsi": time.perf_counter() - start}
    with tempfile.TemporaryDirectory() as root:
        train, test = (images for images in ours.image_sets)
        write_mnist(Path(root), {"train": (train.images, train.labels), "t10k": (test.images, test.labels)})
        start = time.perf_counter()
        theirs = PermutedMNIST(tasks, seed=0, dataset_root=root)
        building["Avalanche"] = time.perf_counter() - start
    strategies = {
        "avsi": (
            trial(
                SynapticIntelligence,
                device,
                strength=0.1,
                evaluator=EvaluationPlugin(*evaluation_metrics()),
                plugins=[InMemoryBatches(on_device=device != "cpu")],
            ),
            ours,
        ),
        "Avalanche": (
            trial(
                AvalancheSI,
                device,
                si_lambda=0.1,
                evaluator=AvalancheEvaluationPlugin(
                    accuracy_metrics(epoch=True, experience=True, stream=True),  # as in Avalanche's default evaluator,
                    loss_metrics(epoch=True, experience=True, stream=True),
                    bwt_metrics(stream=True),  # and what avsi's evaluator measures beside accuracy
                    forgetting_metrics(stream=True),
                ),
            ),
            theirs,
        ),
    }
    accuracy = {}
    for task in range(tasks):
        for name, (strategy, benchmark) in strategies.items():
            synchronise(device)
            start = time.perf_counter()
            strategy.train(benchmark.train_stream[task], eval_streams=[])
            synchronise(device)
            middle = time.perf_counter()
            results = strategy.eval(benchmark.test_stream)
            synchronise(device)
            seconds[name].append([middle - start, time.perf_counter() - middle])
            if name == "avsi":
                accuracy[name] = average_accuracy([accuracy_row(results, benchmark.test_stream)])
            else:
                accuracy[name] = float(next(v for k, v in results.items() if k.startswith("Top1_Acc_Stream/eval")))
    totals = {name: building[name] + sum(map(sum, values)) for name, values in seconds.items()}
    by_task = sorted(sum(b) / sum(a) for a, b in zip(*seconds.values(), strict=True))
    return {
        "tasks": tasks,
        "seconds": totals,
        "training": {name: sum(row[0] for row in values) for name, values in seconds.items()},
        "evaluation": {name: sum(row[1] for row in values) for name, values in seconds.items()},
        "building": building,
        "accuracy": accuracy,
        "ratio": totals["Avalanche"] / totals["avsi"],
        "ratio by task, range": [by_task[0], by_task[-1]],
        "target": TARGET,
    }


def show(row: dict[str, Any]) -> None:
    """Print the outcome."""
    print(f"\nPermuted MNIST, {row['tasks']} tasks, MLP 400-400, batch {BATCH}, one epoch per task, SI")
    for name, total in row["seconds"].items():
        print(
            f"{name:12}{total:8.1f} s: building {row['building'][name]:.1f}, training {row['training'][name]:.1f}, "
            f"evaluation {row['evaluation'][name]:.1f}; accuracy {row['accuracy'][name]:.3f}"
        )
    low, high = row["ratio by task, range"]
    print(
        f"avsi is {row['ratio']:.2f} times as fast (by task {low:.1f}-{high:.1f}); target {row['target']:g}", flush=True
    )

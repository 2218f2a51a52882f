"""Whole runs as users of stock Avalanche write them.

Its benchmarks and loaders over the same images, its strategies, optimizers as torch makes them by default, and its
evaluator with accuracy, loss, BWT and forgetting.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks import (
    PermutedMNIST,
    SplitMNIST,
    benchmark_from_datasets,
    with_classes_timeline,
    with_task_labels,
)
from avalanche.benchmarks.utils import (
    ConstantSequence,
    DataAttribute,
    TaskAwareSupervisedClassificationDataset,
    TaskLabels,
)
from avalanche.evaluation.metrics import accuracy_metrics, bwt_metrics, forgetting_metrics, loss_metrics
from avalanche.models import MultiHeadClassifier, MultiTaskModule
from avalanche.training import EWC, MAS, SynapticIntelligence
from avalanche.training.plugins import EvaluationPlugin
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import to_tensor

from perf import floors
from perf.floors import EVAL_BATCH, FLOORS, Floor, Split


class Pictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """As torchvision's data sets: an image from an array, a tensor from the image, one sample at a time."""

    def __init__(self, part: Split) -> None:
        self.arrays = part.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.targets = part.labels.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return to_tensor(Image.fromarray(self.arrays[index])), self.targets[index]


class Network(MultiTaskModule):
    """A body with Avalanche's own heads."""

    def __init__(self, floor: Floor) -> None:
        super().__init__()
        self.body = floor.body()
        self.heads = MultiHeadClassifier(floor.features, floor.classes)

    def forward(self, x: Tensor, task_labels: Tensor) -> Tensor:
        """Compute logits."""
        return self.heads(self.body(x), task_labels)


def write_mnist(root: Path, parts: dict[str, Split]) -> None:
    """Write images and labels in MNIST's own format, for torchvision to read."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, data in parts.items():
        for kind, values in (("images-idx3", data.images.squeeze(1)), ("labels-idx1", data.labels)):
            header = bytes([0, 0, 8, values.dim()]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
            raw.joinpath(f"{part}-{kind}-ubyte").write_bytes(header + values.to(torch.uint8).numpy().tobytes())


@contextmanager
def benchmark(name: str, every: int) -> Iterator[Any]:
    """The tasks of a run, as Avalanche's users make them."""
    if name == "cifar":
        streams = {
            stream: [labelled(Pictures(pair[part]), task) for task, pair in enumerate(floors.split_cifar(every))]
            for part, stream in enumerate(("train", "test"))
        }
        made = with_classes_timeline(with_task_labels(benchmark_from_datasets(**streams)))
        for stream in made.streams.values():
            for experience in stream:
                experience.classes_in_this_experience = sorted(experience.classes_in_this_experience)
        yield made
        return
    with tempfile.TemporaryDirectory() as root:
        parts = {"train": "train", "t10k": "test"}
        write_mnist(Path(root), {file: Split.load("mnist", split, every) for file, split in parts.items()})
        if name == "permuted":
            yield PermutedMNIST(10, seed=0, dataset_root=root)
        else:
            yield SplitMNIST(
                5,
                return_task_id=True,
                class_ids_from_zero_in_each_exp=True,
                fixed_class_order=list(range(10)),
                dataset_root=root,
            )


def labelled(data: Pictures, task: int) -> TaskAwareSupervisedClassificationDataset:
    """With a task label, as Avalanche's data sets have it."""
    attributes = [DataAttribute(data.targets, "targets"), TaskLabels(ConstantSequence(task, len(data)))]
    return TaskAwareSupervisedClassificationDataset([data], data_attributes=attributes)


METHODS: dict[str, Callable[..., Any]] = {
    "SI": partial(SynapticIntelligence, si_lambda=floors.SI.strength, eps=floors.DAMPING),
    "Online EWC": partial(EWC, ewc_lambda=floors.OnlineEWC.strength, mode="online", decay_factor=1.0),
    "MAS": partial(MAS, lambda_reg=floors.MAS.strength),
}
OPTIMIZERS = {"SGD": partial(torch.optim.SGD, lr=0.01), "Adam": partial(torch.optim.Adam, lr=1e-3)}


def run(name: str, method: str, optimizer: str, every: int) -> list[list[float]]:
    """Train and evaluate task by task."""
    torch.manual_seed(0)
    floor = FLOORS[name]
    single = nn.Sequential(floor.body(), nn.Linear(floor.features, floor.classes))
    model = single if floor.heads == 1 else Network(floor)
    kinds = {"epoch": True, "experience": True, "stream": True}
    strategy = METHODS[method](
        model=model,
        optimizer=OPTIMIZERS[optimizer](model.parameters()),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=floor.batch,
        train_epochs=floor.epochs,
        eval_mb_size=EVAL_BATCH,
        evaluator=EvaluationPlugin(
            accuracy_metrics(**kinds),  # as in Avalanche's default evaluator,
            loss_metrics(**kinds),
            bwt_metrics(stream=True),  # and what avsi's evaluator measures beside accuracy
            forgetting_metrics(stream=True),
        ),
    )
    matrix = []
    with benchmark(name, every) as made:
        for experience in made.train_stream:
            strategy.train(experience, reset_optimizer_state=floor.reset)
            results = strategy.eval(made.test_stream)
            matrix.append([value for key, value in results.items() if key.startswith("Top1_Acc_Exp/eval")])
    return matrix

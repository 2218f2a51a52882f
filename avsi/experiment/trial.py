"""Running one trial: an experiment, a method and a seed in, a result out."""

from __future__ import annotations

import contextlib
import math
import platform
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from avalanche.logging import TensorboardLogger
from avalanche.training.determinism.rng_manager import RNGManager
from avalanche.training.plugins import EvaluationPlugin, SupervisedPlugin
from torch import nn

from avsi.data import published_size
from avsi.data.batches import InMemoryBatches
from avsi.experiment.early_stopping import EarlyStopping, validation_error
from avsi.experiment.hebbian_dynamics import HebbianDynamics
from avsi.experiment.progress import TrialProgress
from avsi.experiment.spec import Experiment, Method
from avsi.metrics import (
    accuracy_row,
    average_accuracy,
    backward_transfer,
    check_against_avalanche,
    evaluation_metrics,
    forgetting,
)
from avsi.scenarios.build import ImageScenario

EVAL_BATCH_SIZE = 512
PACKAGES = ("avsi", "avalanche-lib", "torch", "torchvision", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Setting:
    """Where and with what trials run. Not part of a trial's description: results record device and data.

    Attributes:
        device: A torch device.
        data_root: Folder of prepared data sets, None for the default.
        download: Whether missing data may be downloaded.
        tensorboard: Folder for TensorBoard logs, None for none.
    """

    device: str = "cpu"
    data_root: Path | None = None
    download: bool = True
    tensorboard: Path | None = None


def run_trial(
    experiment: Experiment,
    method: Method,
    seed: int,
    setting: Setting,
    progress: TrialProgress,
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Run one trial.

    Args:
        experiment: The experiment.
        method: The method.
        seed: Seeds every random generator, and the benchmark.
        setting: Device, data and logs.
        progress: Told of every step.
        checkpoint: Where the state after each finished experience is kept, None for nowhere.

    Returns:
        The result, as JSON data. Accuracies and errors are fractions; for the ``independent`` and ``joint`` regimes,
        where there is no sequence, ``accuracy_matrix`` and ``bwt`` are None.
    """
    started, clock = datetime.now(timezone.utc), time.perf_counter()
    validation = {"validation": experiment.patience.validation} if experiment.patience else {}
    benchmark = experiment.scenario(seed=seed, root=setting.data_root, download=setting.download, **validation)
    RNGManager.set_random_seeds(seed)
    log = TensorboardLogger(str(setting.tensorboard)) if setting.tensorboard else None
    with quiet(), contextlib.closing(log.writer) if log else contextlib.nullcontext():
        trainer = Trainer(experiment, method, benchmark, setting.device, progress, log)
        train = {"sequential": train_sequential, "independent": train_independent, "joint": train_joint}[method.regime]
        outcome = train(trainer)
    return {
        "experiment": experiment.name,
        "method": method.trial_name,
        "seed": seed,
        "description": experiment.describe(method),
        "digest": experiment.digest(method),
        "deviation": experiment.deviation,
        **outcome,
        "validation_error": [errors for plugin in trainer.early_stopping for errors in plugin.errors],
        "hebbian_dynamics": trainer.dynamics.records,
        "data": describe_data(benchmark),
        "notes": list(benchmark.notes),
        "environment": describe_environment(setting.device),
        "started": started.isoformat(timespec="seconds"),
        "wall_time_s": round(time.perf_counter() - clock, 3),
    }


@dataclass(frozen=True)
class Trainer:
    """Makes models and strategies of one trial.

    Attributes:
        experiment: The experiment.
        method: The method.
        benchmark: The benchmark.
        device: A torch device.
        progress: An Avalanche plugin that is told of every step.
        log: Avalanche's TensorBoard logger, or None.
        early_stopping: The plugins of the strategies made so far, where the protocol stops early.
        dynamics: Records the dynamics of DHP layers.
    """

    experiment: Experiment
    method: Method
    benchmark: ImageScenario
    device: str
    progress: TrialProgress
    log: TensorboardLogger | None
    early_stopping: list[EarlyStopping] = field(default_factory=list)
    dynamics: HebbianDynamics = field(default_factory=HebbianDynamics)

    def strategy(self) -> Any:
        """Make a fresh model with its optimizer and strategy.

        Returns:
            The Avalanche strategy.
        """
        model = (self.method.model or self.experiment.model)().to(self.device)
        plugins: list[SupervisedPlugin] = [build() for build in self.method.plugins]
        plugins += [self.progress, self.dynamics, InMemoryBatches(on_device=self.device != "cpu")]
        if self.experiment.patience:
            self.early_stopping.append(EarlyStopping(self.benchmark.valid_stream, self.experiment.patience))
            plugins.append(self.early_stopping[-1])
        return self.method.strategy(
            model=model,
            optimizer=self.experiment.optimizer(model.parameters()),
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=self.experiment.batch_size,
            train_epochs=self.experiment.epochs,
            eval_mb_size=EVAL_BATCH_SIZE,
            device=self.device,
            evaluator=EvaluationPlugin(*evaluation_metrics(), loggers=[self.log] if self.log else []),
            plugins=plugins,
        )


def train_sequential(trainer: Trainer) -> dict[str, Any]:
    """Train one model on one task after the other, evaluating on every task's test set after each.

    Args:
        trainer: Makes the strategy.

    Returns:
        R, ACC, BWT, final accuracy by task and training time by task.
    """
    strategy, stream = trainer.strategy(), trainer.benchmark.test_stream
    matrix: list[list[float]] = []
    seconds: list[float] = []
    results: dict[str, float] = {}
    for experience in trainer.benchmark.train_stream:
        clock = time.perf_counter()
        strategy.train(experience, eval_streams=[], reset_optimizer_state=trainer.experiment.reset_optimizer)
        seconds.append(round(time.perf_counter() - clock, 3))
        results = strategy.eval(stream)
        matrix.append(accuracy_row(results, stream))
    check_against_avalanche(matrix, results, stream)
    return {
        "accuracy": average_accuracy(matrix),
        "bwt": backward_transfer(matrix),
        "forgetting": forgetting(matrix),
        "validation_accuracy": validation_accuracy(trainer, strategy),
        "task_accuracy": matrix[-1],
        "accuracy_matrix": matrix,
        "train_time_s": seconds,
    }


def train_independent(trainer: Trainer) -> dict[str, Any]:
    """Train a fresh model from scratch on each task.

    Args:
        trainer: Makes the strategies.

    Returns:
        Mean accuracy, accuracy by task and training time by task.
    """
    accuracies, seconds = [], []
    for experience, test in zip(trainer.benchmark.train_stream, trainer.benchmark.test_stream, strict=True):
        strategy = trainer.strategy()
        clock = time.perf_counter()
        strategy.train(experience, eval_streams=[])
        seconds.append(round(time.perf_counter() - clock, 3))
        accuracies += accuracy_row(strategy.eval(test), [test])
    return {
        "accuracy": average_accuracy([accuracies]),
        "bwt": None,
        "forgetting": None,
        "validation_accuracy": None,
        "task_accuracy": accuracies,
        "accuracy_matrix": None,
        "train_time_s": seconds,
    }


def train_joint(trainer: Trainer) -> dict[str, Any]:
    """Train one model on all tasks at once.

    Args:
        trainer: Makes the strategy.

    Returns:
        Mean accuracy, accuracy by task and training time.
    """
    strategy, stream = trainer.strategy(), trainer.benchmark.test_stream
    clock = time.perf_counter()
    strategy.train(trainer.benchmark.train_stream, eval_streams=[])
    seconds = [round(time.perf_counter() - clock, 3)]
    results = strategy.eval(stream)
    row = accuracy_row(results, stream)
    check_against_avalanche([row], results, stream)
    return {
        "accuracy": average_accuracy([row]),
        "bwt": None,
        "forgetting": None,
        "validation_accuracy": validation_accuracy(trainer, strategy),
        "task_accuracy": row,
        "accuracy_matrix": None,
        "train_time_s": seconds,
    }


def validation_accuracy(trainer: Trainer, strategy: Any) -> float | None:
    """Measure a model on the validation data of all tasks, tasks equally weighted: what strengths are chosen by.

    Args:
        trainer: Holds the benchmark.
        strategy: The trained strategy.

    Returns:
        The accuracy, in [0, 1]; None where the protocol holds no validation data out.
    """
    if trainer.experiment.patience is None:
        return None
    errors = [validation_error(strategy, [experience]) for experience in trainer.benchmark.valid_stream]
    return 1 - math.fsum(errors) / len(errors)


def describe_data(benchmark: ImageScenario) -> list[dict[str, Any]]:
    """Describe the images a benchmark uses, and whether they are all that was published of those classes.

    Args:
        benchmark: The benchmark.

    Returns:
        For each image set: name, split, SHA-256 fingerprint, images used, images published of those classes, whether
        that is all of them, and where the file came from.
    """
    rows = []
    for image_set in benchmark.image_sets:
        classes = benchmark.classes[image_set.name]
        counts = torch.bincount(image_set.labels, minlength=max(classes) + 1)
        used = int(sum(counts[c] for c in classes))
        expected = published_size(image_set.name, image_set.split, classes)
        rows.append(
            {
                "name": image_set.name,
                "split": image_set.split,
                "fingerprint": image_set.fingerprint(),
                "images": used,
                "published": expected,
                "complete": used == expected,
                "source": image_set.metadata.get("source", ""),
            }
        )
    return rows


def describe_environment(device: str) -> dict[str, Any]:
    """Describe software and hardware.

    Args:
        device: The torch device in use.

    Returns:
        Versions, platform, device and threads.
    """
    accelerator = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    return {
        "python": platform.python_version(),
        **{name: package_version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": f"{device} {accelerator}".strip(),
        "threads": torch.get_num_threads(),
    }


def package_version(name: str) -> str:
    """Look up an installed package's version.

    Args:
        name: Distribution name.

    Returns:
        The version, or "not installed".
    """
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep back a warning of Avalanche's that says only that no logger was asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No loggers specified")
        yield

"""Running a trial: makes the benchmark, trains in the method's regime, and tells what came of it."""

from __future__ import annotations

import contextlib
import inspect
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from avalanche.logging import TensorboardLogger
from avalanche.training.determinism.rng_manager import RNGManager

from avsi.consolidation import DivergenceError
from avsi.experiment.checkpoint import Checkpoint
from avsi.experiment.description import resolve
from avsi.experiment.progress import TrialProgress
from avsi.experiment.provenance import code_fingerprint, describe_data, describe_environment
from avsi.experiment.regimes import NOTHING_MEASURED, REGIMES, Trainer
from avsi.experiment.spec import Experiment, ExperimentError
from avsi.experiment.trial import Setting, Trial
from avsi.plugins.batches import NotInMemoryError, integers
from avsi.plugins.early_stopping import EarlyStopping

FEW = 200  # samples of a task in a smoke test


def run(trial: Trial, setting: Setting, progress: TrialProgress | None, checkpoint: Path | None) -> dict[str, Any]:
    """Run a trial, as :meth:`avsi.experiment.Trial.run` says."""
    experiment, method, clock = trial.experiment, trial.method, time.perf_counter()
    progress = progress or TrialProgress(lambda event: None)
    record = Checkpoint(checkpoint, clock=clock)
    record.take_threads(progress.tell)
    benchmark = make_benchmark(experiment, trial.seed, setting)
    streams = {name: list(stream) for name, stream in benchmark.streams.items()}
    if experiment.smoke:
        for name, stream in streams.items():
            _shorten(stream, FEW if name == "train" else FEW // 2)
    data, environment = describe_data(benchmark), describe_environment(setting.device)
    record.identify(trial, data, environment)
    RNGManager.set_random_seeds(trial.seed)
    stopping = None
    if experiment.patience:
        if "valid" not in streams:
            raise ExperimentError(f"{experiment.name} stops early, and its benchmark has no validation stream")
        stopping = EarlyStopping(streams["valid"], experiment.patience.epochs, experiment.patience.at_least)
    divergence = None
    with _loggers(trial, setting) as listeners:
        trainer = Trainer(trial, streams, setting.device, progress, listeners, record, stopping)
        try:
            outcome = REGIMES[method.regime](trainer)
        except FloatingPointError as error:
            outcome, divergence = dict(NOTHING_MEASURED), progress.where() | _what_is_known(error)
        for logger in listeners:
            if isinstance(logger, TensorboardLogger) and outcome["accuracy"] is not None:
                flat, measured = dict(_flat(trial.description)), {"accuracy": outcome["accuracy"]}
                logger.writer.add_hparams(flat | {"seed": trial.seed}, measured, run_name=".")
    classes, train = outcome["class_accuracy"], streams["train"]
    if classes and len(train) == len(classes) and all(hasattr(task.dataset, "targets") for task in train):
        outcome["class_images"] = [_count(task, len(row)) for task, row in zip(train, classes, strict=True)]
    return {
        "status": "diverged" if divergence else "finished",
        **({"divergence": divergence} if divergence else {}),
        "experiment": experiment.name,
        "method": method.trial_name,
        "seed": trial.seed,
        "description": trial.description,
        "digest": trial.digest,
        "deviation": experiment.deviation,
        **outcome,
        "train_time_s": trainer.finished.train_time_s,
        "weights": trainer.finished.weights,
        "state": trainer.finished.state,
        "validation_error": stopping.errors if stopping else [],
        "hebbian_dynamics": trainer.dynamics.records,
        "data": data,
        "notes": list(getattr(benchmark, "notes", ())),
        "environment": environment,
        "code": code_fingerprint(),
        "started": record.started,
        "wall_time_s": round(record.seconds, 3),
        "resumed": record.resumed,
    }


def _count(experience: Any, classes: int) -> list[int]:
    # Count the samples of each class in an experience.
    targets = experience.dataset.targets
    try:
        labels = integers(targets)
    except NotInMemoryError:  # tensors of one element, say
        labels = torch.tensor([int(target) for target in targets])
    return torch.bincount(labels, minlength=classes)[:classes].tolist()


def _flat(description: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    # The numbers and words of a description, each with the path to it.
    if isinstance(description, dict | list):
        items = description.items() if isinstance(description, dict) else enumerate(description)
        for key, value in items:
            yield from _flat(value, f"{name}.{key}" if name else str(key))
    elif description is not None:
        yield name, description


def _what_is_known(error: FloatingPointError) -> dict[str, Any]:
    # The error's own place, if it has one, is the better one, but for the task: from scratch every model's is 0.
    if not isinstance(error, DivergenceError):
        return {"cause": str(error), "stable_strength": None}
    place = {"step": error.step} | ({} if error.epoch is None else {"epoch": error.epoch})
    return place | {"cause": f"{error.found}; {error.cause}", "stable_strength": error.stable_strength}


def make_benchmark(experiment: Experiment, seed: int, setting: Setting) -> Any:
    """Make the Avalanche benchmark of a trial, giving the experiment's ``scenario`` those arguments that it takes."""
    build = resolve(experiment.scenario)
    offered: dict[str, Any] = {"seed": seed, "download": setting.download}
    if setting.data_root is not None:
        offered["dataset_root"] = setting.data_root
    if experiment.patience:
        offered["validation"] = experiment.patience.validation
    parameters = inspect.signature(build).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    benchmark = build(**{name: value for name, value in offered.items() if takes_all or name in parameters})
    if not all(hasattr(benchmark, name) for name in ("streams", "train_stream", "test_stream")):
        raise ExperimentError(
            f"the scenario of {experiment.name} makes a {type(benchmark).__name__}; it must make an Avalanche "
            "benchmark with a train_stream and a test_stream"
        )
    return benchmark


def _shorten(stream: list[Any], size: int) -> None:
    # Leave of each experience's data only some samples, spread over its classes.
    for experience in stream:
        rows: dict[int, list[int]] = {}
        for row, target in enumerate(getattr(experience.dataset, "targets", [0] * len(experience.dataset))):
            rows.setdefault(int(target), []).append(row)
        share = -(-size // len(rows))
        chosen = sorted(row for members in rows.values() for row in members[:share])
        experience._dataset = experience.dataset.subset(chosen)  # its data set can only be read


@contextlib.contextmanager
def _loggers(trial: Trial, setting: Setting) -> Iterator[list[Any]]:
    # Make a trial's loggers, and keep back a warning of Avalanche's that says only that there are none.
    made = [make(trial) for make in resolve(setting.loggers)]
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.filterwarnings("ignore", message="No loggers specified")
        if setting.tensorboard:
            board = TensorboardLogger(str(setting.tensorboard))
            stack.callback(board.writer.close)
            made.append(board)
        yield made

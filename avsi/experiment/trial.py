"""Running one trial: an experiment, a method and a seed in, a result out."""

from __future__ import annotations

import contextlib
import re
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avalanche.logging import TensorboardLogger
from avalanche.training.determinism.rng_manager import RNGManager

from avsi.experiment.checkpoint import Checkpoint
from avsi.experiment.early_stopping import EarlyStopping
from avsi.experiment.progress import TrialProgress
from avsi.experiment.provenance import describe_data, describe_environment
from avsi.experiment.regimes import Trainer, train_independent, train_joint, train_sequential
from avsi.experiment.spec import Experiment, Method


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
    """Run one trial, or go on with one that was cut.

    Args:
        experiment: The experiment.
        method: The method.
        seed: Seeds every random generator, and the benchmark.
        setting: Device, data and logs.
        progress: Told of every step.
        checkpoint: File that keeps the trial's state after each finished experience, see
            ``avsi.experiment.checkpoint``; None: it is kept nowhere. If the file is there, the trial goes on from it,
            and its result differs from that of an uncut trial in times and ``resumed`` only. The file stays: it is
            the caller's to discard, once the result is written.

    Returns:
        The result, as JSON data. Accuracies and errors are fractions; for the ``independent`` and ``joint`` regimes,
        where there is no sequence, ``accuracy_matrix`` and ``bwt`` are None. ``weights`` and ``state`` hold a SHA-256
        for each training: trials with equal ones are equal bit for bit.
    """
    clock = time.perf_counter()
    validation = {"validation": experiment.patience.validation} if experiment.patience else {}
    benchmark = experiment.scenario(seed=seed, dataset_root=setting.data_root, download=setting.download, **validation)
    description = experiment.describe(method)
    data, environment = describe_data(benchmark), describe_environment(setting.device)
    trial = {
        "seed": seed,
        "description": description,
        "data": [{key: value for key, value in row.items() if key != "source"} for row in data],
        # While a trial is cut, the operating system may be brought up to date. Another GPU may do that is of the same
        # kind.
        "environment": {
            key: re.sub(r":\d+", "", value, count=1) if key == "device" else value
            for key, value in environment.items()
            if key != "platform"
        },
    }
    record = Checkpoint(checkpoint, trial, clock=clock)
    RNGManager.set_random_seeds(seed)
    log = TensorboardLogger(str(setting.tensorboard)) if setting.tensorboard else None
    stopping = EarlyStopping(benchmark.valid_stream, experiment.patience) if experiment.patience else None
    with quiet(), contextlib.closing(log.writer) if log else contextlib.nullcontext():
        trainer = Trainer(experiment, method, benchmark, setting.device, progress, log, record, stopping)
        train = {"sequential": train_sequential, "independent": train_independent, "joint": train_joint}[method.regime]
        outcome = train(trainer)
    return {
        "experiment": experiment.name,
        "method": method.trial_name,
        "seed": seed,
        "description": description,
        "digest": experiment.digest(method),
        "deviation": experiment.deviation,
        **outcome,
        "train_time_s": trainer.finished.train_time_s,
        "weights": trainer.finished.weights,
        "state": trainer.finished.state,
        "validation_error": stopping.errors if stopping else [],
        "hebbian_dynamics": trainer.dynamics.records,
        "data": data,
        "notes": list(benchmark.notes),
        "environment": environment,
        "started": record.started,
        "wall_time_s": round(record.seconds, 3),
        "resumed": record.resumed,
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep back a warning of Avalanche's that says only that no logger was asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No loggers specified")
        yield

"""Running a trial: makes its benchmark, trains, and tells what came of it and where it ran."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from avalanche.logging import TensorboardLogger
from avalanche.training.determinism.rng_manager import RNGManager

from avsi.consolidation import DivergenceError
from avsi.experiment.checkpoint import Checkpoint
from avsi.experiment.making import make_benchmark, streams_of
from avsi.experiment.names import resolve
from avsi.experiment.progress import TrialProgress
from avsi.experiment.provenance import code_fingerprint, describe_data, describe_environment
from avsi.experiment.trainer import Trainer
from avsi.experiment.trial import Setting, Trial
from avsi.plugins.in_memory import NotInMemoryError, integers

MEASURED = (
    "accuracy", "bwt", "forgetting", "validation_accuracy", "task_accuracy", "train_accuracy", "class_accuracy",
    "learned_class_accuracy", "accuracy_matrix",
)  # fmt: skip
"""What is told of every trial; None where it has no meaning."""


def run(trial: Trial, setting: Setting, progress: TrialProgress | None, checkpoint: Path | None) -> dict[str, Any]:
    """Run a trial, as :meth:`avsi.experiment.Trial.run` says."""
    experiment, method = trial.experiment, trial.method
    record = Checkpoint(checkpoint)
    progress = progress or TrialProgress(lambda event: None)
    record.take_threads(progress.tell)
    RNGManager.set_random_seeds(trial.seed)  # for a benchmark that takes no seed and draws
    benchmark = make_benchmark(experiment, trial.seed, setting)
    streams = streams_of(benchmark, experiment)
    data, environment = describe_data(benchmark), describe_environment(setting.device)
    record.identify(trial, data, environment)
    RNGManager.set_random_seeds(trial.seed)  # whatever the benchmark has drawn
    result: dict[str, Any] = {
        "status": "finished",
        "experiment": experiment.name,
        "method": method.trial_name,
        "seed": trial.seed,
        "description": trial.description,
        "digest": trial.digest,
        "deviation": experiment.deviation,
        **dict.fromkeys(MEASURED),
    }
    with contextlib.ExitStack() as stack:
        loggers = [make(trial) for make in resolve(setting.loggers)]
        if setting.tensorboard:
            loggers.append(TensorboardLogger(str(setting.tensorboard)))
            stack.callback(loggers[-1].writer.close)
        trainer = Trainer(trial, streams, setting.device, progress, loggers, record)
        try:
            result |= trainer.run()
        except FloatingPointError as error:
            result |= {"status": "diverged", "divergence": progress.where() | _what_is_known(error)}
        for logger in loggers:
            if isinstance(logger, TensorboardLogger) and result["accuracy"] is not None:
                _log_parameters(logger, trial, result["accuracy"])
    return result | {
        **_class_images(streams["train"], result["class_accuracy"]),
        **{key: trainer.finished[key] for key in ("train_time_s", "weights", "state")},
        "validation_error": trainer.stopping.errors if trainer.stopping else [],
        "hebbian_dynamics": trainer.dynamics.records,
        "data": data,
        "notes": list(getattr(benchmark, "notes", ())),
        "environment": environment,
        "code": code_fingerprint(),
        "started": record.started,
        "wall_time_s": round(record.seconds, 3),
        "resumed": record.resumed,
    }


def _class_images(tasks: list[Any], class_accuracy: list[list[Any]] | None) -> dict[str, list[list[int]]]:
    # Training images by task and class, where both are known.
    if not class_accuracy or len(tasks) != len(class_accuracy):
        return {}
    if not all(hasattr(task.dataset, "targets") for task in tasks):
        return {}
    counts = [_count(task.dataset.targets, len(row)) for task, row in zip(tasks, class_accuracy, strict=True)]
    return {"class_images": counts}


def _count(targets: Any, classes: int) -> list[int]:
    try:
        labels = integers(targets)
    except NotInMemoryError:  # tensors of one element, say
        labels = torch.tensor([int(target) for target in targets])
    return torch.bincount(labels[labels >= 0], minlength=classes)[:classes].tolist()  # torch ignores -100


def _log_parameters(logger: TensorboardLogger, trial: Trial, accuracy: float) -> None:
    # Show the numbers and words of a trial's description, each under the path to it, beside its accuracy.
    import pandas

    (flat,) = pandas.json_normalize(trial.description).to_dict("records")
    parameters = {name: value if isinstance(value, int | float) else str(value) for name, value in flat.items()}
    logger.writer.add_hparams(parameters | {"seed": trial.seed}, {"accuracy": accuracy}, run_name=".")


def _what_is_known(error: FloatingPointError) -> dict[str, Any]:
    # The error's own place, if it has one, is the better one, but for the task: from scratch every model's is 0.
    if not isinstance(error, DivergenceError):
        return {"cause": str(error), "stable_strength": None}
    place = {"step": error.step} | ({} if error.epoch is None else {"epoch": error.epoch})
    return place | {"cause": f"{error.found}; {error.cause}", "stable_strength": error.stable_strength}

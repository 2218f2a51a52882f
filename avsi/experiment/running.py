"""What a trial does: makes the benchmark, trains in the method's regime, measures, and tells what came of it."""

from __future__ import annotations

import contextlib
import copy
import inspect
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from avalanche.logging import TensorboardLogger
from avalanche.training.determinism.rng_manager import RNGManager
from torch import nn

from avsi import metrics
from avsi._generators import set_states, states_of
from avsi.consolidation import DivergenceError
from avsi.experiment.checkpoint import START_OVER, Checkpoint
from avsi.experiment.events import Said
from avsi.experiment.names import resolve
from avsi.experiment.progress import TrialProgress
from avsi.experiment.provenance import code_fingerprint, describe_data, describe_environment
from avsi.experiment.spec import Experiment, ExperimentError, Method
from avsi.experiment.strategy_state import (
    NotKeptError,
    attributes,
    fingerprint,
    fixed_attributes,
    held_attributes,
    pack,
    random_states,
    restore_attributes,
    restore_random_states,
    restore_strategy,
    strategy_state,
)
from avsi.experiment.trial import Setting, Trial
from avsi.plugins.batches import InMemoryBatches
from avsi.plugins.class_accuracy import ClassAccuracy
from avsi.plugins.divergence import DivergencePlugin
from avsi.plugins.early_stopping import EarlyStopping, validation_error
from avsi.plugins.evaluation import EvaluationPlugin, silent_evaluator
from avsi.plugins.hebbian_dynamics import HebbianDynamics
from avsi.plugins.in_memory import NotInMemoryError, integers
from avsi.plugins.scalars import Scalars
from avsi.plugins.schedule import Schedule

FEW = 200  # samples of a task in a smoke test
EVAL_BATCH_SIZE = 512

MEASURED = (
    "accuracy", "bwt", "forgetting", "validation_accuracy", "task_accuracy", "train_accuracy", "class_accuracy",
    "learned_class_accuracy", "accuracy_matrix",
)  # fmt: skip
"""What is told of every trial; None where it has no meaning."""

KEPT = (
    "rows",  # accuracies on test data; in the sequential regime the rows of R
    "class_rows",  # the same by task and class
    "train_accuracy",  # by task, of the last model that learned it
    "validation_accuracy",  # likewise, where there are such data
    "train_time_s",
    "weights",  # fingerprints of parameters and buffers
    "state",  # and of all that decides how it goes on; None if that is not plain data
)
"""What is kept of each finished training. Accuracies are in [0, 1]."""


def run(trial: Trial, setting: Setting, progress: TrialProgress | None, checkpoint: Path | None) -> dict[str, Any]:
    """Run a trial, as :meth:`avsi.experiment.Trial.run` says."""
    experiment, method = trial.experiment, trial.method
    record = Checkpoint(checkpoint)
    progress = progress or TrialProgress(lambda event: None)
    record.take_threads(progress.tell)
    RNGManager.set_random_seeds(trial.seed)  # for a benchmark that takes no seed and draws
    benchmark = make_benchmark(experiment, trial.seed, setting)
    streams = {name: list(stream) for name, stream in benchmark.streams.items()}
    _check_streams(experiment, streams)
    if experiment.smoke:
        for name, stream in streams.items():
            streams[name] = _shortened(stream, FEW if name == "train" else FEW // 2)
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
    classes, train = result["class_accuracy"], streams["train"]
    if classes and len(train) == len(classes) and all(hasattr(task.dataset, "targets") for task in train):
        result["class_images"] = [_count(task, len(row)) for task, row in zip(train, classes, strict=True)]
    return result | {
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


class Trainer:
    """Makes models and strategies of one trial, trains them, and keeps what came of it.

    Its streams are the benchmark's experiences: "train", "test" and perhaps "valid".
    """

    def __init__(
        self,
        trial: Trial,
        streams: dict[str, list[Any]],
        device: str,
        progress: TrialProgress,
        loggers: list[Any],
        checkpoint: Checkpoint,
    ) -> None:
        self.trial, self.streams, self.device = trial, streams, device
        self.progress, self.loggers, self.checkpoint = progress, loggers, checkpoint
        self.finished: dict[str, list[Any]] = {key: [] for key in KEPT}
        self.dynamics, self.classes = HebbianDynamics(), ClassAccuracy()
        self.stopping: EarlyStopping | None = None
        self.fixed: dict[str, str] = {}  # fingerprints of what is in no checkpoint
        self.watchers: dict[str, Any] = {"dynamics": self.dynamics}  # which have a state of their own
        patience = trial.experiment.patience
        if patience:
            if "valid" not in streams:
                raise ExperimentError(
                    f"{trial.experiment.name} stops early, and its benchmark has no validation stream; have its "
                    "scenario make a valid_stream, or leave out patience"
                )
            found, needed = len(streams["valid"]), len(streams["train"])
            if found < needed:
                raise ExperimentError(
                    f"{trial.experiment.name} stops early, and its valid stream has {found} "
                    f"experience{'s' * (found != 1)} for {needed} to train on; have its scenario make one for each"
                )
            self.stopping = EarlyStopping(streams["valid"], patience.epochs, patience.at_least)
            self.watchers["early_stopping"] = self.stopping
        # Plugins that all strategies of the trial share, and that are no part of a strategy's state.
        self.apart = [progress, self.classes, Scalars(), DivergencePlugin(), *self.watchers.values()]

    def run(self) -> dict[str, Any]:
        """Train one model on one task after the other, a fresh one on each, or one on all at once; measure each."""
        regime, train, test = self.trial.method.regime, self.streams["train"], self.streams["test"]
        independent, valid = regime == "independent", self.streams.get("valid", [])
        if independent and len(valid) != len(train):  # else no validation set is a model's
            valid = []
        if independent and len(train) != len(test):
            raise ExperimentError(
                f"{self.trial.method.name} trains a model for each of {len(train)} tasks, and there are {len(test)} "
                "test experiences; leave it out"
            )
        strategy: Any = None if independent else self.strategy()
        self.resume(strategy)
        trainings = [train] if regime == "joint" else train
        for index in range(len(self.finished["rows"]), len(trainings)):
            strategy = self.strategy() if independent else strategy
            known = slice(index, index + 1) if independent else slice(None)  # the tasks of this model
            self.train(strategy, trainings[index], test[known])
            if independent or index == len(trainings) - 1:
                self.finished["train_accuracy"] += self.measure(strategy, train[known])
                self.finished["validation_accuracy"] += self.measure(strategy, valid[known])
            self.keep(strategy)
        rows, class_rows, train_accuracy, validation = (self.finished[key] for key in KEPT[:4])
        matrix = rows if regime == "sequential" and len(train) == len(test) else None  # else no test set is a task's
        if independent:
            rows, class_rows = ([[own for (own,) in found]] for found in (rows, class_rows))
        else:
            metrics.check_against_avalanche(matrix or rows[-1:], strategy.evaluator.get_last_metrics(), test)
        return {
            "accuracy": metrics.average_accuracy(rows),
            "bwt": metrics.backward_transfer(matrix) if matrix else None,
            "forgetting": metrics.forgetting(matrix) if matrix else None,
            "validation_accuracy": metrics.average_accuracy([validation]) if validation else None,
            "task_accuracy": rows[-1],
            "train_accuracy": train_accuracy,
            "class_accuracy": class_rows[-1],
            "learned_class_accuracy": [row[task] for task, row in enumerate(class_rows)] if matrix else None,
            "accuracy_matrix": matrix,
        }

    def strategy(self) -> Any:
        """Make a fresh model with its optimizer and strategy."""
        evaluator = silent_evaluator(*metrics.evaluation_metrics(), loggers=self.loggers, collect_all=False)
        strategy = make_strategy(self.trial.experiment, self.trial.method, self.device, evaluator, self.apart)
        with contextlib.suppress(NotKeptError):  # which is said when something is to be kept
            self.fixed = fixed_attributes(strategy)
        return strategy

    def train(self, strategy: Any, experiences: Any, evaluated: Sequence[Any]) -> None:
        """Train and evaluate."""
        finished, clock = self.finished, time.perf_counter()
        strategy.train(experiences, eval_streams=[], reset_optimizer_state=self.trial.experiment.reset_optimizer)
        finished["train_time_s"].append(round(time.perf_counter() - clock, 3))
        self.classes.start()
        finished["rows"].append(metrics.accuracy_row(strategy.eval(evaluated), evaluated))
        finished["class_rows"].append(self.classes.rows())

    def keep(self, strategy: Any) -> None:
        """Take the fingerprints of a training that is finished, and write a checkpoint, if its state can be kept."""
        self.finished["weights"].append(fingerprint(strategy.model.state_dict()))
        try:
            state = {"strategy": strategy_state(strategy, self.apart), "random": random_states(self.device)}
            if own := states_of(self.drawing(strategy)):
                state["generators"] = pack(own)
            if held := attributes(strategy):
                state["attributes"] = held
            now = fixed_attributes(strategy)
            changed = [name for name, value in now.items() if self.fixed.setdefault(name, value) != value]
            if changed:
                raise NotKeptError(f"{', '.join(changed)}, which training has changed")
        except NotKeptError as error:
            if None not in self.finished["state"]:
                self.progress.tell(Said(f"starts over when it is interrupted, for it cannot keep {error}"))
            self.finished["state"].append(None)
            return
        self.finished["state"].append(fingerprint(state))
        if self.trial.method.regime == "joint":  # whose one training is the trial
            return
        if self.trial.method.regime == "independent":
            del state["strategy"]  # the next one is made afresh
            state.pop("attributes", None)
        watchers = {name: plugin.state_dict() for name, plugin in self.watchers.items()}
        try:
            self.checkpoint.write(pack(state | {"watchers": watchers, "finished": self.finished}))
        except OSError as error:  # a full disk; the result is small and perhaps fits
            self.progress.tell(Said(f"cannot write its checkpoint ({error.strerror}), and goes on without"))

    def resume(self, strategy: Any = None) -> None:
        """Go on from the checkpoint, if there is one: afterwards all is as it was when that was written."""
        state = self.checkpoint.read()
        if state is None:
            return
        self.finished = state["finished"]
        for name, plugin in self.watchers.items():
            plugin.load_state_dict(state["watchers"][name])
        tasks = self.streams["train"]
        done = tasks[: len(self.finished["rows"])]
        self.progress.tell(Said(f"resuming after task {len(done)} of {len(tasks)}"))
        if strategy is not None:
            try:
                restore_strategy(strategy, state["strategy"], done, self.streams["test"], self.apart)
            except ValueError as error:
                raise self.cannot_resume(error) from error
            restore_attributes(strategy, state.get("attributes", {}))
        # Last: making and adapting models draws random numbers.
        restore_random_states(state["random"], self.device)
        try:
            set_states(self.drawing(strategy), state.get("generators", []))
        except ValueError as error:
            raise self.cannot_resume(error) from error

    def drawing(self, strategy: Any) -> list[Any]:
        """List what may hold random generators of its own, which outlast a training: transforms, data sets, models."""
        if self.trial.method.regime == "independent":
            return [self.streams]
        return [self.streams, strategy.model, strategy._criterion, *(value for *_, value in held_attributes(strategy))]

    def cannot_resume(self, error: Exception) -> ExperimentError:
        """Say why the checkpoint is of no use, and what to do."""
        return ExperimentError(f"cannot resume from the checkpoint {self.checkpoint.path}: {error}; {START_OVER}")

    def measure(self, strategy: Any, experiences: Any) -> list[float]:
        """Measure a model's accuracy, in [0, 1], on each experience's data with evaluation transforms."""
        return [1 - validation_error(strategy, [experience], self.progress.passing) for experience in experiences]


def _count(experience: Any, classes: int) -> list[int]:
    # Count the samples of each class in an experience.
    targets = experience.dataset.targets
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


def make_strategy(
    experiment: Experiment, method: Method, device: str, evaluator: EvaluationPlugin, plugins: Sequence[Any]
) -> Any:
    """Make a method's strategy, with a fresh model and optimizer, its own plugins and then those given."""
    layout = {"memory_format": torch.channels_last} if experiment.channels_last else {}
    model = resolve(method.model or experiment.model)().to(device, **layout)
    plugins = [*(build() for build in resolve(method.plugins)), *plugins, InMemoryBatches(on_device=device != "cpu")]
    if experiment.scheduler:
        plugins.append(Schedule(resolve(experiment.scheduler)))
    criterion = resolve(experiment.criterion or nn.CrossEntropyLoss)()
    strategy = resolve(method.strategy)(
        model=model,
        optimizer=resolve(method.optimizer or experiment.optimizer)(model.parameters()),
        criterion=criterion.to(device) if isinstance(criterion, nn.Module) else criterion,
        train_mb_size=experiment.batch_size,
        train_epochs=experiment.epochs,
        eval_mb_size=EVAL_BATCH_SIZE,
        device=device,
        evaluator=evaluator,
        plugins=plugins,
    )
    if experiment.autocast:  # importances and validation go past these, in float32
        cast = torch.autocast(strategy.device.type, getattr(torch, experiment.autocast))
        strategy.forward, strategy.criterion = cast(strategy.forward), cast(strategy.criterion)
    return strategy


def make_benchmark(experiment: Experiment, seed: int, setting: Setting) -> Any:
    """Make the Avalanche benchmark of a trial, giving ``scenario`` those arguments that it takes and lacks."""
    build = resolve(experiment.scenario)
    offered: dict[str, Any] = {"seed": seed, "download": setting.download}
    if experiment.patience:
        offered["validation"] = experiment.patience.validation
    offered = {name: value for name, value in offered.items() if name not in getattr(build, "keywords", {})}
    if setting.data_root is not None:
        offered["dataset_root"] = setting.data_root
    parameters = inspect.signature(build).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    benchmark = build(**{name: value for name, value in offered.items() if takes_all or name in parameters})
    if not all(hasattr(benchmark, name) for name in ("streams", "train_stream", "test_stream")):
        raise ExperimentError(
            f"the scenario of {experiment.name} makes a {type(benchmark).__name__}; it must make an Avalanche "
            "benchmark with a train_stream and a test_stream"
        )
    return benchmark


def _check_streams(experiment: Experiment, streams: dict[str, list[Any]]) -> None:
    for name in ("train", "test"):
        if not streams.get(name):
            raise ExperimentError(f"the benchmark of {experiment.name} has no experience in its {name} stream")
    for name, stream in streams.items():
        for number, experience in enumerate(stream):
            if not len(getattr(experience, "dataset", [None])):
                raise ExperimentError(
                    f"experience {number} of the {name} stream of {experiment.name} has no samples; leave it out of "
                    "the benchmark, or give it some"
                )


def _shortened(stream: list[Any], size: int) -> list[Any]:
    # Experiences with only some samples, spread over classes; the benchmark may be used again, so it is left alone.
    short = []
    for experience in map(copy.copy, stream):
        rows: dict[int, list[int]] = {}
        for row, target in enumerate(getattr(experience.dataset, "targets", [0] * len(experience.dataset))):
            rows.setdefault(int(target), []).append(row)
        share = -(-size // len(rows))
        chosen = sorted(row for members in rows.values() for row in members[:share])
        experience._dataset = experience.dataset.subset(chosen)  # its data set can only be read
        short.append(experience)
    return short

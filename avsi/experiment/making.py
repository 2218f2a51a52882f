"""Making what a trial trains: the benchmark's streams, and the method's strategy with a fresh model."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from avsi.experiment.names import resolve
from avsi.experiment.spec import Experiment, ExperimentError, Method
from avsi.experiment.trial import Setting
from avsi.plugins.batches import InMemoryBatches
from avsi.plugins.evaluation import EvaluationPlugin
from avsi.plugins.schedule import Schedule

FEW = 200  # samples of a task in a smoke test
EVAL_BATCH_SIZE = 512


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


def streams_of(benchmark: Any, experiment: Experiment) -> dict[str, list[Any]]:
    """List the experiences of each of a benchmark's streams; in a smoke test they are short."""
    streams = {name: list(stream) for name, stream in benchmark.streams.items()}
    _check_streams(experiment, streams)
    if not experiment.smoke:
        return streams
    return {name: _shortened(stream, FEW if name == "train" else FEW // 2) for name, stream in streams.items()}


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

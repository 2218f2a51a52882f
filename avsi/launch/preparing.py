"""Getting ready what trials need before the first of them runs: the device, the data and an executor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from avsi.experiment.spec import ExperimentError
from avsi.experiment.trial import Setting, Trial
from avsi.launch.executors import Executor, InProcesses, InThisProcess
from avsi.launch.options import Options

Loggers = tuple[Callable[[Trial], Any], ...]
"""Make loggers of Avalanche's, each for a trial."""


def prepare(options: Options, loggers: Loggers, stack: contextlib.ExitStack, trial: Trial) -> tuple[Executor, Setting]:
    """Get device, data and executor ready, before any work is lost."""
    elsewhere = options.engine == "ray" and options.device == "cuda"  # there is perhaps no GPU here
    device = options.device if elsewhere else check_device(options.device)
    data = options.data_root.expanduser().absolute() if options.data_root else None  # trials may run elsewhere
    setting = Setting(device, data, options.download, loggers=loggers)
    benchmark = prepare_data(trial, setting)
    if options.sweep and benchmark is not None and "valid" not in benchmark.streams:
        raise ExperimentError(
            f"{trial.experiment.name} holds out no validation data to choose by; add --set scenario.validation=0.1, or "
            "where its scenario takes no such argument, have that make a benchmark with a valid_stream"
        )
    executor: Executor
    if options.engine == "ray":
        from avsi.launch.on_ray import OnRay  # not everybody has Ray

        on_ray = OnRay(options.ray_address, options.workers, options.threads or 1, gpu=device == "cuda")
        executor = stack.enter_context(contextlib.closing(on_ray))
    elif options.workers in (None, 1):
        executor = InThisProcess(options.threads)
    else:
        executor = InProcesses(options.workers, options.threads)
    return executor, setting


def prepare_data(trial: Trial, setting: Setting) -> Any:
    """Make a trial's benchmark, which obtains the data once, before many processes do; None if it cannot be made."""
    from avsi.data import DataError
    from avsi.experiment.making import make_benchmark

    try:
        return make_benchmark(trial.experiment, trial.seed, setting)
    except DataError as error:
        raise ExperimentError(str(error)) from error
    except ExperimentError:
        raise
    except Exception:  # the trials will meet it, and report it with its traceback
        return None


def check_device(name: str) -> str:
    """Choose a torch device, for "auto", or see that the one of this name exists here."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ExperimentError(f"device {name!r} cannot be used ({reason}); try --device cpu") from error
    return name

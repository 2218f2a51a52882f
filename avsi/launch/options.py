"""The options of the command line, and which of them go together."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from avsi.experiment.spec import ExperimentError
from avsi.launch.sweep import MAX_SETTINGS

MAX_COUNT = 100_000  # of trials, seeds, workers or threads


arg = partial(tyro.conf.arg, help_behavior_hint="")  # where the text says what the default is, or nothing needs to
Flag = Annotated[bool, arg()]
Number = Annotated[int | None, arg(metavar="N")]


@dataclass(frozen=True)
class Options:
    """What to run and where.

    Attributes:
        protocol: Whose protocol to follow, where there are several; default: the first named above.
        methods: Methods to run, by name; all, the default without --sweep: all of the experiment's.
        trials: Number of trials per method; default: the experiment's.
        seed: Seed of the first trial; the others count up from it.
        epochs: Epochs per task; default: the protocol's. Results say so where it differs.
        settings: Change something, any number of times: si.strength=0.3, optimizer.lr=0.05, batch_size=32. @FILE reads
            a file of such lines. Results say what was changed.
        sweep: Choose a method's parameter on validation data, any number of parameters: mas.strength=0.01,0.05,0.1 or
            mas.strength=log:1e-3:1e3:7. What is chosen is then run with other seeds beside what --methods names, and is
            written to a file for --set.
        sweep_trials: Let Optuna draw so many settings, from mas.strength=log:1e-3:1e3 say, --workers of them at a time;
            default: all combinations. Optuna comes with the extra `sweep`.
        sweep_seeds: Number of seeds that settings are compared with, from --seed on; what is chosen runs with those
            that follow.
        smoke: Only see that everything runs: one epoch of a few images of each task, one trial.
        device: Torch device, such as cpu or cuda:0; auto: the first GPU where there is one, else the CPU.
        data_root: Folder of prepared data sets; default: $AVSI_DATA, else the user's cache folder.
        download: Stop where a data set is missing; default: it is obtained from its publisher.
        out: Folder for results. Finished trials found there are not run again; tables and figure are made of all of
            them.
        rerun: Run finished trials again, and all from their beginning; each old result stays until there is a new one.
        engine: Run trials on this machine, or on Ray, which the extra `ray` installs.
        ray_address: Ray cluster to run on, auto: the one that runs on this machine; default: a local Ray, started for
            this run.
        workers: Trials to run at a time, each in a process of its own; default: 1, in this process; with Ray as many as
            there is room for. Local workers share out the GPUs where the device is cuda; with Ray each trial has one.
        threads: Threads of each trial; default: torch's choice, which several workers share out, with Ray 1. A trial
            that is resumed has as many as it began with.
        tensorboard: Write TensorBoard logs beside each trial's result; on Ray, on the node that runs it. The log of a
            trial that was interrupted holds the steps after its last finished task twice.
        quiet: Show only failures and warnings, and where tables and figures are.
        verbose: Show a line for each finished task of a trial.
    """

    protocol: Annotated[str | None, arg(metavar="NAME")] = None
    methods: Annotated[tuple[str, ...] | None, arg(metavar="NAME ...")] = None
    trials: Number = None
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    epochs: Number = None
    settings: Annotated[tuple[str, ...], arg(name="set", metavar="NAME=VALUE"), tyro.conf.UseAppendAction] = ()
    sweep: Annotated[tuple[str, ...], arg(metavar="NAME=VALUES"), tyro.conf.UseAppendAction] = ()
    sweep_trials: Number = None
    sweep_seeds: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    smoke: Flag = False
    device: Annotated[str, tyro.conf.arg(metavar="NAME")] = "auto"
    data_root: Annotated[Path | None, arg(metavar="FOLDER")] = None
    download: Flag = True
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("results")
    rerun: Flag = False
    engine: Literal["local", "ray"] = "local"
    ray_address: Annotated[str | None, arg(metavar="ADDRESS")] = None
    workers: Number = None
    threads: Number = None
    tensorboard: Flag = False
    quiet: Flag = False
    verbose: Flag = False

    def check(self) -> None:
        """Refuse what no experiment can be run with."""
        limits = dict.fromkeys(("trials", "sweep_seeds", "workers", "threads"), MAX_COUNT)
        limits["sweep_trials"] = MAX_SETTINGS
        for name, most in limits.items():
            number = getattr(self, name)
            if number is not None and not 1 <= number <= most:
                option = name.replace("_", "-")
                raise ExperimentError(f"--{option} must be at least 1 and at most {most}, got {number}")
        if self.quiet and self.verbose:
            raise ExperimentError("--quiet and --verbose contradict each other; leave one out")
        if self.sweep_trials is not None and not self.sweep:
            raise ExperimentError("--sweep-trials needs --sweep, such as --sweep mas.strength=log:1e-3:1e3")
        if self.sweep_seeds > 1 and not self.sweep:
            raise ExperimentError("--sweep-seeds is for --sweep; --trials says with how many seeds methods are run")
        if self.rerun and self.sweep:
            raise ExperimentError("--rerun would run a sweep's trials over and over; delete their results instead")
        if self.ray_address is not None and self.engine != "ray":
            raise ExperimentError("--ray-address is for --engine ray")
        if self.engine == "ray" and importlib.util.find_spec("ray") is None:
            raise ExperimentError("Ray is not installed; install the extra: pip install '.[ray]' in a clone")
        if self.engine == "ray" and self.device.startswith("cuda:"):
            raise ExperimentError(f"Ray chooses among GPUs; use --device cuda instead of {self.device}")

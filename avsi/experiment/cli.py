"""The command line of the reproduction scripts."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console

from avsi.data import DataError
from avsi.experiment.engines import Engine, in_process, pool
from avsi.experiment.progress import Display, Verbosity
from avsi.experiment.report import show, write_report
from avsi.experiment.results import Results
from avsi.experiment.running import prepare_data, run_trials
from avsi.experiment.spec import Experiment, ExperimentError, Method
from avsi.experiment.trial import Setting


@dataclass(frozen=True)
class Options:
    """What to run and where."""

    protocol: str | None = None
    """Whose protocol to follow, where there are several; default: the first named above."""
    methods: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Methods to run, by name; default: all of the experiment's but candidates."""
    trials: int | None = None
    """Number of trials per method; default: the experiment's."""
    seed: int = 0
    """Seed of the first trial; the others count up from it."""
    epochs: int | None = None
    """Epochs per task; default: the protocol's. Results say so where it differs."""
    device: str = "auto"
    """Torch device, such as cpu or cuda:0; auto: the first GPU where there is one, else the CPU."""
    data_root: Path | None = None
    """Folder of prepared data sets; default: $AVSI_DATA, else the user's cache folder."""
    download: bool = True
    """Obtain missing data sets from their publishers."""
    out: Path = Path("results")
    """Folder for results. Finished trials found there are not run again; tables and figure are made of all of them."""
    rerun: bool = False
    """Run finished trials again, and all from their beginning; each old result stays until there is a new one."""
    engine: Literal["local", "ray"] = "local"
    """Run trials on this machine, or on Ray, which the extra avsi[ray] installs."""
    ray_address: str | None = None
    """Ray cluster to run on, auto: the one that runs on this machine; default: a local Ray, started for this run."""
    workers: int | None = None
    """Trials to run at a time, each in a process of its own; default: 1, in this process; with Ray as many as there is
    room for. Local workers share out the GPUs where the device is cuda; with Ray each trial has one."""
    threads: int | None = None
    """Threads of each trial; default: torch's choice, with several workers an equal share of the cores, with Ray 1."""
    tensorboard: bool = False
    """Write TensorBoard logs beside each trial's result; on Ray, on the node that runs it. The log of a trial that was
    cut holds the steps after its last finished task twice."""
    quiet: bool = False
    """Show only failures and warnings, and where tables and figures are."""
    verbose: bool = False
    """Show a line for each finished task of a trial."""


def main(*experiments: Experiment, args: list[str] | None = None) -> None:
    """Run an experiment from the command line; exits with status 2 on a user's mistake, 1 if a trial failed.

    Args:
        *experiments: The experiment, or one for each protocol that ``--protocol`` can name; the first is the default.
        args: The command line, default ``sys.argv[1:]``.
    """
    options = tyro.cli(Options, description=describe_experiments(experiments), args=args)
    advice = "runs all trials once more" if options.rerun else "goes on with what is not finished"
    with exits_explained(f"stopped; the same command {advice}"):
        failures = run(choose_protocol(experiments, options.protocol), options)
    if failures:
        sys.exit(1)


@contextlib.contextmanager
def exits_explained(stopped: str) -> Iterator[None]:
    """Exit with a line in place of a traceback: with status 2 on a user's mistake, 130 or 143 when stopped.

    Args:
        stopped: What to say when stopped.

    Yields:
        None.
    """
    try:
        with stopped_by_sigterm():
            yield
    except (ExperimentError, DataError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        Console(stderr=True).print(stopped)
        sys.exit(stop.args[0] if stop.args else 130)


def describe_experiments(experiments: Sequence[Experiment]) -> str:
    """Say what a script can run, for ``--help``.

    Args:
        experiments: The experiments, the default first.

    Returns:
        Paragraphs: a title, then source and methods of each experiment, candidates apart.
    """
    paragraphs = [experiments[0].title]
    for experiment in experiments:
        heading = f"Protocol {experiment.protocol}: " if len(experiments) > 1 else ""
        names = ", ".join(method.name for method in experiment.methods if not method.candidate_of)
        candidates = ", ".join(method.name for method in experiment.methods if method.candidate_of)
        apart = f" Candidates, which run only when named: {candidates}." if candidates else ""
        paragraphs.append(f"{heading}{experiment.source} Methods: {names}.{apart}")
    return "\n\n".join(paragraphs)


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM stop what runs inside as Ctrl-C does, with exit status 143."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt(128 + number)

    if threading.current_thread() is not threading.main_thread():  # only there may signals be handled
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def choose_protocol(experiments: Sequence[Experiment], name: str | None) -> Experiment:
    """Choose among the experiments of a script.

    Args:
        experiments: The experiments, the default first.
        name: The protocol wanted, None for the default.

    Returns:
        The experiment.

    Raises:
        ExperimentError: If there is no such protocol.
    """
    if name is None:
        return experiments[0]
    for experiment in experiments:
        if experiment.protocol == name:
            return experiment
    known = (
        ", ".join(experiment.protocol for experiment in experiments if experiment.protocol) or "only the default one"
    )
    raise ExperimentError(f"no protocol {name!r}; there is: {known}")


def run(experiment: Experiment, options: Options) -> list[str]:
    """Run what is not finished yet, then write tables and figure.

    Args:
        experiment: The experiment.
        options: What to run and where.

    Returns:
        The trials that failed.
    """
    experiment = experiment.with_epochs(options.epochs)
    results = Results(options.out)
    methods = choose_methods(experiment, options.methods)
    seeds = choose_seeds(experiment, options)
    verbosity = choose_verbosity(options)
    root = options.data_root.absolute() if options.data_root else None  # trials may run elsewhere
    elsewhere = options.engine == "ray" and options.device.startswith("cuda")  # there is perhaps no GPU here
    device = options.device if elsewhere else check_device(options.device)
    setting = Setting(device, root, options.download)
    engine = choose_engine(options, device)
    # Methods may share their trials, as a method does with the candidate that was chosen for it.
    different = {results.trial_folder(experiment, method): method for method in reversed(methods)}
    trials = [(method, seed) for seed in seeds for method in methods if method in different.values()]
    pending = [trial for trial in trials if options.rerun or results.read(experiment, *trial) is None]
    if pending:
        prepare_data(experiment, setting, options.seed)
    display = Display(len(pending), verbosity)
    try:
        with display:
            if pending:
                finished = len(trials) - len(pending)
                display.say(
                    f"{experiment.title}: {len(pending)} trials to run, {finished} finished, on {setting.device}"
                )
            extra = {"rerun": options.rerun, "tensorboard": options.tensorboard}
            run_trials(experiment, pending, results, setting, engine, display, **extra)
        show(write_report(experiment, results), [method.name for method in methods], Console(), options.quiet)
    finally:
        display.show_failures()
    return list(display.failures)


def choose_methods(experiment: Experiment, names: Sequence[str]) -> list[Method]:
    """Choose methods by name.

    Args:
        experiment: The experiment.
        names: The methods wanted; none for all but the candidates.

    Returns:
        The methods, each once.
    """
    methods = [experiment.method(name) for name in dict.fromkeys(names)]
    return methods or [method for method in experiment.methods if not method.candidate_of]


def choose_seeds(experiment: Experiment, options: Options) -> range:
    """Choose the seeds.

    Args:
        experiment: The experiment.
        options: The options.

    Returns:
        The seeds.

    Raises:
        ExperimentError: If there are none, or negative ones.
    """
    count = experiment.trials if options.trials is None else options.trials
    if count < 1:
        raise ExperimentError(f"trials must be at least 1, got {count}")
    if options.seed < 0:
        raise ExperimentError(f"seed must be at least 0, got {options.seed}")
    return range(options.seed, options.seed + count)


def choose_verbosity(options: Options) -> Verbosity:
    """Choose how much to show.

    Args:
        options: The options.

    Returns:
        How much.

    Raises:
        ExperimentError: If both more and less is wanted.
    """
    if options.quiet and options.verbose:
        raise ExperimentError("--quiet and --verbose contradict each other; leave one out")
    return "quiet" if options.quiet else "verbose" if options.verbose else "normal"


def choose_engine(options: Options, device: str) -> Engine:
    """Choose where trials run.

    Args:
        options: The options.
        device: The torch device in use.

    Returns:
        The engine.

    Raises:
        ExperimentError: If the numbers of workers or threads are impossible, workers cannot be started here, or Ray is
            not installed.
    """
    if options.workers is not None and options.workers < 1:
        raise ExperimentError(f"workers must be at least 1, got {options.workers}")
    if options.threads is not None and options.threads < 1:
        raise ExperimentError(f"threads must be at least 1, got {options.threads}")
    if options.engine == "ray":
        if importlib.util.find_spec("ray") is None:
            raise ExperimentError("Ray is not installed; pip install 'avsi[ray]'")
        if options.device.startswith("cuda:"):
            raise ExperimentError(f"Ray chooses among GPUs; use --device cuda instead of {options.device}")
        from avsi.experiment.ray_engine import on_ray  # only here, for not everybody has Ray

        threads = options.threads or 1
        return partial(
            on_ray, address=options.ray_address, workers=options.workers, threads=threads, gpu=device == "cuda"
        )
    if options.ray_address is not None:
        raise ExperimentError("--ray-address is for --engine ray")
    if options.workers in (None, 1):
        return partial(in_process, threads=options.threads)
    if multiprocessing.parent_process() is not None:
        raise ExperimentError("main() runs in a worker process; call it under `if __name__ == '__main__':`")
    return partial(pool, workers=options.workers, threads=options.threads)


def check_device(name: str) -> str:
    """Choose and check the torch device.

    Args:
        name: A device or "auto".

    Returns:
        The device.

    Raises:
        ExperimentError: If it does not exist here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ExperimentError(f"device {name!r} cannot be used ({reason}); try --device cpu") from error
    return name

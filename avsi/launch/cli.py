"""The command line of the scripts that run experiments. Nothing of PyTorch is loaded before it is understood."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from avsi.experiment.spec import Experiment, ExperimentError, Method, did_you_mean
from avsi.experiment.trial import LAST_SEED, Setting, Trial
from avsi.launch.display import Display, Verbosity
from avsi.launch.executors import NOT_GUARDED, Executor, InProcesses, InThisProcess, Show
from avsi.launch.loop import run_trials, tidy
from avsi.launch.settings import change, read_settings
from avsi.launch.sweep import Chosen, Sweep, read_ranges, run_sweep, write_choice
from avsi.results import store

ALL = ("all",)
MANY = 20  # trials of which it is worth saying how to run fewer
MOST = 100_000  # trials of a method


@dataclass(frozen=True)
class Options:
    """What to run and where."""

    protocol: str | None = None
    """Whose protocol to follow, where there are several; default: the first named above."""
    methods: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ALL
    """Methods to run, by name; all: all of the experiment's."""
    trials: int | None = None
    """Number of trials per method; default: the experiment's."""
    seed: int = 0
    """Seed of the first trial; the others count up from it."""
    epochs: int | None = None
    """Epochs per task; default: the protocol's. Results say so where it differs."""
    settings: Annotated[
        tuple[str, ...], tyro.conf.arg(name="set", metavar="NAME=VALUE"), tyro.conf.UseAppendAction
    ] = ()
    """Change something, any number of times: si.strength=0.3, optimizer.lr=0.05, batch_size=32. @FILE reads a file of
    such lines. Results say what was changed."""
    sweep: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUES"), tyro.conf.UseAppendAction] = ()
    """Choose a method's parameter on validation data, any number of parameters: mas.strength=0.01,0.05,0.1 or
    mas.strength=log:1e-3:1e3:7. What is chosen is then run with other seeds, and is written to a file for --set."""
    sweep_trials: int | None = None
    """Let Optuna draw so many settings, from mas.strength=log:1e-3:1e3 say; default: all combinations. Optuna comes
    with the extra avsi[sweep]."""
    sweep_seeds: int = 1
    """Number of seeds that settings are compared with, from --seed on; what is chosen runs with those that follow."""
    smoke: bool = False
    """Only see that everything runs: one epoch of a few images of each task, one trial."""
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
    """Threads of each trial; default: torch's choice, with several workers an equal share of the cores, with Ray 1. A
    trial that is resumed has as many as it began with."""
    tensorboard: bool = False
    """Write TensorBoard logs beside each trial's result; on Ray, on the node that runs it. The log of a trial that was
    interrupted holds the steps after its last finished task twice."""
    quiet: bool = False
    """Show only failures and warnings, and where tables and figures are."""
    verbose: bool = False
    """Show a line for each finished task of a trial."""


def main(
    *experiments: Experiment, args: list[str] | None = None, loggers: tuple[Callable[[Trial], Any], ...] = ()
) -> None:
    """Run an experiment from the command line; exits with status 2 on a user's mistake, 1 if a trial failed.

    Args:
        *experiments: The experiment, or one for each protocol that ``--protocol`` can name; the first is the default.
        args: The command line, default ``sys.argv[1:]``.
        loggers: Make loggers of Avalanche's, such as ``lambda trial: WandBLogger(run_name=str(trial))``.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(NOT_GUARDED)  # a process that is to run a trial imports the script, which is not guarded
    options = tyro.cli(Options, description=_describe_experiments(experiments), args=args)
    advice = "runs all trials once more" if options.rerun else "goes on with what is not finished"
    with exits_explained(f"stopped; the same command {advice}"):
        failures = run(_choose_protocol(experiments, options.protocol), options, loggers)
    if failures:
        sys.exit(1)


@contextlib.contextmanager
def exits_explained(stopped: str) -> Iterator[None]:
    """Exit with a line in place of a traceback: with status 2 on a user's mistake, 130 or 143 when stopped.

    Yields:
        None.
    """
    try:
        with _stopped_by_sigterm():
            yield
    except (ExperimentError, store.ResultsError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        Console(stderr=True).print(stopped)
        sys.exit(stop.args[0] if stop.args else 130)


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    # Let SIGTERM stop what runs inside as Ctrl-C does, with exit status 143.

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


def _describe_experiments(experiments: Sequence[Experiment]) -> str:
    # Say what a script can run, for ``--help``.
    paragraphs = [experiments[0].title]
    for experiment in experiments:
        heading = f"Protocol {experiment.protocol}: " if len(experiments) > 1 else ""
        names = ", ".join(method.name for method in experiment.methods)
        paragraphs.append(f"{heading}{experiment.source} Methods: {names}.")
    return "\n\n".join(paragraphs)


def _choose_protocol(experiments: Sequence[Experiment], name: str | None) -> Experiment:
    # Choose among the experiments of a script.
    if name is None:
        return experiments[0]
    for experiment in experiments:
        if experiment.protocol == name:
            return experiment
    known = [experiment.protocol for experiment in experiments if experiment.protocol]
    hint = did_you_mean(name, known)
    raise ExperimentError(f"no protocol {name!r}{hint}; there is: {', '.join(known) or 'only the default one'}")


def run(experiment: Experiment, options: Options, loggers: tuple[Callable[[Trial], Any], ...] = ()) -> list[str]:
    """Run what is not finished yet, then write tables and figures.

    Args:
        experiment: The experiment.
        options: What to run and where.
        loggers: Make loggers of Avalanche's.

    Returns:
        The trials that failed.
    """
    verbosity = _choose_verbosity(options)
    names = [method.name for method in _choose_methods(experiment, options.methods)]
    experiment = change(experiment.with_epochs(options.epochs), read_settings(options.settings))
    # A method that was changed is called after what was changed.
    methods = [m for name in names for m in experiment.methods if m.name == name or m.name.startswith(f"{name},")]
    if options.smoke:
        experiment = experiment.as_smoke_test()
    seeds, sweep = _choose_seeds(experiment, options), _choose_sweep(options)
    make_executor = _choose_executor(options)
    root = store.prepare(options.out.expanduser())
    failures: list[str] = []
    about: dict[str, dict[str, Any]] = {}

    def launch(trials: Sequence[Trial]) -> None:
        # Methods may share their trials, as candidates of a sweep do with a method that has the same settings.
        different: dict[Path, Trial] = {}
        for trial in trials:
            different.setdefault(trial.file, trial)
        failures.extend(_launch(list(different.values()), root, verbosity, options, make_executor, loggers))

    if sweep:
        _check_validation(experiment, options)
        chosen = run_sweep(experiment, sweep, launch, root)
        file = write_choice(chosen, sweep, root)
        if not options.quiet:
            show = Console(stderr=True)
            for line in file.read_text().splitlines():
                show.print(line, markup=False, highlight=False, soft_wrap=True)
            show.print(f"chosen: --set @{file}", markup=False, highlight=False, soft_wrap=True)
        experiment, methods = chosen.experiment, chosen.methods
        about = _about(chosen, sweep, seeds)
    launch([Trial(experiment, method, seed) for seed in seeds for method in methods])
    _report(experiment, root, methods, options.quiet, about)
    return failures


def _launch(
    trials: Sequence[Trial],
    root: Path,
    verbosity: Verbosity,
    options: Options,
    make_executor: Callable[[Show, str], Executor],
    loggers: tuple[Callable[[Trial], Any], ...],
) -> list[str]:
    # Run those of some trials that are not finished; returns the names of those that failed.
    pending = [trial for trial in trials if options.rerun or store.read_trial(root / trial.file) is None]
    display = Display(len(pending), verbosity, workers=options.workers or 1)
    if pending:
        display.say(
            f"{trials[0].experiment.title}: {len(pending)} trial{'s' * (len(pending) != 1)} to run, "
            f"{len(trials) - len(pending)} finished"
        )
    if len(pending) > MANY and options.methods == ALL and options.trials is None and not options.sweep:
        few = " ".join(dict.fromkeys(trial.method.name for trial in trials[:2]))
        display.say(f"fewer: --methods {few} --trials 1; to see that everything runs: --smoke")
    try:
        if pending:
            elsewhere = options.engine == "ray" and options.device.startswith("cuda")  # there is perhaps no GPU here
            device = options.device if elsewhere else check_device(options.device)
            data = options.data_root.expanduser().absolute() if options.data_root else None  # trials may run elsewhere
            setting = Setting(device, data, options.download, loggers=loggers)
            _prepare_data(pending[0], setting)
            extra = {"rerun": options.rerun, "tensorboard": options.tensorboard}
            executor = make_executor(lambda job, event: display.show(str(job), event), device)
            with display:
                run_trials(pending, root.absolute(), setting, executor, display, **extra)
        tidy(root, trials)
        if display.diverged:
            display.warn(f"diverged, which is their result: {'; '.join(display.diverged)}")
    finally:
        display.show_failures()
    return list(display.failures)


def _choose_sweep(options: Options) -> Sweep | None:
    # Read what is swept, if anything is.
    if not options.sweep:
        if options.sweep_trials is not None:
            raise ExperimentError("--sweep-trials needs --sweep, such as --sweep mas.strength=log:1e-3:1e3")
        return None
    if not 1 <= options.sweep_seeds <= MOST:
        raise ExperimentError(f"sweep-seeds must be at least 1 and at most {MOST}, got {options.sweep_seeds}")
    if options.rerun:
        raise ExperimentError("--rerun would run a sweep's trials over and over; delete their results instead")
    seeds = range(options.seed, options.seed + options.sweep_seeds)
    return Sweep(read_ranges(options.sweep), options.sweep_trials, seeds, at_once=options.workers or 1)


def _check_validation(experiment: Experiment, options: Options) -> None:
    # See that there is something to choose by before anything is run.
    root = options.data_root.expanduser().absolute() if options.data_root else None
    trial = Trial(experiment, experiment.methods[0], options.seed)
    benchmark = _prepare_data(trial, Setting("cpu", root, options.download))
    if benchmark is not None and "valid" not in benchmark.streams:
        raise ExperimentError(
            f"{experiment.name} holds out no validation data to choose by; add --set scenario.validation=0.1"
        )


def _about(chosen: Chosen, sweep: Sweep, seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    # What the results folder says of a sweep's methods beside the rest.
    about = {}
    for method in chosen.experiment.methods:
        if method.settings and (method.candidate_of or method.name in chosen.published):
            own = sweep.seeds if method.candidate_of else seeds
            about[method.name] = {"settings": dict(method.settings), "seeds": list(own)}
    for name, published in chosen.published.items():
        about[name]["published"] = published
    return about


def _prepare_data(trial: Trial, setting: Setting) -> Any:
    # Obtain the data sets once, before many processes ask for them, and before any work is lost. Returns the benchmark.
    from avsi.data import DataError
    from avsi.experiment.running import make_benchmark

    try:
        return make_benchmark(trial.experiment, trial.seed, setting)
    except DataError as error:
        raise ExperimentError(str(error)) from error
    except ExperimentError:
        raise
    except Exception:  # the trials will meet it, and report it with its traceback
        return None


def _choose_methods(experiment: Experiment, names: Sequence[str]) -> list[Method]:
    # Choose methods by name.
    if not names:
        known = ", ".join(method.name for method in experiment.methods)
        raise ExperimentError(f"--methods needs names, or all; the methods of {experiment.name} are: {known}")
    if tuple(names) == ALL:
        return list(experiment.methods)
    return [experiment.method(name) for name in dict.fromkeys(names)]


def _choose_seeds(experiment: Experiment, options: Options) -> range:
    # Choose the seeds.
    count = experiment.trials if options.trials is None else options.trials
    if not 1 <= count <= MOST:
        raise ExperimentError(f"trials must be at least 1 and at most {MOST}, got {count}")
    first = options.seed + (options.sweep_seeds if options.sweep else 0)
    if not options.seed >= 0 or not first <= LAST_SEED - count + 1:
        raise ExperimentError(f"seed must be at least 0 and at most {LAST_SEED - count + 1}, got {options.seed}")
    return range(first, first + count)


def _choose_verbosity(options: Options) -> Verbosity:
    # Choose how much to show.
    if options.quiet and options.verbose:
        raise ExperimentError("--quiet and --verbose contradict each other; leave one out")
    return "quiet" if options.quiet else "verbose" if options.verbose else "normal"


def _choose_executor(options: Options) -> Callable[[Show, str], Executor]:
    # Choose where trials run.
    for name, number in (("workers", options.workers), ("threads", options.threads)):
        if number is not None and number < 1:
            raise ExperimentError(f"{name} must be at least 1, got {number}")
    if options.engine == "ray":
        if importlib.util.find_spec("ray") is None:
            raise ExperimentError("Ray is not installed; pip install 'avsi[ray]'")
        if options.device.startswith("cuda:"):
            raise ExperimentError(f"Ray chooses among GPUs; use --device cuda instead of {options.device}")
        return partial(_on_ray, options)
    if options.ray_address is not None:
        raise ExperimentError("--ray-address is for --engine ray")
    if options.workers in (None, 1):
        return lambda show, device: InThisProcess(show, options.threads)
    return lambda show, device: InProcesses(show, options.workers or 1, options.threads)


def _on_ray(options: Options, show: Show, device: str) -> Executor:
    from avsi.launch.on_ray import OnRay  # not everybody has Ray

    return OnRay(show, options.ray_address, options.workers, options.threads or 1, device == "cuda")


def check_device(name: str) -> str:
    """Choose and check the torch device.

    Args:
        name: A device or "auto".

    Returns:
        The device.

    Raises:
        ExperimentError: If it does not exist here.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ExperimentError(f"device {name!r} cannot be used ({reason}); try --device cpu") from error
    return name


def _report(
    experiment: Experiment, root: Path, methods: Sequence[Method], quiet: bool, about: Mapping[str, dict[str, Any]]
) -> None:
    # Write what the results folder lacks for presenting, then tables and figures, and show them.
    content = {key: getattr(experiment, key) for key in ("name", "title", "source", "protocol", "deviation")}
    rows = [
        {
            "name": method.name,
            "label": method.label or method.name,
            "regime": method.regime,
            "digest": experiment.digest(method),
            "folder": Trial(experiment, method, 0).folder.name,
            "reported": asdict(experiment.reported(method)),
            "candidate_of": method.candidate_of,
            **about.get(method.name, {}),
        }
        for method in experiment.methods
    ]
    store.write_experiment(root, content | {"methods": rows, "command": shlex.join(sys.argv)}, experiment.suffix)
    if not any((root / experiment.name).glob("*/seed-*.json")):
        return  # every trial failed

    from avsi.results.report import show, write_report  # loads what draws figures

    written = write_report(root, only=experiment.name)
    if quiet:
        show(written)
    else:
        show(written, experiment.name, [method.name for method in methods], experiment.suffix)

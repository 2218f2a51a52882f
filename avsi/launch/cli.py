"""The command line of the scripts that run experiments. Nothing of PyTorch is loaded before it is understood."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import shlex
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from avsi.experiment.sources import source_fingerprint
from avsi.experiment.spec import Experiment, ExperimentError, Method, did_you_mean
from avsi.experiment.trial import LAST_SEED, Setting, Trial
from avsi.files import write_text
from avsi.launch.display import Verbosity
from avsi.launch.executors import NOT_GUARDED, Executor, InProcesses, InThisProcess
from avsi.launch.loop import Loop
from avsi.launch.settings import change, read_settings
from avsi.launch.sweep import MOST_SETTINGS, Chosen, Sweep, candidate, read_ranges
from avsi.results import store

ALL = ("all",)
MOST = 100_000  # trials of a method

Loggers = tuple[Callable[[Trial], Any], ...]
"""Make loggers of Avalanche's, each for a trial."""

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
        limits = {"trials": MOST, "sweep_trials": MOST_SETTINGS, "sweep_seeds": MOST, "workers": MOST, "threads": MOST}
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


def main(*experiments: Experiment, args: list[str] | None = None, loggers: Loggers = ()) -> None:
    """Run an experiment from the command line; exits with status 2 on a user's mistake, 1 if a trial failed.

    Args:
        *experiments: The experiment, or one for each protocol that ``--protocol`` can name; the first is the default.
        args: The command line, default ``sys.argv[1:]``.
        loggers: Functions that make loggers of Avalanche's, each called with the trial:
            ``loggers=(lambda trial: WandBLogger(run_name=str(trial)),)``.

    Raises:
        TypeError: If the loggers are not a sequence of functions.
    """
    if callable(loggers) or not all(map(callable, loggers)):
        raise TypeError(f"loggers must be a sequence of functions, such as (lambda trial: ...,); got {loggers!r}")
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(NOT_GUARDED)  # a process that is to run a trial imports the script, which is not guarded
    source_fingerprint.cache_clear()  # a notebook may have changed what functions name
    described = _describe_experiments(experiments)
    options = tyro.cli(Options, description=described, args=args, config=(tyro.conf.FlagCreatePairsOff,))
    advice = "runs all trials once more" if options.rerun else "resumes what is not finished"
    with exits_explained(f"stopped; the same command {advice}"):
        command = sys.argv if args is None else [sys.argv[0], *args]
        failures = run(_choose_protocol(experiments, options.protocol), options, loggers, command)
    if failures:
        sys.exit(1)


@contextlib.contextmanager
def exits_explained(stopped: str) -> Iterator[None]:
    """Exit with a line in place of a traceback: status 2 on a mistake or full disk, 130 on Ctrl-C, 143 on SIGTERM."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt(128 + number)

    handled = threading.current_thread() is threading.main_thread()  # only there may signals be
    before = signal.signal(signal.SIGTERM, stop) if handled else None
    try:
        yield
    except (ExperimentError, store.ResultsError, OSError) as error:
        _say(f"error: {error}", style="red")
        sys.exit(2)
    except KeyboardInterrupt as stop_:
        _say(stopped)
        sys.exit(stop_.args[0] if stop_.args else 130)
    finally:
        if handled:
            signal.signal(signal.SIGTERM, before)


def _say(text: str, style: str | None = None) -> None:
    """Print a text as it is to standard error."""
    Console(stderr=True).print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _describe_experiments(experiments: Sequence[Experiment]) -> str:
    """Say what a script can run, for ``--help``."""
    paragraphs = [experiments[0].title]
    for experiment in experiments:
        heading = f"Protocol {experiment.protocol}: " if len(experiments) > 1 else ""
        names = ", ".join(method.name for method in experiment.methods)
        paragraphs.append(f"{heading}{experiment.source} Methods: {names}.")
    width = shutil.get_terminal_size().columns  # tyro keeps an end of line only where the next begins with a space
    return "\n\n".join(
        textwrap.fill(text, width, subsequent_indent="  ", break_on_hyphens=False) for text in paragraphs
    )


def _choose_protocol(experiments: Sequence[Experiment], name: str | None) -> Experiment:
    """Choose among the experiments of a script."""
    for field in ("name", "protocol"):
        values = [getattr(experiment, field) for experiment in experiments]
        if len(set(values)) < len(values):
            raise ExperimentError(f"each experiment of a script needs a {field} of its own; they have {values}")
    if name is None:
        return experiments[0]
    known = {experiment.protocol: experiment for experiment in experiments if experiment.protocol}
    if name not in known:
        hint = did_you_mean(name, known)
        raise ExperimentError(f"no protocol {name!r}{hint}; there is: {', '.join(known) or 'only the default one'}")
    return known[name]


def run(
    experiment: Experiment, options: Options, loggers: Loggers = (), command: Sequence[str] | None = None
) -> list[str]:
    """Run what is not finished yet, write tables, figures and the command; returns the names of trials that failed."""
    options.check()
    names = _choose_methods(experiment, options.methods)
    experiment = change(experiment.with_epochs(options.epochs), read_settings(options.settings))
    if options.smoke:
        experiment = experiment.as_smoke_test()
    methods = [method for name in names for method in experiment.methods if method.base_name == name]
    sweep_seeds, seeds = _choose_seeds(experiment, options)
    ranges = read_ranges(options.sweep)
    root = store.prepare(options.out.expanduser())
    chosen = Chosen(experiment, methods)
    with contextlib.ExitStack() as stack:
        verbosity: Verbosity = "quiet" if options.quiet else "verbose" if options.verbose else "normal"
        prepare = partial(_prepare, options, loggers, stack)
        launch = Loop(root, prepare, rerun=options.rerun, tensorboard=options.tensorboard, verbosity=verbosity)
        if ranges:
            at_once = options.workers or 1
            chosen = Sweep(experiment, ranges, launch, root, options.sweep_trials, sweep_seeds, at_once).run()
            file = root / experiment.name / f"choice{chosen.experiment.suffix}.txt"
            if chosen.text:
                write_text(file, chosen.text)
                if not options.quiet:
                    _say(f"{chosen.text}chosen: --set @{file}")
            if options.methods is not None:
                beside = [m for m in chosen.experiment.methods if m.base_name in names and m not in chosen.methods]
                chosen = replace(chosen, methods=[*chosen.methods, *beside])
        fewer = f"fewer: --methods {' '.join(names[:2])} --trials 1; to see that everything runs: --smoke"
        asked = options.methods not in (None, ALL) or options.trials is not None or bool(ranges)
        trials = [Trial(chosen.experiment, method, seed) for seed in seeds for method in chosen.methods]
        write = partial(_write_experiment, chosen, root, sweep_seeds, seeds, sys.argv if command is None else command)
        launch(trials, "" if asked else fewer, write)
    write()
    if any((root / experiment.name).glob("*/seed-*.json")):  # else every trial failed
        from avsi.results.report import show, write_report  # loads what draws figures

        name = f"{experiment.name}{chosen.experiment.suffix}"
        written = write_report(root, only=name)
        show(written, "" if options.quiet else name, [method.name for method in chosen.methods])
    if chosen.problem:
        raise ExperimentError(chosen.problem)
    return launch.failures


def _choose_methods(experiment: Experiment, names: tuple[str, ...] | None) -> list[str]:
    """Choose methods by name."""
    known = [method.name for method in experiment.methods]
    if names is None or names == ALL:
        return known
    if not names:
        listed = ", ".join(known)
        raise ExperimentError(f"--methods needs names, or all; the methods of {experiment.name} are: {listed}")
    return [experiment.method(name).name for name in dict.fromkeys(names)]


def _choose_seeds(experiment: Experiment, options: Options) -> tuple[range, range]:
    """Choose the seeds of a sweep, and those of the methods' trials, which follow."""
    swept = options.sweep_seeds if options.sweep else 0
    count = experiment.trials if options.trials is None else options.trials
    last = LAST_SEED - swept - count + 1
    if not 0 <= options.seed <= last:
        raise ExperimentError(f"--seed must be at least 0 and at most {last}, got {options.seed}")
    first = options.seed + swept
    return range(options.seed, first), range(first, first + count)


def _prepare(options: Options, loggers: Loggers, stack: contextlib.ExitStack, trial: Trial) -> tuple[Executor, Setting]:
    """Get device, data and executor ready, before any work is lost."""
    elsewhere = options.engine == "ray" and options.device == "cuda"  # there is perhaps no GPU here
    device = options.device if elsewhere else check_device(options.device)
    data = options.data_root.expanduser().absolute() if options.data_root else None  # trials may run elsewhere
    setting = Setting(device, data, options.download, loggers=loggers)
    benchmark = _prepare_data(trial, setting)
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


def _prepare_data(trial: Trial, setting: Setting) -> Any:
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


def _earlier_candidates(chosen: Chosen, root: Path) -> Iterator[Method]:
    """Find what an earlier sweep of the same parameters tried."""
    experiment = chosen.experiment
    known = {Trial(experiment, method, 0).folder.name for method in chosen.candidates}
    path = root / experiment.name / f"experiment{experiment.suffix}.json"
    if not known or not path.exists():
        return
    swept = {method.name: method for method in experiment.methods}
    for row in store.read_json(path).get("methods") or ():
        method, settings = swept.get(row.get("candidate_of")), row.get("settings")
        if method and settings and row["folder"] not in known:
            values = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
            again = candidate(experiment, method, {f"{method.base_name}.{key}": values[key] for key in values})
            if Trial(experiment, again, 0).folder.name == row["folder"]:  # else the script was another then
                yield again


def _finished(root: Path, trial: Trial) -> list[int]:
    """List the seeds of a method's finished trials."""
    seeds = (path.stem.removeprefix("seed-") for path in (root / trial.file).parent.glob("seed-*.json"))
    return [int(seed) for seed in seeds if seed.isdecimal()]


def _write_experiment(
    chosen: Chosen, root: Path, sweep_seeds: Iterable[int], seeds: Iterable[int], command: Sequence[str]
) -> None:
    """Write what the results folder lacks for presenting."""
    experiment, rows = chosen.experiment, []
    for method in (*experiment.methods, *chosen.candidates, *_earlier_candidates(chosen, root)):
        trial = Trial(experiment, method, 0)
        row: dict[str, Any] = {
            "name": method.name,
            "label": method.label or method.name,
            "regime": method.regime,
            "digest": trial.digest,
            "folder": trial.folder.name,
            "reported": asdict(experiment.reported(method)),
            "candidate_of": method.candidate_of,
        }
        published = chosen.published.get(method.candidate_of or method.name)
        if published is not None:  # the method was swept
            row["settings"] = dict(method.settings)
            if method.candidate_of:
                row["seeds"] = sorted(sweep_seeds)
            else:  # all its finished trials, of earlier runs too, but those that it was chosen by
                row["seeds"] = sorted({*seeds, *_finished(root, trial)} - set(sweep_seeds))
                row["published"] = published
        rows.append(row)
    content = {key: getattr(experiment, key) for key in ("name", "title", "source", "protocol", "deviation")}
    store.write_experiment(root, content | {"methods": rows, "command": shlex.join(command)}, experiment.suffix)

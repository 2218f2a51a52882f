"""The command line of the scripts that run experiments. Nothing of PyTorch is loaded before it is understood."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import tyro
from rich.console import Console

from avsi.experiment.sources import source_fingerprint
from avsi.experiment.spec import Experiment, ExperimentError, did_you_mean
from avsi.experiment.trial import LAST_SEED, Trial
from avsi.files import write_text
from avsi.launch.display import Verbosity
from avsi.launch.executors import NOT_GUARDED
from avsi.launch.loop import Loop
from avsi.launch.options import Options
from avsi.launch.preparing import Loggers, prepare
from avsi.launch.record import write_experiment
from avsi.launch.settings import change, read_settings
from avsi.launch.sweep import Chosen, Sweep, read_ranges
from avsi.results import store

ALL = ("all",)


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
        get_ready = partial(prepare, options, loggers, stack)
        launch = Loop(root, get_ready, rerun=options.rerun, tensorboard=options.tensorboard, verbosity=verbosity)
        if ranges:
            at_once = options.workers or 1
            chosen = Sweep(experiment, ranges, launch, root, options.sweep_trials, sweep_seeds, at_once).run()
            if chosen.text:
                file = root / experiment.name / f"choice{chosen.experiment.suffix}.txt"
                write_text(file, chosen.text)
                if not options.quiet:
                    _say(f"{chosen.text}chosen: --set @{file}")
            if options.methods is not None:
                beside = [m for m in chosen.experiment.methods if m.base_name in names and m not in chosen.methods]
                chosen = replace(chosen, methods=[*chosen.methods, *beside])
        fewer = f"fewer: --methods {' '.join(names[:2])} --trials 1; to see that everything runs: --smoke"
        asked = options.methods not in (None, ALL) or options.trials is not None or bool(ranges)
        trials = [Trial(chosen.experiment, method, seed) for seed in seeds for method in chosen.methods]
        write = partial(write_experiment, chosen, root, sweep_seeds, seeds, sys.argv if command is None else command)
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

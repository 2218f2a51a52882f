"""The command line of the reproduction scripts."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console

from avsi.data import DataError
from avsi.experiment.figure import accuracy_figure, save_png
from avsi.experiment.progress import Display
from avsi.experiment.results import Results, write_text
from avsi.experiment.spec import Experiment, ExperimentError, Method
from avsi.experiment.summary import Trials, main_table, notes, task_table
from avsi.experiment.trial import Setting, run_trial


@dataclass(frozen=True)
class Options:
    """What to run and where."""

    protocol: str | None = None
    """Whose protocol to follow, where there are several; default: the first named above."""
    methods: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Methods to run, by name; default: all of the experiment's."""
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
    tensorboard: bool = False
    """Write TensorBoard logs beside each trial's result."""


def main(*experiments: Experiment, args: list[str] | None = None) -> None:
    """Run an experiment from the command line; exits with status 2 on a user's mistake, 1 if a trial failed.

    Args:
        *experiments: The experiment, or one for each protocol that ``--protocol`` can name; the first is the default.
        args: The command line, default ``sys.argv[1:]``.
    """
    lines = [experiments[0].title]
    for experiment in experiments:
        heading = f"Protocol {experiment.protocol}: " if len(experiments) > 1 else ""
        names = ", ".join(method.name for method in experiment.methods)
        lines.append(f"{heading}{experiment.source} Methods: {names}.")
    options = tyro.cli(Options, description="\n\n".join(lines), args=args)
    try:
        failures = run(choose_protocol(experiments, options.protocol), options)
    except (ExperimentError, DataError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; the same command goes on with the trials that are not finished")
        sys.exit(130)
    if failures:
        sys.exit(1)


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
        One line for each trial that failed.

    Raises:
        ExperimentError: If the options ask for what cannot be run; nothing has been run then.
        DataError: If a data set cannot be had.
    """
    experiment = experiment.with_epochs(options.epochs)
    methods = [experiment.method(name) for name in dict.fromkeys(options.methods)] or list(experiment.methods)
    count = experiment.trials if options.trials is None else options.trials
    if count < 1:
        raise ExperimentError(f"trials must be at least 1, got {count}")
    if options.seed < 0:
        raise ExperimentError(f"seed must be at least 0, got {options.seed}")
    device = check_device(options.device)
    results = Results(options.out)
    seeds = range(options.seed, options.seed + count)
    pending = [(m, s) for s in seeds for m in methods if results.read(experiment, m, s) is None]
    done = len(methods) * len(seeds) - len(pending)
    failures = []
    with Display(len(pending)) as display:
        if pending:
            display.say(f"{experiment.title}: {len(pending)} trials to run, {done} finished, on {device}")
        for method, seed in pending:
            if results.read(experiment, method, seed) is not None:  # another run on the same folder was faster
                continue
            log = results.trial_folder(experiment, method) / f"tensorboard-{seed:03d}" if options.tensorboard else None
            setting = Setting(device, options.data_root, options.download, log)
            progress = display.trial(method.name, seed)
            try:
                result = run_trial(experiment, method, seed, setting, progress)
                results.write(experiment, method, result)
            except DataError:
                raise
            except Exception:
                failures.append(f"{method.name}, seed {seed}")
                progress.fail(traceback.format_exc())
                continue
            progress.finish(result["accuracy"])
    report(experiment, methods, results)
    return failures


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


def report(experiment: Experiment, methods: list[Method], results: Results) -> None:
    """Write tables and figure of all finished trials into the experiment's folder; print some methods' tables.

    Args:
        experiment: The experiment.
        methods: The methods to print.
        results: Where the finished trials are.
    """
    found: Trials = [(method, results.read_all(experiment, method)) for method in experiment.methods]
    found = [(method, trials) for method, trials in found if trials]
    if not found:
        return
    folder = results.folder / experiment.name
    stem = "summary" if not experiment.deviation else f"summary-{experiment.epochs}-epochs"
    tables = [main_table(experiment, found), task_table(experiment, found)]
    text = f"# {experiment.title}\n\n" + "\n".join(f"{line}  " for line in notes(experiment, found)) + "\n\n"
    write_text(folder / f"{stem}.md", text + "\n".join(table.markdown() for table in tables))
    figure = folder / f"{stem.replace('summary', 'accuracy')}.png"
    save_png(accuracy_figure(experiment, found), figure)

    asked = [(method, trials) for method, trials in found if method in methods]
    console = Console()
    if asked:
        console.print(main_table(experiment, asked).rich())
        console.print(task_table(experiment, asked).rich())
        for line in notes(experiment, asked):
            console.print(line, markup=False, highlight=False)
    console.print(f"Table: {folder / stem}.md   Figure: {figure}", markup=False, highlight=False, soft_wrap=True)

"""Whole runs: avsi's trials beside the same arithmetic in a loop written by hand, and beside stock Avalanche.

A trial is the experiment layer's: benchmark, strategy, evaluations, provenance, fingerprints, checkpoints. The loop is
that of ``perf.floors``, stock Avalanche is ``perf.stock``, which is not evaluated on training data. The three take
turns in one process.

    python -m perf.whole_runs [--runs permuted split cifar] [--every 10] [--rounds 3] [--json FILE]
    python -m perf.whole_runs --runs digits fisher --json FILE
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import nn

from avsi.experiment import Experiment, Method, Setting, Trial, methods
from avsi.models import MLP, MultiHead, SplitCIFARNet
from avsi.scenarios.build import ImageScenario, Source, Task, build
from avsi.scenarios.pieces import permute
from perf import first_seconds, floors, plain_loop, rounds, stock, where
from perf.floors import FLOORS, Loop
from perf.rounds import interleave, machine, ratio, ratios, spread

Run = Literal["permuted", "split", "cifar", "digits", "fisher"]
OptimizerName = Literal["SGD", "Adam"]
MethodName = Literal["SI", "Online EWC", "MAS", "DHP + SI"]
TITLES: dict[str, str] = {
    "permuted": "permuted MNIST, ten tasks, one epoch, MLP 400-400, batch 64",
    "split": "split MNIST, five tasks, ten epochs, MLP 256-256 with a head per task, batch 64",
    "cifar": "split CIFAR-10/100, six tasks, one epoch, Zenke's CNN, batch 256",
    "digits": "the digits demo, fine-tuning and SI, five trials each, with the process's start",
    "fisher": "split MNIST, 2 x 400, batch 128, 21 epochs (2000 steps a task), Online EWC, exact Fisher information",
}
TARGETS = {"permuted": 1.05, "split": 1.05, "cifar": 1.05, "digits": 1.6}
BY_HAND, AVSI, STOCK, BATCHED = "by hand", "avsi", "Avalanche", "gradients of batches"


@dataclass
class Arguments:
    """Whole runs, beside a loop written by hand and stock Avalanche."""

    runs: tuple[Run, ...] = ("permuted", "split", "cifar")
    """Which."""
    methods: tuple[MethodName, ...] = ("SI", "Online EWC", "MAS", "DHP + SI")
    """Methods of the first three."""
    optimizers: tuple[OptimizerName, ...] = ("SGD", "Adam")
    """Optimizers of the first three."""
    every: int = 10
    """Takes one image in so many; 1: whole runs. Costs by trial and by task weigh more in a shortened one."""
    rounds: int = 3
    """Rounds in which by hand and avsi take turns."""
    stock_rounds: int = 1
    """In how many of them stock Avalanche takes part."""
    where: bool = False
    """Whether to show where the time goes, in place of rounds."""
    cpu_time: bool = False
    """Whether to count CPU seconds of the process in place of wall time."""
    json: Path | None = None
    """File that gets the numbers; rows that it has and that are not measured now stay."""


# avsi


@dataclass(frozen=True)
class Ours:
    """A run as an experiment, but for its method and optimizer.

    Attributes:
        network: Builds the network, given a head.
        classes: Outputs of the one head; None: a head per task.
    """

    network: Callable[..., nn.Module]
    classes: int | None = None


OURS = {
    "permuted": Ours(partial(MLP, 784, (400, 400)), 10),
    "split": Ours(partial(MLP, 784, (256, 256))),
    "cifar": Ours(SplitCIFARNet),
    "digits": Ours(partial(MLP, 64, (256, 256))),
    "fisher": Ours(partial(MLP, 784, (400, 400))),
}


def thinned(name: str, every: int) -> Source:
    """One image of a data set in so many."""
    whole = Source.load(name)
    parts = []
    for part in (whole.train, whole.test):
        thin = type(part)(part.name, part.split, part.images[::every], part.labels[::every], part.metadata)
        parts.append(part if every == 1 else thin)
    return Source(*parts)


def benchmark(run: str, every: int, *, seed: int) -> ImageScenario:
    """The tasks of a run, as avsi's scenarios make them."""
    if run == "permuted":
        return build(permute(thinned("mnist", every), tasks=10, seed=seed), scenario="domain", seed=seed)
    if run == "cifar":
        cifar10, cifar100 = (thinned(name, every) for name in ("cifar10", "cifar100"))
        groups = [tuple(range(start, start + 10)) for start in range(0, 50, 10)]
        return build([Task(cifar10, tuple(range(10))), *(Task(cifar100, group) for group in groups)], seed=seed)
    source = thinned("digits" if run == "digits" else "mnist", every)
    return build([Task(source, (first, first + 1)) for first in range(0, 10, 2)], seed=seed)


def our_method(name: str, ours: Ours) -> Method:
    """A method with the strength of the loops by hand."""
    if name == "Online EWC, exact":
        return methods.online_ewc(floors.OnlineEWC.strength, labels="exact")
    if name == "Online EWC, batched":
        return methods.batched_ewc(floors.OnlineEWC.strength)
    si = methods.si(floors.SI.strength, damping=floors.DAMPING)
    return {
        "SI": si,
        "Online EWC": methods.online_ewc(floors.OnlineEWC.strength),
        "MAS": methods.mas(floors.MAS.strength),
        "DHP + SI": methods.with_dhp(si, methods.plastic(ours.network, ours.classes)),
    }[name]


def trial(run: str, method: str, optimizer: str, every: int) -> Trial:
    """The trial that a run is."""
    floor, ours = FLOORS[run], OURS[run]
    experiment = Experiment(
        name=f"perf_{run}",
        title=TITLES[run],
        source="none",
        scenario=partial(benchmark, run, every),
        model=partial(ours.network, head=ours.classes or MultiHead),
        optimizer=partial(floors.OPTIMIZERS[optimizer], **({} if floor.rate is None else {"lr": floor.rate})),
        epochs=floor.epochs,
        batch_size=floor.batch,
        reset_optimizer=floor.reset,
        channels_last=floor.channels_last,
        methods=(our_method(method, ours),),
        trials=1,
    )
    return Trial(experiment, experiment.methods[0], seed=0)


def run_avsi(run: str, method: str, optimizer: str, every: int) -> list[list[float]]:
    """Run it as scripts do, with a checkpoint after each task."""
    with tempfile.TemporaryDirectory() as folder:
        result = trial(run, method, optimizer, every).run(Setting(), checkpoint=Path(folder) / "checkpoint.pt")
    if result["status"] != "finished":
        raise RuntimeError(f"{run}, {method}, {optimizer}: {result['divergence']}")
    matrix: list[list[float]] = result["accuracy_matrix"]
    return matrix


# Timing


def in_turns(run: str, method: str, optimizer: str, arguments: Arguments) -> dict[str, Any]:
    """Time a run by hand, with avsi, and with stock Avalanche."""
    matrices: dict[str, list[list[float]]] = {}
    makers: dict[str, Callable[[int], list[list[float]]]] = {
        BY_HAND: lambda every: Loop(FLOORS[run], method, optimizer, every).run(),
        AVSI: lambda every: run_avsi(run, method, optimizer, every),
    }
    if run == "fisher":
        makers[STOCK] = plain_loop.run
        makers[BATCHED] = lambda every: run_avsi(run, "Online EWC, batched", optimizer, every)
    elif method in stock.METHODS and arguments.stock_rounds:
        makers[STOCK] = lambda every: stock.run(run, method, optimizer, every)

    def timed(name: str) -> Callable[[], None]:
        return lambda: matrices.__setitem__(name, makers[name](arguments.every))

    for make in makers.values():
        make(max(SHORT, arguments.every))  # libraries and kernels are loaded
    times = interleave(
        {name: timed(name) for name in makers},
        arguments.rounds,
        "cpu",
        slow={STOCK},
        slow_rounds=arguments.stock_rounds,
        warm_up=0,
    )
    last = {name: matrix[-1] for name, matrix in matrices.items()}
    return compared(times) | {
        "run": run,
        "method": method,
        "optimizer": optimizer,
        "every": arguments.every,
        "accuracy": {name: sum(row) / len(row) for name, row in last.items()},
    }


SHORT = 100
"""Warming up takes one image in so many."""


def compared(times: dict[str, list[float]]) -> dict[str, Any]:
    """Medians and ratios of what took turns."""
    row: dict[str, Any] = {
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "ratio": ratio(times[AVSI], times[BY_HAND]),
        "quartiles": spread(ratios(times[AVSI], times[BY_HAND])),
    }
    if STOCK in times:
        row["stock to avsi"] = ratio(times[STOCK], times[AVSI])
    if BATCHED in times:
        row["to gradients of batches"] = ratio(times[AVSI], times[BATCHED])
    return row


def processes(arguments: Arguments) -> dict[str, Any]:
    """Time the digits demo and its loop as processes, from start to end; CPU seconds where those are asked for."""
    script = Path(__file__).parents[1] / "reproductions" / "split_digits.py"
    times: dict[str, list[float]] = {BY_HAND: [], AVSI: []}
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as out:
            commands = {
                BY_HAND: [sys.executable, "-m", "perf.floors", "digits", "5"],
                AVSI: [sys.executable, str(script), "--methods", "finetune", "si", "--out", out],
            }
            for name, command in commands.items():
                times[name].append(first_seconds.seconds(command, cpu_time=arguments.cpu_time))
    return compared(times) | {"run": "digits", "method": "", "optimizer": "Adam", "every": 1, "accuracy": {}}


def taken_apart(run: str, method: str, optimizer: str, every: int) -> dict[str, dict[str, float]]:
    """Seconds by part, by hand and with avsi."""
    return {
        BY_HAND: where.seconds_by_part(
            lambda: Loop(FLOORS[run], method, optimizer, every).run(), partial(where.watch_loop, method=method)
        ),
        AVSI: where.seconds_by_part(lambda: run_avsi(run, method, optimizer, every), where.watch_trial),
    }


# Showing


def show(row: dict[str, Any]) -> None:
    """Print a row."""
    low, high = row["quartiles"]
    target = f", target {TARGETS[row['run']]}" if row["run"] in TARGETS else ""
    seconds = ", ".join(f"{name} {value:.2f} s" for name, value in row["seconds"].items())
    stock = f"; the other takes {row['stock to avsi']:.2f} x avsi's" if "stock to avsi" in row else ""
    accuracy = ", ".join(f"{100 * value:.1f}" for value in row["accuracy"].values())
    print(
        f"{row['method']:18}{row['optimizer']:6}{row['ratio']:.3f} ({low:.3f}-{high:.3f}){target}: {seconds}{stock}"
        f"; accuracy {accuracy}",
        flush=True,
    )


def main(arguments: Arguments) -> None:
    """Measure run by run."""
    warnings.filterwarnings("ignore", message="No loggers specified")
    torch.set_num_threads(1)
    if arguments.cpu_time:
        rounds.clock = time.process_time
    path = arguments.json
    results: dict[str, Any] = json.loads(path.read_text()) if path and path.exists() else {"runs": {}, "where": {}}
    results["machine"] = machine("cpu")
    for run in arguments.runs:
        print(f"\n{TITLES[run]}" + (f"; one image in {arguments.every}" if arguments.every > 1 else ""))
        if run == "digits":
            plan = [("", "Adam")]
        elif run == "fisher":
            plan = [("Online EWC, exact", "Adam")]
        else:
            plan = [(method, optimizer) for optimizer in arguments.optimizers for method in arguments.methods]
        for method, optimizer in plan:
            key = f"{run}, {method}, {optimizer}, 1/{arguments.every}"
            if arguments.where:
                results["where"][key] = taken_apart(run, method, optimizer, arguments.every)
                print(f"{method}, {optimizer}")
                where.show(results["where"][key])
            else:
                row = processes(arguments) if run == "digits" else in_turns(run, method, optimizer, arguments)
                results["runs"][key] = row
                show(row)
            if path:
                path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Arguments))

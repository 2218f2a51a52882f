"""How the cost of a step and the memory held go with the number of tasks and of parameters."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
from avalanche.training.plugins import EWCPlugin
from torch import nn

from avsi.models import MLP
from avsi.models.headed import Head
from perf.rounds import interleave, ratios, spread
from perf.steps import held
from perf.training import METHODS, NAIVE, Paused, make_strategy, multi_head, random_tasks

TASKS = (2, 10, 100)
WIDTHS = {10**5: 110, 10**6: 680, 10**7: 2800, 10**8: 9600}
"""Units per hidden layer of an MLP with two, by the number of parameters it comes to."""
HEADS: dict[str, Callable[[Head], nn.Module]] = {
    "one head": lambda head: MLP(784, (256, 256), head),
    "a head per task": multi_head((256, 256)),
}
GROWN = ("SI", "Online EWC", "MAS")
SEPARATE = "Avalanche's EWC, separate"
BATCH = 64
SHAPE = (1, 28, 28)


def over_tasks(rounds: int, device: str, tasks: tuple[int, ...] = TASKS) -> Iterator[dict[str, object]]:
    """Time steps of the same strategies at some number of tasks; the same method takes its turns at all of them."""
    methods: dict[str, Callable[[], list[Any]]] = {name: METHODS[name] for name in (NAIVE, *GROWN)}
    methods[SEPARATE] = lambda: [EWCPlugin(0.1)]
    for heads, model in HEADS.items():
        stream = random_tasks(max(tasks), SHAPE, BATCH, labels=heads != "one head")
        for method, build in methods.items():
            at: dict[int, Paused] = {}
            owns: dict[int, Any] = {}
            # Avalanche's separate EWC keeps two copies of the model per task.
            counts = [count for count in tasks if method != SEPARATE or heads == "one head"]
            for count in counts:
                plugins = build()
                strategy = make_strategy(model, BATCH, list(plugins), device)
                for experience in stream[: count - 1]:
                    strategy.train(experience, eval_streams=[])
                at[count], owns[count] = Paused(strategy, stream[count - 1]), plugins[0] if plugins else None
            runs = {str(count): partial(paused.train, 20) for count, paused in at.items()}
            times = interleave(runs, rounds, device, warm_up=3)
            for count in counts:
                values, network = times[str(count)], at[count].strategy.model
                parameters = sum(p.numel() for p in network.parameters())
                to_second = ratios(values, times[str(tasks[0])])
                yield {
                    "heads": heads,
                    "method": method,
                    "tasks": count,
                    "milliseconds per step": 1e3 * statistics.median(values) / 20,
                    "ratio to task 2": statistics.median(to_second),
                    "quartiles": spread(to_second),
                    "held": held(owns[count], network) / parameters if owns[count] else 0.0,
                }


def over_parameters(rounds: int, device: str, widths: dict[int, int] = WIDTHS) -> Iterator[dict[str, object]]:
    """Time steps of a second task for models of several sizes."""
    stream = random_tasks(2, SHAPE, 2 * BATCH)
    for width in widths.values():
        methods = {name: METHODS[name] for name in (NAIVE, *GROWN)}
        steps = max(1, min(20, 5_000_000 // width**2))
        paused, owns = {}, {}
        for name, build in methods.items():
            plugins = build()
            strategy = make_strategy(lambda head, width=width: MLP(784, (width, width), head), BATCH, plugins, device)
            strategy.train(stream[0], eval_streams=[])
            paused[name], owns[name] = Paused(strategy, stream[1]), plugins[0] if plugins else None
        runs = {name: partial(p.train, steps) for name, p in paused.items()}
        times = interleave(runs, max(3, rounds if width < 2000 else rounds // 4), device)
        parameters = sum(p.numel() for p in paused[NAIVE].strategy.model.parameters())
        for name, values in times.items():
            extra = [1e3 * (value - base) / steps for value, base in zip(values, times[NAIVE], strict=True)]
            own = owns[name]
            yield {
                "method": name,
                "parameters": parameters,
                "milliseconds per step": 1e3 * statistics.median(values) / steps,
                "ratio": statistics.median(ratios(values, times[NAIVE])),
                "extra milliseconds": statistics.median(extra),
                "quartiles": spread(extra),
                "extra nanoseconds per parameter": 1e6 * statistics.median(extra) / parameters,
                "held": held(own, paused[name].strategy.model) / parameters if own else 0.0,
            }
        del paused, owns, runs


def draw(tasks: list[dict[str, Any]], parameters: list[dict[str, Any]], path: Path) -> None:
    """Draw the growth figure."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for method in dict.fromkeys(row["method"] for row in tasks):
        rows = [row for row in tasks if row["method"] == method and row["heads"] == "one head"]
        left.plot([r["tasks"] for r in rows], [r["ratio to task 2"] for r in rows], "o-", ms=4, label=method)
    left.set(xscale="log", yscale="log", xlabel="tasks", ylabel="time per step, relative to task 2")
    for method in GROWN:
        rows = [row for row in parameters if row["method"] == method]
        xs = [row["parameters"] for row in rows]
        right.plot(xs, [row["extra milliseconds"] for row in rows], "o-", ms=4, label=method)
    naive = [row for row in parameters if row["method"] == NAIVE]
    right.plot(
        [r["parameters"] for r in naive], [r["milliseconds per step"] for r in naive], "k--", label="Naive, whole step"
    )
    right.set(xscale="log", yscale="log", xlabel="parameters", ylabel="extra time per step (ms)")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def show(tasks: list[dict[str, Any]], parameters: list[dict[str, Any]]) -> None:
    """Print both tables."""
    print(f"\nOver tasks, MLP 256-256, batch {BATCH}\n{'':45}{'tasks':>6}{'ms/step':>10}{'to task 2':>22}{'held':>8}")
    for row in tasks:
        low, high = row["quartiles"]
        print(
            f"{row['method'] + ', ' + row['heads']:45}{row['tasks']:6}{row['milliseconds per step']:10.3f}"
            f"{row['ratio to task 2']:9.3f} ({low:.3f}-{high:.3f}){row['held']:8.2f}"
        )
    print(
        f"\nOver parameters, MLPs of two hidden layers, batch {BATCH}\n"
        f"{'':14}{'parameters':>12}{'ms/step':>10}{'ratio':>8}{'extra ms':>10}{'ns/parameter':>14}{'held':>8}"
    )
    for row in parameters:
        print(
            f"{row['method']:14}{row['parameters']:12,}{row['milliseconds per step']:10.2f}{row['ratio']:8.3f}"
            f"{row['extra milliseconds']:10.3f}{row['extra nanoseconds per parameter']:14.3f}{row['held']:8.2f}",
            flush=True,
        )

"""What a training step and a consolidation cost beyond plain fine-tuning, and what memory is held."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.training.plugins import EvaluationPlugin, SupervisedPlugin
from torch import Tensor

from perf.rounds import copy_bandwidth, interleave, ratio, ratios, spread
from perf.training import METHODS, NAIVE, SIZES, TITLES, Paused, Size, make_strategy, random_tasks

# Parameter-sized tensors that have to be read or written in a step, at the least, with everything in one pass.
# SI: snapshots of gradient and parameters (2 + 2); theta, previous, gradient, omega in and omega out (5).
# The penalty: theta, anchor, Omega and gradient in, gradient out (5).
MOVED = {"SI": (9, 14), "Online EWC": (0, 5), "MAS": (0, 5)}
STOCK = "Naive with Avalanche's loader and metrics"
WORKING_SET = 7
"""Parameter-sized tensors that SI's step goes through: parameters, gradient, its snapshot and four of state."""
CONSOLIDATING = [name for name in METHODS if name not in (NAIVE, "DHP")]
TARGETS = {
    "mlp256": {"SI": 1.35, "Online EWC": 1.2, "MAS": 1.2},
    "mlp2000": {"SI": 1.15, "Online EWC": 1.08, "MAS": 1.08, "DHP": 1.15},
    "cnn": {"SI": 1.15, "Online EWC": 1.08, "MAS": 1.08, "DHP": 1.15},
    "resnet18-128": {"SI": 1.10},
}
"""Of the ratio to Naive on later tasks; that of ResNet-18 is for GPUs."""


class Spy(SupervisedPlugin):
    """Notes how much a plugin holds just before the optimizer's step."""

    def __init__(self, plugin: Any, parameters: int) -> None:
        super().__init__()
        self.plugin, self.parameters, self.held = plugin, parameters, 0.0

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        """Count."""
        self.held = held(self.plugin, strategy.model) / self.parameters


def held(plugin: Any, model: torch.nn.Module) -> float:
    """Elements of all tensors that can be reached from a plugin, apart from the model's and their gradients."""
    owned = [*model.parameters(), *model.buffers()]
    known = {t.untyped_storage().data_ptr() for p in owned for t in (p, p.grad) if t is not None}
    sizes: dict[int, float] = {}
    seen: set[int] = set()
    ahead: list[Any] = [vars(plugin)]
    while ahead:
        value = ahead.pop()
        if id(value) in seen or isinstance(value, torch.nn.Module):
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            if storage.data_ptr() not in known:
                sizes[storage.data_ptr()] = storage.nbytes() / 4
        elif isinstance(value, dict):
            ahead += value.values()
        elif isinstance(value, list | tuple):
            ahead += value
        elif type(value).__module__.split(".")[0] in ("avsi", "avalanche"):
            ahead += vars(value).values()
    return sum(sizes.values())


def synchronisations(run: Callable[[], object]) -> int:
    """How often a function waits for the GPU."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def measure(key: str, rounds: int, device: str) -> Iterator[dict[str, object]]:
    """One row per method."""
    size = SIZES[key]
    stream = random_tasks(2, size.shape, size.batch * size.epoch)
    plugins = {name: build() for name, build in METHODS.items()}
    strategies = {
        name: make_strategy(size.model, size.batch, list(own), device, size.optimizer) for name, own in plugins.items()
    }
    parameters = sum(p.numel() for p in strategies[NAIVE].model.parameters())
    times: list[dict[str, list[float]]] = []
    for experience in stream:
        paused = {name: Paused(strategy, experience) for name, strategy in strategies.items()}
        runs = {name: (lambda p=p: p.train(size.steps)) for name, p in paused.items()}
        times.append(interleave(runs, rounds, device))
        if len(times) == 1:
            consolidation = measure_consolidation(size, paused, plugins, rounds, device)
            for name, p in paused.items():
                for plugin in plugins[name]:
                    pretend_a_step(plugin)
                p.end()
    syncs = {name: synchronisations(run) for name, run in runs.items()} if device.startswith("cuda") else {}
    bandwidth = copy_bandwidth(parameters, WORKING_SET, device)
    first, later = times
    base = statistics.median(later[NAIVE]) / size.steps
    for name in METHODS:
        own = plugins[name][0] if plugins[name] else None
        held_between = held_within = 0.0
        if own is not None:
            held_between = held(own, strategies[name].model) / parameters
            spy = Spy(own, parameters)
            strategies[name].plugins.append(spy)
            runs[name]()
            held_within = spy.held
        floor = [1 + 4 * moved * parameters / bandwidth / base for moved in MOVED[name]] if name in MOVED else None
        yield {
            "setting": key,
            "title": TITLES[key],
            "method": name,
            "parameters": parameters,
            "milliseconds per step": 1e3 * statistics.median(later[name]) / size.steps,
            "first task": ratio(first[name], first[NAIVE]),
            "first task, quartiles": spread(ratios(first[name], first[NAIVE])),
            "later tasks": ratio(later[name], later[NAIVE]),
            "later tasks, quartiles": spread(ratios(later[name], later[NAIVE])),
            "target": TARGETS.get(key, {}).get(name),
            "floor": floor,
            **compare_consolidation(consolidation, name),
            "held between steps": held_between,
            "held in a step": held_within,
            "copy GB/s": bandwidth / 1e9,
            "synchronisations": syncs.get(name),
        }


def pretend_a_step(plugin: Any) -> None:
    """Let a plugin of avsi consolidate again: SI refuses to do so for a task without a step."""
    if hasattr(plugin, "core"):
        plugin.core.steps_seen = 1


def measure_consolidation(
    size: Size, paused: dict[str, Paused], plugins: dict[str, list[Any]], rounds: int, device: str
) -> dict[str, list[float]]:
    """Seconds of a consolidation over an epoch's data, and of epochs of fine-tuning: as lean as it gets, and stock."""

    def consolidate(name: str) -> Callable[[], None]:
        plugin, strategy = plugins[name][0], paused[name].strategy

        def again() -> None:
            pretend_a_step(plugin)
            plugin.after_training_exp(strategy)

        return again

    evaluator = EvaluationPlugin(
        *[metrics(epoch=True, experience=True) for metrics in (accuracy_metrics, loss_metrics)]
    )
    stock = make_strategy(size.model, size.batch, [], device, size.optimizer, in_memory=False, evaluator=evaluator)
    runs: dict[str, Callable[[], object]] = {
        NAIVE: paused[NAIVE].train,
        STOCK: Paused(stock, paused[NAIVE].strategy.experience).train,
    }
    runs |= {name: consolidate(name) for name in CONSOLIDATING}
    return interleave(runs, max(5, rounds // 4), device)


def compare_consolidation(times: dict[str, list[float]], name: str) -> dict[str, object]:
    """The columns about consolidation."""
    if name not in CONSOLIDATING:
        return {"consolidation": None, "consolidation to stock epoch": None}
    return {
        "consolidation": ratio(times[name], times[NAIVE]),
        "consolidation, quartiles": spread(ratios(times[name], times[NAIVE])),
        "consolidation to stock epoch": ratio(times[name], times[STOCK]),
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows of one size as a table."""
    first = rows[0]
    print(
        f"\n{first['title']}: {first['parameters']:,} parameters, Naive {first['milliseconds per step']:.2f} ms/step, "
        f"copies {first['copy GB/s']:.1f} GB/s"
    )
    print(
        f"{'':26}{'first task':>20}{'later tasks':>20}{'floor':>7}{'target':>7}"
        + f"{'consolidation':>22}{'/ stock':>8}{'held':>13}"
    )
    for row in rows:

        def with_spread(column: str, row: dict[str, Any] = row) -> str:
            if row[column] is None:
                return ""
            low, high = row[f"{column}, quartiles"]
            return f"{row[column]:.3f} ({low:.2f}-{high:.2f})"

        floor = f"{row['floor'][1]:.2f}" if row["floor"] else ""
        target = f"{row['target']:.2f}" if row["target"] else ""
        stock = f"{row['consolidation to stock epoch']:.2f}" if row["consolidation"] else ""
        memory = f"{row['held between steps']:.2f} ({row['held in a step']:.2f})"
        print(
            f"{row['method']:26}{with_spread('first task'):>20}{with_spread('later tasks'):>20}{floor:>7}{target:>7}"
            f"{with_spread('consolidation'):>22}{stock:>8}{memory:>13}",
            flush=True,
        )

"""Where the time of a step goes: model, optimizer, the plugin's hooks, and Avalanche's own work."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from perf import rounds
from perf.rounds import synchronise
from perf.training import METHODS, SIZES, TITLES, Paused, make_strategy, random_tasks

STRATEGY = {"forward": "forward", "criterion": "forward", "backward": "backward", "optimizer_step": "optimizer"}
HOOKS = ("before_backward", "after_backward", "before_update", "after_update", "before_training_iteration",
         "after_training_iteration")  # fmt: skip
PARTS = ("forward", "backward", "optimizer", "plugin", "Avalanche")
SHOWN = ("Naive", "SI", "Online EWC", "DHP", "Avalanche's SI", "Avalanche's EWC, online")


def measure(key: str, device: str, repeats: int = 20) -> Iterator[dict[str, object]]:
    """Milliseconds per step of each part, on a second task; what is left over is Avalanche's."""
    size = SIZES[key]
    stream = random_tasks(2, size.shape, size.batch)
    for name in SHOWN:
        plugins = METHODS[name]()
        strategy = make_strategy(size.model, size.batch, plugins, device, size.optimizer)
        strategy.train(stream[0], eval_streams=[])
        paused = Paused(strategy, stream[1])
        spent = dict.fromkeys(PARTS, 0.0)
        for method, part in STRATEGY.items():
            _time(strategy, method, part, spent, device)
        for plugin in plugins:
            for hook in HOOKS:
                _time(plugin, hook, "plugin", spent, device)
        paused.train(2)
        measured = []
        for _ in range(repeats):
            spent.update(dict.fromkeys(PARTS, 0.0))
            start = rounds.clock()
            paused.train(size.steps)
            synchronise(device)
            spent["Avalanche"] = rounds.clock() - start - sum(spent.values())
            measured.append([value / size.steps for value in spent.values()])
        medians = [1e3 * statistics.median(column) for column in zip(*measured, strict=True)]
        yield {"setting": key, "method": name} | dict(zip(PARTS, medians, strict=True))


def _time(target: Any, name: str, part: str, spent: dict[str, float], device: str) -> None:
    method = getattr(target, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        synchronise(device)
        start = rounds.clock()
        result = method(*args, **kwargs)
        synchronise(device)
        spent[part] += rounds.clock() - start
        return result

    setattr(target, name, timed)


def show(rows: list[dict[str, Any]]) -> None:
    """Print a table."""
    print(f"\nWhere a step goes, {TITLES[rows[0]['setting']]} (ms)\n{'':26}" + "".join(f"{part:>11}" for part in PARTS))
    for row in rows:
        print(f"{row['method']:26}" + "".join(f"{row[part]:11.3f}" for part in PARTS), flush=True)

"""Peak memory of a training step and of a consolidation: resident memory of a forked process for each method (Linux).

Counted from before the model is made, so that parameters, gradients, activations and a method's own tensors are in it.

    python -m perf.memory [--sizes mlp2000 cnn] [--json FILE]
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from perf.rounds import forget_peak, in_fork, machine, resident
from perf.steps import CONSOLIDATING
from perf.training import METHODS, SIZES, TITLES, Paused, make_strategy, random_tasks

SizeName = Literal["mlp256", "mlp2000", "mlp2000-adam", "cnn", "resnet18"]
STEPS = 3


@dataclass
class Arguments:
    """Peak memory of a training step and of a consolidation."""

    sizes: tuple[SizeName, ...] = ("mlp2000", "mlp2000-adam", "cnn", "resnet18")
    """Models."""
    json: Path | None = None
    """File that gets the numbers."""


def peaks(key: str, method: str) -> dict[str, float]:
    """Measure in this process: a step on a second task, and the consolidation after it, in MiB."""
    torch.set_num_threads(1)
    size = SIZES[key]
    stream = random_tasks(2, size.shape, size.batch * 2)
    plugins = METHODS[method]()
    before = resident("VmRSS")
    strategy = make_strategy(size.model, size.batch, plugins, "cpu", size.optimizer)
    first = Paused(strategy, stream[0])
    first.train(STEPS)
    first.end()
    paused = Paused(strategy, stream[1])
    forget_peak()
    paused.train(STEPS)
    found = {"step": (resident("VmHWM") - before) / 2**20}
    if method in CONSOLIDATING:
        forget_peak()
        plugins[0].after_training_exp(strategy)
        found["consolidation"] = (resident("VmHWM") - before) / 2**20
    return found | {"parameters": 4 * sum(p.numel() for p in strategy.model.parameters()) / 2**20}


def measure(key: str) -> list[dict[str, Any]]:
    """One row per method, each in a process of its own."""
    rows = []
    for method in METHODS:
        rows.append({"setting": key, "method": method} | in_fork(peaks, key, method))
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows of one size."""
    naive = rows[0]
    print(f"\n{TITLES[naive['setting']]}: parameters {naive['parameters']:.0f} MiB")
    print(f"{'':26}{'step MiB':>10}{'beyond Naive, in parameters':>30}{'consolidation MiB':>20}")
    for row in rows:
        beyond = (row["step"] - naive["step"]) / row["parameters"]
        consolidation = f"{row['consolidation']:20.0f}" if "consolidation" in row else ""
        print(f"{row['method']:26}{row['step']:10.0f}{beyond:30.1f}{consolidation}", flush=True)


def main(arguments: Arguments) -> None:
    """Print a table for each size, and write them as JSON if asked to."""
    path = arguments.json
    results = json.loads(path.read_text()) if path and path.exists() else {"memory": {}}
    results["machine"] = machine("cpu")
    for key in arguments.sizes:
        rows = measure(key)
        show(rows)
        results["memory"][key] = rows
        if path:
            path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Arguments))

"""Measures what avsi costs, prints tables and writes them as JSON: ``python -m perf``."""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from perf import breakdown, growth, rounds, steps
from perf.rounds import machine

Part = Literal["steps", "breakdown", "tasks", "parameters"]
SizeName = Literal["mlp256", "mlp256-adam", "mlp2000", "mlp2000-adam", "cnn", "resnet18", "resnet18-128"]


@dataclass
class Arguments:
    """What avsi costs, beside plain fine-tuning and Avalanche's own plugins."""

    parts: tuple[Part, ...] = ("steps", "breakdown", "tasks", "parameters")
    """What to measure."""
    sizes: tuple[SizeName, ...] = ("mlp256", "mlp256-adam", "mlp2000", "mlp2000-adam", "cnn", "resnet18")
    """Models for steps and breakdown."""
    rounds: int = 40
    """Interleaved rounds per method for the smallest models; larger ones get fewer."""
    threads: int = 1
    """Threads for torch; 0: torch's own choice."""
    device: str = "cpu"
    """Where to run."""
    cpu_time: bool = False
    """Whether to count CPU seconds in place of wall time: for one thread on a machine with other load."""
    json: Path | None = None
    """File that gets the numbers; parts that it has and that are not measured now stay."""


SHARE_OF_ROUNDS = {"mlp256": 1.0, "mlp256-adam": 1.0, "mlp2000": 0.5, "mlp2000-adam": 0.5, "cnn": 0.2, "resnet18": 0.2}

SHOWN_IN_PARTS = ("mlp256", "mlp2000", "cnn")
"""The models whose steps are taken apart."""


def main(arguments: Arguments) -> None:
    """Measure part by part."""
    warnings.filterwarnings("ignore", message="No loggers specified")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.cpu_time:
        rounds.clock = time.process_time
    path, device = arguments.json, arguments.device
    results: dict[str, Any] = json.loads(path.read_text()) if path and path.exists() else {}
    results["machine"] = machine(device)

    def keep(**parts: Any) -> None:
        results.update(parts)
        if path:
            path.write_text(json.dumps(results, indent=1) + "\n")

    start = time.perf_counter()
    for key in arguments.sizes if "steps" in arguments.parts else ():
        share = SHARE_OF_ROUNDS.get(key, 0.2)
        rows = list(steps.measure(key, max(5, round(arguments.rounds * share)), device))
        steps.show(rows)
        keep(steps=results.get("steps", {}) | {key: rows})
    for key in arguments.sizes if "breakdown" in arguments.parts else ():
        if key in SHOWN_IN_PARTS:
            rows = list(breakdown.measure(key, device, max(5, round(arguments.rounds * SHARE_OF_ROUNDS[key]))))
            breakdown.show(rows)
            keep(breakdown=results.get("breakdown", {}) | {key: rows})
    if "tasks" in arguments.parts:
        keep(tasks=list(growth.over_tasks(arguments.rounds, device)))
    if "parameters" in arguments.parts:
        keep(parameters=list(growth.over_parameters(arguments.rounds // 2, device)))
    if {"tasks", "parameters"} & set(arguments.parts):
        growth.show(results.get("tasks", []), results.get("parameters", []))
    if path and "tasks" in results and "parameters" in results:
        growth.draw(results["tasks"], results["parameters"], path.with_suffix(".png"))
    print(f"\nmeasured in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main(tyro.cli(Arguments))

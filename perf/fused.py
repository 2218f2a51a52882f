"""Split MNIST with fused and with unfused optimizers: the same accuracies, and the time of each.

SI in Zenke's protocol (Adam), seed by seed in turns.

    python -m perf.fused [--seeds 5] [--json FILE]
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from torch.optim import Adam

from avsi.experiment import Setting, Trial
from perf import rounds
from perf.rounds import machine, ratio

sys.path.append(str(Path(__file__).parents[1] / "reproductions"))
import split_mnist

NAMES = {True: "fused", False: "not fused"}


@dataclass
class Arguments:
    """Split MNIST with fused and with unfused optimizers."""

    seeds: int = 5
    """Seeds, from 0."""
    epochs: int | None = None
    """Epochs per task; default: the protocol's."""
    cpu_time: bool = False
    """Whether to count CPU seconds of the process in place of wall time."""
    json: Path | None = None
    """File that gets the numbers."""


def measure(arguments: Arguments) -> dict[str, Any]:
    """Run the trials."""
    experiment = split_mnist.ZENKE.with_epochs(arguments.epochs)
    accuracy: dict[str, list[float]] = {name: [] for name in NAMES.values()}
    seconds: dict[str, list[float]] = {name: [] for name in NAMES.values()}
    for seed in range(arguments.seeds):
        for fused, name in NAMES.items():
            changed = replace(experiment, optimizer=partial(Adam, lr=1e-3, betas=(0.9, 0.999), fused=fused))
            start = rounds.clock()
            result = Trial(changed, changed.method("si"), seed).run(Setting(download=False))
            seconds[name].append(rounds.clock() - start)
            accuracy[name].append(result["accuracy"])
        print(f"seed {seed}: " + ", ".join(f"{name} {values[-1]:.4f}" for name, values in accuracy.items()), flush=True)
    apart = [a - b for a, b in zip(*accuracy.values(), strict=True)]
    return {
        "accuracy": accuracy,
        "seconds": seconds,
        "speedup": ratio(seconds["not fused"], seconds["fused"]),
        "difference": statistics.fmean(apart),
        "standard errors": {name: statistics.stdev(v) / math.sqrt(len(v)) for name, v in accuracy.items()},
    }


def main(arguments: Arguments) -> None:
    """Print what came of it, and write it as JSON if asked to."""
    torch.set_num_threads(1)
    if arguments.cpu_time:
        rounds.clock = time.process_time
    found = measure(arguments)
    for name, values in found["accuracy"].items():
        print(f"{name}: {100 * statistics.fmean(values):.3f} +- {100 * found['standard errors'][name]:.3f} %")
    print(f"difference {100 * found['difference']:.3f} points; fused is {found['speedup']:.2f} times as fast")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine("cpu")} | found, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Arguments))

"""The first seconds: importing, ``--help`` and the first training step, against importing torch.

Each is a fresh process, in interleaved rounds; medians are shown, so that a first round with cold files does not count.

    python -m perf.first_seconds [--rounds 5] [--cpu-time] [--json FILE]
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from perf.rounds import machine, ratio, ratios, spread

ROOT = Path(__file__).parents[1]
TORCH = "import torch"
FIRST_STEP = """
import torch
from avsi.models import MLP, MultiHead
from avsi.scenarios import split_digits
from avsi.strategies import SynapticIntelligence

class Done(Exception):
    pass

def stop(*_):
    raise Done

model = MLP(64, (256, 256), head=MultiHead)
optimizer = torch.optim.Adam(model.parameters(), fused=True)
optimizer.register_step_post_hook(stop)
strategy = SynapticIntelligence(model=model, optimizer=optimizer, strength=1.0, train_mb_size=64)
try:
    strategy.train(split_digits().train_stream[0])
except Done:
    pass
"""
PLAIN_STEP = """
import torch
from avsi.consolidation import SIPenalty

model = torch.nn.Linear(64, 2)
optimizer = torch.optim.Adam(model.parameters(), fused=True)
penalty = SIPenalty(model, strength=1.0)
model(torch.rand(8, 64)).sum().backward()
with penalty.step(optimizer):
    optimizer.step()
"""
CODE: dict[str, str] = {
    TORCH: TORCH,
    "import torchvision": "import torchvision",
    "import avalanche.training": "import avalanche.training",
    "import avsi": "import avsi",
    "import avsi.importance": "import avsi.importance",
    "import avsi.consolidation": "import avsi.consolidation",
    "from avsi import SIPlugin": "from avsi import SIPlugin",
    "a first step, plain PyTorch": PLAIN_STEP,
    "a first step with Avalanche": FIRST_STEP,
}
COMMANDS: dict[str, list[str]] = {name: [sys.executable, "-c", code] for name, code in CODE.items()} | {
    "split_digits.py --help": [sys.executable, "reproductions/split_digits.py", "--help"],
}
TARGETS = {"split_digits.py --help": 1.5, "a first step with Avalanche": 3.0}


@dataclass
class Arguments:
    """The first seconds, against importing torch."""

    rounds: int = 5
    """Interleaved rounds."""
    cpu_time: bool = False
    """Whether to count the processes' CPU seconds in place of wall time."""
    json: Path | None = None
    """File that gets the numbers."""


def seconds(command: Sequence[str], *, cpu_time: bool) -> float:
    """Run a process on one thread, and count its seconds.

    Args:
        command: The command.
        cpu_time: Whether CPU seconds are meant.

    Returns:
        Seconds.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)[:200]} failed:\n{done.stderr[-2000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime if cpu_time else wall


def measure(arguments: Arguments) -> list[dict[str, Any]]:
    """One row per command."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(arguments.rounds):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command, cpu_time=arguments.cpu_time))
    return [
        {
            "what": name,
            "seconds": statistics.median(values),
            "ratio": ratio(values, times[TORCH]),
            "quartiles": spread(ratios(values, times[TORCH])),
            "target": TARGETS.get(name),
        }
        for name, values in times.items()
    ]


def main(arguments: Arguments) -> None:
    """Print a table, and write it as JSON if asked to."""
    rows = measure(arguments)
    for row in rows:
        low, high = row["quartiles"]
        target = f"   target {row['target']}" if row["target"] else ""
        print(f"{row['what']:28}{row['seconds']:8.2f} s{row['ratio']:8.2f} ({low:.2f}-{high:.2f}){target}")
    if arguments.json:
        clock = "process_time" if arguments.cpu_time else "perf_counter"
        content = {"machine": machine("cpu") | {"threads": 1, "clock": clock}, "rows": rows}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Arguments))

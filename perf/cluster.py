"""A sweep on a Ray cluster of two nodes on this machine, one of which is lost in the middle.

Runs the same 24 real trials (split digits: SI with eight strengths, three seeds) in two local processes, on the
cluster, and on the cluster once more, killing the second node when a third of the trials is finished. Every trial is to
be there once, with the same weights bit for bit; what Ray takes longer is its overhead. A part's time begins when its
processes, nodes and all, are there, and what they import counts.

    python -m perf.cluster [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import json
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import tyro
from torch.optim import Adam

from avsi.experiment import Experiment, Setting, Trial
from avsi.experiment.methods import si
from avsi.launch.executors import Executor, InProcesses
from avsi.launch.loop import Loop
from avsi.launch.sweep import candidate
from avsi.models import MLP, MultiHead
from avsi.results import store
from avsi.scenarios import split_digits
from perf.rounds import machine

EXPERIMENT = Experiment(
    name="cluster",
    title="Split digits on a cluster",
    source="No paper.",
    scenario=partial(split_digits, validation=0.2),
    model=partial(MLP, 64, (64,), MultiHead),
    optimizer=partial(Adam, lr=3e-3),
    epochs=2,
    batch_size=16,
    reset_optimizer=True,
    methods=(si(1.0, damping=1e-3),),
    trials=3,
)
STRENGTHS = (0.0, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
SEEDS = range(3)


def trials() -> list[Trial]:
    """Make the trials.

    Returns:
        24 of them.
    """
    method = EXPERIMENT.methods[0]
    methods = [candidate(EXPERIMENT, method, {"si.strength": strength}) for strength in STRENGTHS]
    return [Trial(replace(EXPERIMENT, methods=(method, m)), m, seed) for seed in SEEDS for m in methods]


def run(root: Path, executor: Executor) -> float:
    """Run the trials.

    Args:
        root: The results folder.
        executor: Runs them.

    Returns:
        Seconds.
    """
    todo, clock = trials(), time.perf_counter()
    loop = Loop(root, lambda trial: (executor, Setting()), verbosity="quiet")
    loop(todo)
    if loop.failures:
        raise SystemExit(f"failed: {loop.failures}")
    return time.perf_counter() - clock


def weights(root: Path) -> dict[str, Any]:
    """Read what trials ended with.

    Args:
        root: The results folder.

    Returns:
        Fingerprints of the weights after each task, by the trial's file.
    """
    found = {str(trial.file): store.read_trial(root / trial.file) for trial in trials()}
    files = {str(file.relative_to(root)) for file in root.rglob("seed-*.json")}
    if files != found.keys():
        raise SystemExit(f"not the trials that were asked for: {sorted(files ^ found.keys())}")
    return {name: (trial or {})["weights"] for name, trial in found.items()}


@dataclass
class Arguments:
    """A sweep in local processes and on a Ray cluster."""

    parts: tuple[Literal["local", "cluster", "killed"], ...] = ("local", "cluster", "killed")
    """What is run; the first is what the others are compared with."""
    rounds: int = 3
    """Interleaved rounds."""
    json: Path | None = None
    """File that gets the numbers."""


def run_part(name: str, root: Path) -> float:
    """Run the trials in one way.

    Args:
        name: The part.
        root: The results folder.

    Returns:
        Seconds.
    """
    if name == "local":
        return run(root, InProcesses(2, threads=1))
    import ray
    from ray.cluster_utils import Cluster

    from avsi.launch.on_ray import OnRay

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    if name == "killed":
        threading.Thread(target=_kill, args=(cluster, second, root), daemon=True).start()
    try:
        return run(root, OnRay())
    finally:
        ray.shutdown()
        cluster.shutdown()


def main(arguments: Arguments) -> None:
    """Run all parts in turns, and compare.

    Args:
        arguments: What is run.
    """
    seconds: dict[str, list[float]] = {name: [] for name in arguments.parts}
    equal = dict.fromkeys(arguments.parts, True)
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            ends = {}
            for name in arguments.parts:
                seconds[name].append(run_part(name, Path(folder) / name))
                ends[name] = weights(Path(folder) / name)
                equal[name] &= ends[name] == ends[arguments.parts[0]]
    rows = [
        {"part": name, "seconds": times, "median": statistics.median(times), "equal": equal[name]}
        for name, times in seconds.items()
    ]
    content = {"machine": machine("cpu") | {"threads": 1}, "trials": len(trials()), "rows": rows}
    print(json.dumps(content, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


def _kill(cluster: Any, node: Any, root: Path) -> None:
    # Lose the second node without a word when a third of the trials is finished.
    while len(list(root.rglob("seed-*.json"))) < len(trials()) // 3:
        time.sleep(0.1)
    cluster.remove_node(node, allow_graceful=False)


if __name__ == "__main__":
    main(tyro.cli(Arguments))

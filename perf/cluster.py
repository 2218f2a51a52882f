"""A sweep on a Ray cluster of two nodes on this machine, one of which is lost in the middle: python -m perf.cluster.

Runs the same 24 real trials (split digits: SI with eight strengths, three seeds) in two local processes, on the
cluster, and on the cluster once more, killing the second node when a third of the trials is finished. Every trial is to
be there once, with the same weights bit for bit; what Ray takes longer is its overhead. Prints a JSON object.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch.optim import Adam

from avsi.experiment import Experiment, Setting, Trial
from avsi.experiment.methods import si
from avsi.launch.executors import Executor, InProcesses
from avsi.launch.loop import Loop
from avsi.launch.sweep import candidate
from avsi.models import MLP, MultiHead
from avsi.results import store
from avsi.scenarios import split_digits

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


def main(parts: Sequence[str] = ("cluster", "killed")) -> None:
    """Run local processes and the rest, and compare.

    Args:
        parts: What is run beside local processes.
    """
    import ray
    from ray.cluster_utils import Cluster

    from avsi.launch.on_ray import OnRay

    with tempfile.TemporaryDirectory() as folder:
        roots = {name: Path(folder) / name for name in ("local", *parts)}
        seconds = {"local": run(roots["local"], InProcesses(2, threads=1))}
        for name in parts:
            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
            second = cluster.add_node(num_cpus=1)
            cluster.wait_for_nodes()
            ray.init(address=cluster.address, log_to_driver=False)
            if name == "killed":
                threading.Thread(target=_kill, args=(cluster, second, roots[name]), daemon=True).start()
            seconds[name] = run(roots[name], OnRay())
            ray.shutdown()
            cluster.shutdown()
        ends = {name: weights(root) for name, root in roots.items()}
    equal = {name: ends[name] == ends["local"] for name in parts}
    print(json.dumps({"trials": len(ends["local"]), "seconds": seconds, "equal_to_local": equal}, indent=1))


def _kill(cluster: Any, node: Any, root: Path) -> None:
    # Lose the second node without a word when a third of the trials is finished.
    while len(list(root.rglob("seed-*.json"))) < len(trials()) // 3:
        time.sleep(0.1)
    cluster.remove_node(node, allow_graceful=False)


if __name__ == "__main__":
    main(sys.argv[1:] or ("cluster", "killed"))

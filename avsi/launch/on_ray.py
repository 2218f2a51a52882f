"""Trials on Ray: a cluster, or a local Ray that is started for the run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

import ray
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from avsi.experiment.events import Said
from avsi.experiment.spec import ExperimentError
from avsi.launch.executors import Failure, Job, Outcome, Show, run_elsewhere

POLL = 0.2  # seconds


class OnRay:
    """Runs each trial as a Ray task that needs as many cores as threads, and a GPU or none.

    Without an address a local Ray is started, and ended afterwards. Without a number of workers as many trials run as
    the cluster has room for. Results come back to this process. Checkpoints are kept where the results folder is shared
    with the node that runs the trial; on other nodes a trial that is interrupted starts over. A trial whose node is
    lost goes to another one; a task that dies by itself is not tried again.
    """

    def __init__(
        self, address: str | None = None, workers: int | None = None, threads: int = 1, gpu: bool = False
    ) -> None:
        self._address, self._workers, self._threads, self._gpu = address, workers, threads, gpu
        self._running: dict[Any, Job] = {}

    def __enter__(self) -> OnRay:
        self._connected = ray.is_initialized()
        if not self._connected:
            _connect(self._address)
        space = _room(self._threads, self._gpu)
        self._most = min(self._workers or space, space)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # Not on a node that may be lost.
        self._events = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        self._task = ray.remote(num_cpus=self._threads, num_gpus=int(self._gpu), max_retries=0)(_run_task)
        return self

    def __exit__(self, *exception: Any) -> None:
        for reference in self._running:
            ray.cancel(reference, force=True)
        self._events.shutdown(force=True)
        if not self._connected:
            ray.shutdown()

    @property
    def has_room(self) -> bool:
        """Whether fewer trials run than may."""
        return len(self._running) < self._most

    def submit(self, job: Job) -> None:
        """Begin a trial."""
        payload = ray.cloudpickle.dumps(job)
        self._running[self._task.remote(str(job), payload, self._threads, self._events)] = job

    def finished(self, show: Show, timeout: float | None) -> Iterator[tuple[Job, Outcome]]:
        """Show what trials tell, and yield those that ended."""
        done, _ = ray.wait(list(self._running), timeout=POLL)
        running = {str(job) for job in self._running.values()}
        for name, event in self._events.get_nowait_batch(self._events.size()):
            if name in running:
                show(name, event)
        for reference in done:
            job = self._running.pop(reference)
            try:
                yield job, ray.get(reference)
            except ray.exceptions.NodeDiedError:
                show(str(job), Said("its node was lost; it goes to another one"))
                self.submit(job)
            except ray.exceptions.RayError as error:
                yield job, Failure(f"its Ray task ended: {type(error).__name__}", str(error))


def _connect(address: str | None) -> None:
    """Join a cluster or start a local Ray."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # what runs here is nobody else's business
    local = {"include_dashboard": False} if address is None else {}
    try:
        ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **local)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ExperimentError(f"cannot join the Ray cluster at {address!r}: {error}") from error


def _room(threads: int, gpu: bool) -> int:
    """Count the trials that the cluster has room for at a time."""
    needs = {"CPU": threads} | ({"GPU": 1} if gpu else {})
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(min(int(node.get(kind, 0) // need) for kind, need in needs.items()) for node in nodes)
    if not room:
        needed = f"{threads} processor cores{' and a GPU' * gpu}"
        raise ExperimentError(f"no node of the Ray cluster has {needed}; use --threads{' or --device cpu' * gpu}")
    return room


def _run_task(name: str, payload: bytes, threads: int, events: Queue) -> Outcome:
    """Run a trial on some node."""
    return run_elsewhere(payload, threads, lambda event: events.put((name, event)))

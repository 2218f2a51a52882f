"""Trials on Ray: a cluster, or a local Ray that is started for the run."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import ray

from avsi.experiment.events import Event, Said, Tell
from avsi.experiment.spec import ExperimentError
from avsi.launch.executors import Failure, Job, Outcome, run_elsewhere


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
        self._connected = ray.is_initialized()
        if not self._connected:
            _connect(address)
        room = _room(threads, gpu)
        self.workers = min(workers or room, room)
        self._threads = threads
        self._task = ray.remote(num_cpus=threads, num_gpus=int(gpu), max_retries=0)(_run_task)
        self._running: set[Any] = set()
        self._stopped = False

    def __call__(self, job: Job, tell: Tell) -> Outcome:
        """Run a trial."""
        messages = self._task.remote(ray.cloudpickle.dumps(job), self._threads)
        self._running.add(messages)
        if self._stopped:
            self.stop()
        try:
            for reference in messages:
                message = ray.get(reference)
                if isinstance(message, dict | Failure):
                    return message
                tell(message)
            raise RuntimeError("the Ray task ended without an outcome")
        except ray.exceptions.NodeDiedError:
            tell(Said("its node was lost; it goes to another one"))
            return self(job, tell)
        except ray.exceptions.RayError as error:
            return Failure(f"its Ray task ended: {type(error).__name__}", str(error))
        finally:
            self._running.discard(messages)

    def stop(self) -> None:
        """End all tasks."""
        self._stopped = True
        for messages in list(self._running):
            ray.cancel(messages, force=True)

    def close(self) -> None:
        """End a Ray that was started here."""
        if not self._connected:
            ray.shutdown()


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


def _run_task(payload: bytes, threads: int) -> Iterator[Event | Outcome]:
    """Run a trial on some node; yield what it tells, and at last its outcome."""
    messages: SimpleQueue[Event | Outcome] = SimpleQueue()
    run = lambda: messages.put(run_elsewhere(payload, threads, messages.put))  # noqa: E731
    threading.Thread(target=run, daemon=True).start()
    while not isinstance(message := messages.get(), dict | Failure):
        yield message
    yield message

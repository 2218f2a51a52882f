"""The engine for Ray: trials run on a cluster, or on a local Ray that is started for the run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ray
import torch
from ray.util.queue import Queue

from avsi.experiment.engines import Failure, Job, Outcome, Outcomes, Show, attempt_elsewhere, described
from avsi.experiment.spec import ExperimentError

POLL = 0.2  # seconds


def on_ray(
    jobs: Iterator[Job],
    show: Show,
    *,
    address: str | None = None,
    workers: int | None = None,
    threads: int = 1,
    gpu: bool = False,
) -> Outcomes:
    """Run trials as Ray tasks.

    Results come back to this process. Checkpoints are kept where the results folder is shared with the node that runs
    the trial; on other nodes a trial that is cut starts over. A task that dies is not tried again.

    Args:
        jobs: The trials.
        show: Shows their progress.
        address: The cluster's address, "auto" for the one of this machine; None: a local Ray is started, and ended
            afterwards.
        workers: At most so many trials at a time; None: as many as the cluster has room for.
        threads: Threads each trial computes with, and processor cores it needs.
        gpu: Whether each needs a GPU.

    Yields:
        Each trial's outcome.
    """
    connected = ray.is_initialized()
    if not connected:
        connect(address)
    running: dict[ray.ObjectRef, Job] = {}
    named: dict[str, Job] = {}
    try:
        events = Queue(actor_options={"num_cpus": 0})
        task = ray.remote(num_cpus=threads, max_retries=0)(run_task)
        space = room(threads, gpu)
        most = min(workers or space, space)
        while True:
            while len(running) < most and (job := next(jobs, None)):
                running[task.options(num_gpus=int(gpu)).remote(described(job), threads, events)] = job
                named[job.name] = job
            if not running:
                break
            done, _ = ray.wait(list(running), timeout=POLL)
            for name, event in events.get_nowait_batch(events.size()):
                show(named[name], event)
            for reference in done:
                yield running.pop(reference), outcome(reference)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if not connected:
            ray.shutdown()


def connect(address: str | None) -> None:
    """Join a cluster or start a local Ray.

    Args:
        address: The cluster's address; None for a local Ray.

    Raises:
        ExperimentError: If there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # what runs here is nobody else's business
    try:
        if address is None:
            ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        else:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ExperimentError(f"cannot join the Ray cluster at {address!r}: {error}") from error


def room(threads: int, gpu: bool) -> int:
    """Count the trials that the cluster has room for at a time.

    Args:
        threads: Processor cores of each.
        gpu: Whether each needs a GPU.

    Returns:
        Their number.

    Raises:
        ExperimentError: If there is room for none.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    rooms = [int(node.get("CPU", 0) // threads) for node in nodes]
    if gpu:
        rooms = [min(cores, int(node.get("GPU", 0))) for cores, node in zip(rooms, nodes, strict=True)]
    if not any(rooms):
        needed = f"{threads} processor cores{' and a GPU' * gpu}"
        raise ExperimentError(f"no node of the Ray cluster has {needed}; use --threads{' or --device cpu' * gpu}")
    return sum(rooms)


def run_task(job: Job, threads: int, events: Queue) -> Outcome:
    """Run a trial on some node.

    Args:
        job: The trial.
        threads: Threads torch computes with.
        events: Takes the trial's name with what it tells.

    Returns:
        Its outcome.
    """
    torch.set_num_threads(threads)
    if job.checkpoint is not None and not job.checkpoint.parent.is_dir():  # made before; so it is not shared
        job = replace(job, checkpoint=None)
    return attempt_elsewhere(job, lambda event: events.put((job.name, event)))


def outcome(reference: Any) -> Outcome:
    """Fetch a task's outcome.

    Args:
        reference: The task, finished or dead.

    Returns:
        The trial's outcome.
    """
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        return Failure(f"its Ray task ended: {type(error).__name__}", str(error))

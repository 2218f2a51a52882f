"""Engines: where trials run. Each takes jobs as it has room for them, and yields their outcomes as they come."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, fields, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from avsi.experiment.progress import Event, Said, Tell, TrialProgress
from avsi.experiment.spec import Experiment, ExperimentError, Method
from avsi.experiment.trial import Setting, run_trial

SPAWN = multiprocessing.get_context("spawn")  # a forked process can use neither CUDA nor torch's threads


@dataclass(frozen=True)
class Job:
    """A trial to run.

    Attributes:
        experiment: The experiment.
        method: The method.
        seed: The seed.
        setting: Device, data and logs.
        checkpoint: Where the trial's state after each finished experience is kept, None for nowhere.
    """

    experiment: Experiment
    method: Method
    seed: int
    setting: Setting
    checkpoint: Path | None

    @property
    def name(self) -> str:
        """What the trial is called."""
        return f"{self.method.name}, seed {self.seed}"


@dataclass(frozen=True)
class Described(Experiment):
    """An experiment on its way to another process, where the functions of a script have other names than here.

    Attributes:
        description: How the trial to run is described here.
    """

    description: dict[str, Any] = field(default_factory=dict)

    def describe(self, method: Method) -> dict[str, Any]:
        """Return the description.

        Args:
            method: The trial's method.

        Returns:
            JSON data.
        """
        return self.description


def described(job: Job) -> Job:
    """Describe a trial before it goes to another process.

    Args:
        job: The trial.

    Returns:
        The trial, whose experiment is described the same in every process.
    """
    parts = {part.name: getattr(job.experiment, part.name) for part in fields(job.experiment)}
    parts["methods"] = ()  # a function of another method that cannot be imported there is not this one's fault
    return replace(job, experiment=Described(**parts, description=job.experiment.describe(job.method)))


@dataclass(frozen=True)
class Failure:
    """Why a trial failed.

    Attributes:
        reason: One line.
        details: The traceback, or what else is known.
    """

    reason: str
    details: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an exception.

        Args:
            error: The exception, raised.

        Returns:
            The failure.
        """
        reason = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
        return cls(reason, "".join(traceback.format_exception(error)))


Outcome = dict[str, Any] | Failure
"""A trial's result, as JSON data, or why there is none."""

Show = Callable[[Job, Event], None]
"""Shows what a running trial tells."""

Outcomes = Generator[tuple[Job, Outcome], None, None]
"""Trials with their outcomes."""

Engine = Callable[[Iterator[Job], Show], Outcomes]
"""Runs jobs. A job is taken only when there is room for it, and is running from then on. Closing the generator
stops what still runs."""


def attempt(job: Job, tell: Tell) -> Outcome:
    """Run a trial, come what may.

    Args:
        job: The trial.
        tell: Told of every step.

    Returns:
        Its outcome.
    """
    try:
        return run_trial(job.experiment, job.method, job.seed, job.setting, TrialProgress(tell), job.checkpoint)
    except Exception as error:
        return Failure.of(error)


def attempt_elsewhere(job: Job, tell: Tell) -> Outcome:
    """Run a trial in another process than the one that has the terminal, which is told what the trial prints too.

    Args:
        job: The trial.
        tell: Told of every step and line.

    Returns:
        Its outcome.
    """
    output = Output(tell)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            return attempt(job, tell)
    finally:
        output.finish()


def in_process(jobs: Iterator[Job], show: Show, *, threads: int | None = None) -> Outcomes:
    """Run trials one after the other in this process.

    Args:
        jobs: The trials.
        show: Shows their progress.
        threads: Threads torch computes with, None for its default.

    Yields:
        Each trial's outcome.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        for job in jobs:
            yield job, attempt(job, lambda event, job=job: show(job, event))  # type: ignore[misc]
    finally:
        torch.set_num_threads(before)


def pool(jobs: Iterator[Job], show: Show, *, workers: int, threads: int | None = None) -> Outcomes:
    """Run trials in a pool of local processes.

    The device ``cuda`` stands for all visible GPUs here, which the workers share out among themselves. A worker that
    dies takes only its own trial with it, and another one takes its place.

    Args:
        jobs: The trials.
        show: Shows their progress.
        workers: Number of processes.
        threads: Threads each computes with; None for an equal share of the processor's cores, so that they do not get
            into each other's way, and not more than torch would use by itself.

    Yields:
        Each trial's outcome.
    """
    threads = threads or max(1, min(torch.get_num_threads(), available_cores() // workers))
    places = list(range(workers))
    resting: list[Worker] = []
    busy: dict[Any, Worker] = {}
    try:
        while True:
            for worker in [worker for worker in resting if not worker.process.is_alive()]:
                resting.remove(worker)
                stop([worker])
                places.append(worker.place)
            while len(busy) < workers and (job := next(jobs, None)):
                worker = resting.pop() if resting else Worker(places.pop(0), threads)
                busy[worker.pipe] = worker
                worker.take(job)
            if not busy:
                break
            for pipe in wait(list(busy)):
                worker = busy[pipe]
                message = worker.hear()
                if isinstance(message, dict | Failure):
                    del busy[pipe]
                    if worker.process.is_alive():
                        resting.append(worker)
                    else:
                        places.append(worker.place)
                    yield worker.job, message
                else:
                    show(worker.job, message)
    finally:
        stop([*busy.values(), *resting])


class Worker:
    """A process that runs one trial after the other.

    Args:
        place: Its number, counted from 0, by which GPUs are shared out.
        threads: Threads it computes with.
    """

    job: Job

    def __init__(self, place: int, threads: int) -> None:
        self.place = place
        self.started = False
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=serve, args=(theirs, threads), name=f"worker {place}")
        try:
            with inherited(threads):
                self.process.start()
        except BaseException:  # such as Ctrl-C meanwhile
            if self.process.pid is not None:
                stop([self])
            raise
        theirs.close()  # so that the pipe ends when the process does

    def take(self, job: Job) -> None:
        """Give it a trial to run.

        Args:
            job: The trial.
        """
        self.job = job
        setting = replace(job.setting, device=shared_out(job.setting.device, self.place))
        with contextlib.suppress(OSError):  # it is dead, as hearing from it will show
            self.pipe.send(described(replace(job, setting=setting)))

    def hear(self) -> Event | Outcome:
        """Receive what it sends next; waits for it.

        Returns:
            What its trial tells, or the trial's outcome.

        Raises:
            ExperimentError: If the process died before it could take a trial.
        """
        try:
            message = self.pipe.recv()
            self.started = True
            return message
        except (EOFError, OSError):
            self.process.join()
            self.pipe.close()
        code = self.process.exitcode or 0
        end = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        if not self.started:
            raise ExperimentError(
                f"a worker process ended {end} before it could begin; a script that calls main() must be a file and "
                "call it under `if __name__ == '__main__':`; --workers 1 runs trials without further processes"
            )
        memory = "; the system kills so when memory runs out: try fewer --workers" if code == -9 else ""
        reason = f"its process ended {end}{memory}"
        return Failure(reason, f"{reason}\nThe same command goes on with the trial after its last finished task.")


def stop(workers: list[Worker]) -> None:
    """End processes, whatever they are doing.

    Args:
        workers: The processes.
    """
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.process.join(10)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.pipe.close()


def serve(pipe: Connection, threads: int) -> None:
    """Run trials in a worker process until the pipe ends.

    Args:
        pipe: Brings jobs; takes what they tell, what they print, and their outcomes.
        threads: Threads torch computes with.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent sees to it
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    with contextlib.suppress(EOFError, OSError):  # the parent was killed
        pipe.send(Said(""))  # it could start
        while True:
            sent = pipe.recv_bytes()
            try:
                job = pickle.loads(sent)
            except Exception as error:  # a function that cannot be imported here, for one
                pipe.send(Failure.of(error))
                continue
            pipe.send(attempt_elsewhere(job, pipe.send))


def end_with_parent() -> None:
    """End this process as soon as its parent is gone, killed perhaps, whatever the trial is busy with."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


class Output(io.TextIOBase):
    """Takes what a worker prints, and tells it by lines, for the parent knows where on the terminal there is room.

    Args:
        tell: Told of every line.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._line = ""

    def writable(self) -> bool:
        """Say that text can be written.

        Returns:
            True.
        """
        return True

    def write(self, text: str) -> int:
        """Take text.

        Args:
            text: The text.

        Returns:
            Its length.
        """
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._tell(Said(line))
        return len(text)

    def finish(self) -> None:
        """Tell what stands on the last line."""
        if self._line:
            self._tell(Said(self._line))
        self._line = ""


@contextlib.contextmanager
def inherited(threads: int) -> Iterator[None]:
    """Let processes started inside inherit a number of threads, and no part in Ctrl-C while they start.

    Args:
        threads: Threads that numerical libraries use.

    Yields:
        None.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    masked = hasattr(signal, "pthread_sigmask")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if masked else set()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if masked:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def available_cores() -> int:
    """Count the processor cores this process may use.

    Returns:
        Their number.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def shared_out(device: str, place: int) -> str:
    """Share GPUs out among workers.

    Args:
        device: A torch device; ``cuda`` stands for all visible GPUs.
        place: The worker's number.

    Returns:
        The worker's device.
    """
    count = torch.cuda.device_count() if device == "cuda" else 0
    return f"cuda:{place % count}" if count > 1 else device

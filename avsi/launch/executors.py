"""Where trials run: in this process or in processes of their own. Ray's is in ``avsi.launch.on_ray``."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol

import cloudpickle

from avsi.experiment.events import Event, Said, Tell
from avsi.experiment.spec import ExperimentError
from avsi.experiment.trial import Setting, Trial

NOT_GUARDED = 70  # exit code of a process whose script calls main() when it is imported
START_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PROCESSES: Any = multiprocessing.get_context(START_METHOD)  # a fork of this one can use neither CUDA nor threads


@dataclass(frozen=True)
class Job:
    """A trial to run.

    Attributes:
        trial: The trial.
        setting: Device, data and logs.
        checkpoint: Where the trial's state after each finished task is kept, None for nowhere.
    """

    trial: Trial
    setting: Setting
    checkpoint: Path | None

    def __str__(self) -> str:
        return str(self.trial)


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

        Returns:
            The failure.
        """
        reason = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
        return cls(reason, "".join(traceback.format_exception(error)))


Outcome = dict[str, Any] | Failure
"""A trial's result, as JSON data, or why there is none."""

Show = Callable[[Job, Event], None]
"""Shows what a running trial tells."""


class Executor(Protocol):
    """Runs trials. As a context it holds what it needs for that; leaving it stops what still runs."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *exception: Any) -> None: ...

    @property
    def has_room(self) -> bool:
        """Whether a trial could begin at once."""
        ...

    def submit(self, job: Job) -> None:
        """Begin a trial; to be called where there is room."""

    def finished(self, timeout: float | None) -> Iterator[tuple[Job, Outcome]]:
        """Wait for trials to end, so many seconds at most or, for None, until one has; yield those that did."""
        ...


def _attempt(job: Job, tell: Tell) -> Outcome:
    # Run a trial, come what may.
    try:
        from avsi.experiment.progress import TrialProgress  # loads Avalanche

        return job.trial.run(job.setting, TrialProgress(tell), job.checkpoint)
    except Exception as error:
        return Failure.of(error)


def attempt_elsewhere(payload: bytes, tell: Tell) -> Outcome:
    """Run a pickled job in another process than the one that has the terminal, telling what the trial prints too.

    Returns:
        Its outcome.
    """
    output = _Output(tell)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            job = pickle.loads(payload)
            if job.checkpoint is not None and not job.checkpoint.parent.is_dir():  # made before: so it is not shared
                job = replace(job, checkpoint=None)
            return _attempt(job, tell)
    except Exception as error:  # a function that cannot be imported here, for one
        return Failure.of(error)
    finally:
        output.finish()


class InThisProcess:
    """Runs one trial after the other in this process.

    Args:
        show: Shows their progress.
        threads: Threads torch computes with, None for its default.
    """

    def __init__(self, show: Show, threads: int | None = None) -> None:
        self._show, self._threads = show, threads
        self._job: Job | None = None

    def __enter__(self) -> InThisProcess:
        import torch

        self._before = torch.get_num_threads()
        return self

    def __exit__(self, *exception: Any) -> None:
        import torch

        torch.set_num_threads(self._before)

    @property
    def has_room(self) -> bool:
        """Whether no trial waits to be run."""
        return self._job is None

    def submit(self, job: Job) -> None:
        """Let a trial be the next."""
        self._job = job

    def finished(self, timeout: float | None) -> Iterator[tuple[Job, Outcome]]:
        """Run the trial that was submitted.

        Yields:
            Its outcome.
        """
        import torch

        job, self._job = self._job, None
        if job is not None:
            torch.set_num_threads(self._threads or self._before)  # a resumed trial may have changed it
            yield job, _attempt(job, lambda event: self._show(job, event))


class InProcesses:
    """Runs each trial in a local process of its own.

    A process that dies, whatever it is doing, takes only its own trial with it. Where there is a fork server, processes
    begin with everything imported. The device ``cuda`` stands for all visible GPUs here, which the trials share out
    among themselves.

    Args:
        show: Shows their progress.
        workers: Number of trials at a time.
        threads: Threads each computes with; None for an equal share of the processor's cores, so that they do not get
            into each other's way, and not more than torch would use by itself.
    """

    def __init__(self, show: Show, workers: int, threads: int | None = None) -> None:
        self._show, self._workers, self._threads = show, workers, threads
        self._running: dict[Any, tuple[Job, int, Any]] = {}  # by the pipe that it tells through
        self._not_sent: list[tuple[Job, Outcome]] = []

    def __enter__(self) -> InProcesses:
        import torch

        self._threads = self._threads or max(1, min(torch.get_num_threads(), _available_cores() // self._workers))
        PROCESSES.set_forkserver_preload(["avsi.experiment.running"])
        return self

    def __exit__(self, *exception: Any) -> None:
        processes = [process for _, _, process in self._running.values()]
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()
        self._running.clear()

    @property
    def has_room(self) -> bool:
        """Whether fewer trials run than may."""
        return len(self._running) < self._workers

    def submit(self, job: Job) -> None:
        """Begin a trial."""
        place = min(set(range(self._workers)) - {place for _, place, _ in self._running.values()})
        setting = replace(job.setting, device=_shared_out(job.setting.device, place))
        try:
            payload = cloudpickle.dumps(replace(job, setting=setting))
        except Exception as error:
            self._not_sent.append((job, Failure.of(error)))
            return
        ours, theirs = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=_work, args=(theirs, payload, self._threads), name=str(job))
        with _inherited(self._threads or 1):
            process.start()
            self._running[ours] = job, place, process
        theirs.close()  # so that the pipe ends when the process does

    def finished(self, timeout: float | None) -> Iterator[tuple[Job, Outcome]]:
        """Wait for trials to end, showing what they tell.

        Yields:
            Their outcomes.
        """
        while self._not_sent:
            yield self._not_sent.pop()
        ready: list[Any] = wait(list(self._running), timeout) if self._running else []
        for pipe in ready:
            job, _, process = self._running[pipe]
            try:
                message: Any = pipe.recv()
            except (EOFError, OSError):
                process.join()
                message = _died(process.exitcode or 0)
            if isinstance(message, dict | Failure):
                process.join()
                pipe.close()
                del self._running[pipe]
                yield job, message
            else:
                self._show(job, message)


def _died(code: int) -> Failure:
    # Say how a process ended that gave no outcome.
    if code == NOT_GUARDED:
        raise ExperimentError(
            "a worker process runs the script anew; a script that calls main() must be a file and call it under "
            "`if __name__ == '__main__':`; --workers 1 runs trials without further processes"
        )
    end = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    memory = "; the system kills so when memory runs out: try fewer --workers" if code == -9 else ""
    reason = f"its process ended {end}{memory}"
    return Failure(reason, f"{reason}\nThe same command goes on with the trial after its last finished task.")


def _work(pipe: Any, payload: bytes, threads: int) -> None:
    # Run a trial in a process of its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent sees to it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    with contextlib.suppress(OSError):  # the parent was killed
        pipe.send(attempt_elsewhere(payload, pipe.send))


def _end_with_parent() -> None:
    # End this process as soon as its parent is gone, killed perhaps, whatever the trial is busy with.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


class _Output(io.TextIOBase):
    """Takes what a trial prints, and tells it by lines, for the parent knows where on the terminal there is room."""

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
def _inherited(threads: int) -> Iterator[None]:
    # Let processes started inside inherit a number of threads, and no part in Ctrl-C while they start.
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


def _available_cores() -> int:
    # Count the processor cores this process may use.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _shared_out(device: str, place: int) -> str:
    # Share GPUs out among processes.
    import torch

    count = torch.cuda.device_count() if device == "cuda" else 0
    return f"cuda:{place % count}" if count > 1 else device

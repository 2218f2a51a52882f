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
from functools import partial
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
class Failure:
    """Why a trial failed: in one line, and with all that is known."""

    reason: str
    details: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an exception."""
        reason = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
        return cls(reason, "".join(traceback.format_exception(error)))


Outcome = dict[str, Any] | Failure
"""A trial's result, as JSON data, or why there is none."""

Show = Callable[[str, Event], None]
"""Shows what a trial, given by its name, tells."""


@dataclass(frozen=True)
class Job:
    """A trial to run, and the file of its checkpoint: None for nowhere."""

    trial: Trial
    setting: Setting
    checkpoint: Path | None

    def __str__(self) -> str:
        return str(self.trial)

    def run(self, threads: int, tell: Tell) -> Outcome:
        """Run the trial with so many threads, come what may."""
        try:
            import torch

            from avsi.experiment.progress import TrialProgress  # loads Avalanche

            torch.set_num_threads(threads)
            return self.trial.run(self.setting, TrialProgress(tell), self.checkpoint)
        except Exception as error:
            return Failure.of(error)


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

    def finished(self, show: Show, timeout: float | None) -> Iterator[tuple[Job, Outcome]]:
        """Show what trials tell for so many seconds or, for None, until one ends; yield those that did."""
        ...


class InThisProcess:
    """Runs one trial after the other in this process, with so many threads; None for torch's default."""

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads
        self._jobs: list[Job] = []

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
        return not self._jobs

    def submit(self, job: Job) -> None:
        """Let a trial be the next."""
        self._jobs.append(job)

    def finished(self, show: Show, timeout: float | None) -> Iterator[tuple[Job, Outcome]]:
        """Run the trial that was submitted, and yield it."""
        job = self._jobs.pop()
        yield job, job.run(self._threads or self._before, partial(show, str(job)))


class InProcesses:
    """Runs each trial in a local process of its own, so many at a time.

    A process that dies, whatever it is doing, takes only its own trial with it. Where there is a fork server, processes
    begin with everything imported. By default they share out the threads that torch would use by itself. The device
    ``cuda`` stands for all visible GPUs, which they share out too.
    """

    def __init__(self, workers: int, threads: int | None = None) -> None:
        self._workers, self._threads = workers, threads
        self._places = list(range(workers))  # that are free
        self._running: dict[Any, tuple[Job, int, Any]] = {}  # by the pipe that it tells through

    def __enter__(self) -> InProcesses:
        import torch

        self._threads = self._threads or max(1, torch.get_num_threads() // self._workers)
        PROCESSES.set_forkserver_preload(["avsi.experiment.running"])
        return self

    def __exit__(self, *exception: Any) -> None:
        processes = [process for _, _, process in self._running.values()]
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(10)
            process.kill()
            process.join()

    @property
    def has_room(self) -> bool:
        """Whether fewer trials run than may."""
        return bool(self._places)

    def submit(self, job: Job) -> None:
        """Begin a trial."""
        place = self._places[0]
        setting = replace(job.setting, device=_shared_out(job.setting.device, place))
        payload = cloudpickle.dumps(replace(job, setting=setting))
        ours, theirs = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=_work, args=(theirs, payload, self._threads), name=str(job))
        with _ctrl_c_waits():
            process.start()
            self._running[ours] = job, self._places.pop(0), process
        theirs.close()  # so that the pipe ends when the process does

    def finished(self, show: Show, timeout: float | None) -> Iterator[tuple[Job, Outcome]]:
        """Show what trials tell, and yield those that ended."""
        ready: list[Any] = wait(list(self._running), timeout)
        for pipe in ready:
            job, place, process = self._running[pipe]
            try:
                message: Any = pipe.recv()
            except (EOFError, OSError):
                process.join()
                message = _died(process.exitcode)
            if isinstance(message, dict | Failure):
                process.join()
                pipe.close()
                del self._running[pipe]
                self._places.append(place)
                yield job, message
            else:
                show(str(job), message)


def _died(code: int) -> Failure:
    """Say how a process ended that gave no outcome."""
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
    """Run a trial in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent sees to it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(OSError):  # the parent was killed
        pipe.send(run_elsewhere(payload, threads, pipe.send))


def run_elsewhere(payload: bytes, threads: int, tell: Tell) -> Outcome:
    """Run a pickled job in another process than the one that has the terminal, telling what it prints too."""
    with _Output(tell) as output, contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            job = pickle.loads(payload)
        except Exception as error:  # a function that cannot be imported here, for one
            return Failure.of(error)
        if job.checkpoint is not None and not job.checkpoint.parent.is_dir():  # made before: so it is not shared
            job = replace(job, checkpoint=None)
        return job.run(threads, tell)


def _end_with_parent() -> None:
    """End this process as soon as its parent has, killed perhaps, whatever the trial is busy with."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


class _Output(io.StringIO):
    """Tells by lines what a trial prints, for only the parent knows where on the terminal there is room."""

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell, self._line = tell, ""

    def write(self, text: str) -> int:
        """Tell the lines that this ends."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._tell(Said(line))
        return len(text)

    def close(self) -> None:
        """Tell what stands on the last line."""
        if self._line:
            self.write("\n")
        super().close()


@contextlib.contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Let Ctrl-C come after what is inside, and never to the processes that are started there."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _shared_out(device: str, place: int) -> str:
    """Share GPUs out among processes."""
    import torch

    count = torch.cuda.device_count() if device == "cuda" else 0
    return f"cuda:{place % count}" if count > 1 else device

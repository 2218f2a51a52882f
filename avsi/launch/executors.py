"""Where trials run: in this process or in processes of their own. Ray's is in ``avsi.launch.on_ray``.

An executor is called with a job and returns its outcome, after as long as the trial takes. Those that have ``workers``
are called from so many threads at a time, and end what still runs when they are told to stop.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol

import cloudpickle

from avsi.experiment.events import Said, Tell
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


@dataclass(frozen=True)
class Job:
    """A trial to run, and the file of its checkpoint: None for nowhere."""

    trial: Trial
    setting: Setting
    checkpoint: Path | None

    def run(self, threads: int, tell: Tell) -> Outcome:
        """Run the trial with so many threads, come what may."""
        try:
            import torch

            from avsi.experiment.progress import TrialProgress  # loads Avalanche

            torch.set_num_threads(threads)
            return self.trial.run(self.setting, TrialProgress(tell), self.checkpoint)
        except (Exception, SystemExit) as error:  # of a user's own code
            return Failure.of(error)


class Executor(Protocol):
    """Runs trials, so many ``workers`` at a time, each in a call from a thread of its own; with 0 in the main one."""

    workers: int

    def __call__(self, job: Job, tell: Tell) -> Outcome:
        """Run a trial, passing on what it tells."""
        ...

    def stop(self) -> None:
        """End what still runs, for good."""


class InThisProcess:
    """Runs one trial after the other in this process, with so many threads; None for torch's default."""

    workers = 0

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads

    def __call__(self, job: Job, tell: Tell) -> Outcome:
        """Run a trial."""
        import torch

        before = torch.get_num_threads()
        try:
            return job.run(self._threads or before, tell)
        finally:
            torch.set_num_threads(before)

    def stop(self) -> None:
        """Nothing runs between two calls."""


class InProcesses:
    """Runs each trial in a local process of its own, so many at a time.

    A process that dies, whatever it is doing, takes only its own trial with it. Where there is a fork server, processes
    begin with everything imported. By default they share out the threads that torch would use by itself. The device
    ``cuda`` stands for all visible GPUs, which they share out too.
    """

    def __init__(self, workers: int, threads: int | None = None) -> None:
        import torch

        script = getattr(sys.modules["__main__"], "__file__", None) or ""
        if script.startswith("<"):  # Python's name of what is no file: "<stdin>"
            raise ExperimentError(
                f"worker processes import the script, and this one is {script}, not a file: save it as one, or run "
                "trials without further processes with --workers 1"
            )
        self.workers = workers
        self._threads = threads or max(1, torch.get_num_threads() // workers)
        self._places = list(range(workers))  # that are free
        self._running: list[Any] = []
        self._stopped = False
        self._lock = threading.Lock()  # starting or joining a process looks at others that have ended
        PROCESSES.set_forkserver_preload(["avsi.experiment.running"])

    def __call__(self, job: Job, tell: Tell) -> Outcome:
        """Run a trial."""
        place = self._places.pop()
        try:
            setting = replace(job.setting, device=_shared_out(job.setting.device, place))
            payload = cloudpickle.dumps(replace(job, setting=setting))
            pipe, theirs = PROCESSES.Pipe(duplex=False)
            process = PROCESSES.Process(target=_work, args=(theirs, payload, self._threads))
            with theirs, self._lock:  # once this end is closed too, recv raises EOFError when the process dies
                process.start()
                self._running.append(process)
                if self._stopped:
                    process.kill()
            message: Any = None
            with pipe, contextlib.suppress(EOFError, OSError):
                while not isinstance(message := pipe.recv(), dict | Failure):
                    tell(message)
            wait([process.sentinel])
            with self._lock:
                process.join()
                self._running.remove(process)
            return message if isinstance(message, dict | Failure) else _died(process.exitcode)
        finally:
            self._places.append(place)

    def stop(self) -> None:
        """End all processes."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()


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
    return Failure(reason, f"{reason}\nThe same command resumes the trial after its last finished task.")


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


def _shared_out(device: str, place: int) -> str:
    """Share GPUs out among processes."""
    import torch

    count = torch.cuda.device_count() if device == "cuda" else 0
    return f"cuda:{place % count}" if count > 1 else device

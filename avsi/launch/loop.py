"""Running the trials that are not finished, beside other runs on the same results folder."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from pathlib import Path

from avsi.experiment.spec import ExperimentError
from avsi.experiment.trial import Setting, Trial
from avsi.launch.display import Display, Verbosity
from avsi.launch.executors import Executor, Failure, Job
from avsi.results import store

PAUSE = 1.0  # seconds between looks at trials that another run has claimed
MANY = 20  # trials of which it is worth saying how to run fewer


class Loop:
    """Runs trials and writes their results into a folder, as often as it is called; a sweep does so again and again.

    It gets ready what trials are run with, an executor and a setting, when the first is to be run. With ``rerun``
    trials are run from their beginning, finished or not; an old result stays until there is a new one. It keeps the
    names of the trials that failed.
    """

    def __init__(
        self,
        root: Path,
        prepare: Callable[[Trial], tuple[Executor, Setting]],
        *,
        rerun: bool = False,
        tensorboard: bool = False,
        verbosity: Verbosity = "normal",
    ) -> None:
        self.root, self.rerun, self.tensorboard, self.verbosity = root.absolute(), rerun, tensorboard, verbosity
        self.failures: list[str] = []
        self._prepare = prepare
        self._ready: tuple[Executor, Setting] | None = None
        self._stopped = False

    def __call__(self, trials: Iterable[Trial], fewer: str = "", describe: Callable[[], object] = lambda: None) -> None:
        """Run those trials that are not finished, each once; where they are many, say how to run fewer.

        Before the first of them is run they are described, so that reports can be made while they run.
        """
        trials = list({trial.file: trial for trial in trials}.values())
        pending = [trial for trial in trials if self.rerun or not self._is_finished(trial)]
        if not pending:
            return
        display = Display(len(pending), self.verbosity)
        count = f"{len(pending)} trial{'s' * (len(pending) != 1)} to run, {len(trials) - len(pending)} finished"
        display.say(f"{trials[0].experiment.title}: {count}")
        if fewer and len(pending) > MANY:
            display.say(fewer)
        executor, setting = self._ready = self._ready or self._prepare(pending[0])
        describe()
        run = partial(self._run_one, executor, setting, display)
        try:
            with display:
                waiting = self._run(pending, run, executor)
                # It is waited for the other run; what that does not finish is run here.
                if waiting:
                    display.say(f"waiting for trials that another run has claimed: {len(waiting)}")
                while waiting:
                    time.sleep(PAUSE)
                    waiting = self._run(waiting, run, executor)
        finally:
            display.summarise()
            self.failures += display.failures

    def _is_finished(self, trial: Trial) -> bool:
        """Look for a trial's result; what a killed process left beside it is deleted."""
        path = self.root / trial.file
        if store.read_trial(path) is None:
            return False
        checkpoint = checkpoint_path(path)
        if checkpoint.exists() or any(path.parent.glob(f".{path.stem}.*")):
            lock = store.claim(path)
            if lock is not None:  # else another run is at it
                checkpoint.unlink(missing_ok=True)
                store.release(path, lock)
        return True

    def _run(self, trials: Sequence[Trial], run: Callable[[Trial], bool], executor: Executor) -> list[Trial]:
        """Run trials; return those that another run has claimed."""
        if not executor.workers:
            return [trial for trial in trials if not run(trial)]
        with ThreadPoolExecutor(executor.workers, initializer=_leave_ctrl_c_to_the_main_thread) as pool:
            try:
                pending = {pool.submit(run, trial): trial for trial in trials}
                left: list[Trial] = []
                while pending:  # not all at once: on Windows Ctrl-C is heard in between
                    for future in wait(pending, PAUSE, FIRST_COMPLETED).done:
                        trial = pending.pop(future)
                        left += [] if future.result() else [trial]
                return left
            except BaseException:
                self._stopped = True
                pool.shutdown(wait=False, cancel_futures=True)
                executor.stop()
                raise

    def _run_one(self, executor: Executor, setting: Setting, display: Display, trial: Trial) -> bool:
        """Run a trial, unless another run has claimed it, and write its result; say whether it is done with."""
        path = self.root / trial.file
        lock = store.claim(path)
        if lock is None:
            return False
        try:
            checkpoint, log = checkpoint_path(path), path.with_name(f"tensorboard-{trial.seed:03d}")
            finished = not self.rerun and store.read_trial(path) is not None  # another run has done it meanwhile
            if finished or self.rerun:
                checkpoint.unlink(missing_ok=True)
            if finished:
                display.forget()
                return True
            if self.tensorboard and not checkpoint.exists():  # an earlier attempt's log would be drawn over the new one
                shutil.rmtree(log, ignore_errors=True)
            job = Job(trial, replace(setting, tensorboard=log if self.tensorboard else None), checkpoint)
            display.start(str(trial))
            try:
                outcome = executor(job, partial(display.show, str(trial)))
                if isinstance(outcome, dict):
                    store.write_trial(path, outcome)
                    checkpoint.unlink(missing_ok=True)  # not before the result is on the disk
            except ExperimentError:
                raise
            except Exception as error:  # what cannot be sent to another process, a full disk, a result with NaN
                outcome = Failure.of(error)
            if not self._stopped:
                display.end(str(trial), outcome)
            return True
        finally:
            store.release(path, lock)


def _leave_ctrl_c_to_the_main_thread() -> None:
    """Never let Ctrl-C come to this thread, nor to the processes that it starts."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def checkpoint_path(result: Path) -> Path:
    """Name the checkpoint that belongs to a result's file."""
    return result.with_suffix(".checkpoint")

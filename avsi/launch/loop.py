"""Running the trials that are not finished, beside other runs on the same results folder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from avsi.experiment.trial import Setting, Trial
from avsi.launch.display import Display
from avsi.launch.executors import Executor, Failure, Job, Outcome
from avsi.results import store

PAUSE = 1.0  # seconds between looks at trials that another run has in hand


class Loop:
    """Runs trials and writes their results; as a context it holds the executor, and the trials that it has in hand.

    Those to be rerun are run from their beginning, finished or not; an old result stays until there is a new one.
    """

    def __init__(
        self, executor: Executor, root: Path, setting: Setting, *, rerun: bool = False, tensorboard: bool = False
    ) -> None:
        self.executor, self.root, self.setting = executor, root, setting
        self.rerun, self.tensorboard = rerun, tensorboard
        self._held: dict[Path, Any] = {}

    def __enter__(self) -> Loop:
        self.executor.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        try:
            self.executor.__exit__(*exception)
        finally:  # not before: what still runs here is nobody else's to take up
            for lock in self._held.values():
                lock.release()

    def run(self, trials: Iterable[Trial], display: Display) -> None:
        """Run trials; one that fails is shown and leaves the others alone.

        Trials that another run has in hand are left to it. At the end it is waited for them, and those it did not
        finish are run here.
        """
        waiting, told = list(trials), False
        while waiting or self._held:
            for trial in list(waiting):
                if not self.executor.has_room:
                    break
                lock = store.claim(self.root / trial.file)
                if lock is not None:
                    self._held[trial.file] = lock
                    waiting.remove(trial)
                    self._begin(trial, display)
            if self._held:
                pause = PAUSE if waiting and self.executor.has_room else None
                for job, outcome in self.executor.finished(display.show, pause):
                    self._settle(job.trial, outcome, display)
            elif waiting:
                if not told:
                    display.say(f"waiting for trials that another run has in hand: {len(waiting)}")
                told = True
                time.sleep(PAUSE)

    def _begin(self, trial: Trial, display: Display) -> None:
        """Hand a trial to the executor, unless another run has finished it meanwhile."""
        path = self.root / trial.file
        checkpoint, log = checkpoint_path(path), path.with_name(f"tensorboard-{trial.seed:03d}")
        finished = not self.rerun and store.read_trial(path) is not None
        if finished or self.rerun:
            discard_checkpoint(checkpoint)
        if finished:
            store.release(path, self._held.pop(trial.file))
            display.forget()
            return
        if self.tensorboard and not checkpoint.exists():  # an earlier attempt's log would be drawn over the new one
            shutil.rmtree(log, ignore_errors=True)
        display.start(str(trial))
        try:
            setting = replace(self.setting, tensorboard=log if self.tensorboard else None)
            self.executor.submit(Job(trial, setting, checkpoint))
        except Exception as error:  # what cannot be sent to another process
            self._settle(trial, Failure.of(error), display)

    def _settle(self, trial: Trial, outcome: Outcome, display: Display) -> None:
        """Write a trial's result, show how it ended, and let go of it."""
        path = self.root / trial.file
        if isinstance(outcome, dict):
            try:
                store.write_trial(path, outcome)
                discard_checkpoint(checkpoint_path(path))  # not before the result is on the disk
            except Exception as error:  # a full disk, a result that is not a number
                outcome = Failure.of(error)
        store.release(path, self._held.pop(trial.file))
        if isinstance(outcome, Failure):
            display.fail(str(trial), outcome.reason, outcome.details)
        elif outcome["status"] == "diverged":
            display.diverge(str(trial), outcome["divergence"])
        else:
            display.finish(str(trial), outcome["accuracy"], outcome["wall_time_s"])


def unfinished(trials: Iterable[Trial], root: Path) -> list[Trial]:
    """Find the trials without a result; what a killed process left beside a result is deleted."""
    found = []
    for trial in trials:
        path = root / trial.file
        checkpoint = checkpoint_path(path)
        if store.read_trial(path) is None:
            found.append(trial)
        elif checkpoint.exists() or any(path.parent.glob(f".{path.stem}.*")):
            lock = store.claim(path)
            if lock is not None:  # else another run is at it
                discard_checkpoint(checkpoint)
                store.release(path, lock)
    return found


def checkpoint_path(result: Path) -> Path:
    """Name the checkpoint that belongs to a result's file."""
    return result.with_suffix(".checkpoint")


def discard_checkpoint(path: Path) -> None:
    """Delete a trial's checkpoint, if there is one."""
    path.unlink(missing_ok=True)

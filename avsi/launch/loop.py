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


def run_trials(
    trials: Iterable[Trial],
    root: Path,
    setting: Setting,
    executor: Executor,
    display: Display,
    *,
    rerun: bool = False,
    tensorboard: bool = False,
) -> None:
    """Run trials and write their results; a trial's failure is shown and leaves the others alone.

    Trials that another run has in hand are left to it. At the end it is waited for them, and those it did not finish
    are run here. A finished trial's checkpoint, which is left where a process was killed just before it would have
    deleted it, is deleted.

    Args:
        trials: The trials.
        root: The results folder.
        setting: Device and data.
        executor: Runs the trials.
        display: Shows progress and failures.
        rerun: Run finished trials too, and all from their beginning. An old result stays until there is a new one.
        tensorboard: Write TensorBoard logs beside each trial's result.
    """
    waiting, told = list(trials), False
    held: dict[Path, Any] = {}

    def begin(trial: Trial) -> None:
        path = root / trial.file
        checkpoint, log = checkpoint_path(path), path.with_name(f"tensorboard-{trial.seed:03d}")
        finished = not rerun and store.read_trial(path) is not None
        if finished or rerun:
            discard_checkpoint(checkpoint)
        if finished:
            store.release(path, held.pop(trial.file))
            display.forget()
            return
        if tensorboard and not checkpoint.exists():  # an earlier attempt's log would be drawn over the new one
            shutil.rmtree(log, ignore_errors=True)
        display.start(str(trial))
        executor.submit(Job(trial, replace(setting, tensorboard=log if tensorboard else None), checkpoint))

    def settle(trial: Trial, outcome: Outcome) -> None:
        path = root / trial.file
        if isinstance(outcome, dict):
            try:
                store.write_trial(path, outcome)
                discard_checkpoint(checkpoint_path(path))  # not before the result is on the disk
            except Exception as error:  # a full disk, a result that is not a number
                outcome = Failure.of(error)
        store.release(path, held.pop(trial.file))
        if isinstance(outcome, Failure):
            display.fail(str(trial), outcome.reason, outcome.details)
        elif outcome["status"] == "diverged":
            display.diverge(str(trial), outcome["divergence"])
        else:
            display.finish(str(trial), outcome["accuracy"], outcome["wall_time_s"])

    try:
        with executor:
            while waiting or held:
                for trial in list(waiting):
                    if not executor.has_room:
                        break
                    lock = store.claim(root / trial.file)
                    if lock is not None:
                        held[trial.file] = lock
                        waiting.remove(trial)
                        begin(trial)
                if held:
                    for job, outcome in executor.finished(PAUSE if waiting and executor.has_room else None):
                        settle(job.trial, outcome)
                elif waiting:
                    if not told:
                        display.say(f"waiting for trials that another run has in hand: {len(waiting)}")
                    told = True
                    time.sleep(PAUSE)
    finally:
        for lock in held.values():
            lock.release()


def tidy(root: Path, trials: Iterable[Trial]) -> None:
    """Delete what a killed process left of trials that have a result: checkpoints, locks, parts of files.

    Args:
        root: The results folder.
        trials: The trials.
    """
    for trial in trials:
        path = root / trial.file
        checkpoint = checkpoint_path(path)
        if path.exists() and (checkpoint.exists() or any(path.parent.glob(f".{path.stem}.*"))):
            lock = store.claim(path)
            if lock is not None:  # else another run is at it
                discard_checkpoint(checkpoint)
                store.release(path, lock)


def checkpoint_path(result: Path) -> Path:
    """Name the checkpoint that belongs to a result file.

    Args:
        result: The result's path, ``<folder>/seed-NNN.json``.

    Returns:
        ``<folder>/seed-NNN.checkpoint``.
    """
    return result.with_suffix(".checkpoint")


def discard_checkpoint(path: Path) -> None:
    """Delete a trial's checkpoint, if there is one.

    Args:
        path: The checkpoint's path.
    """
    path.unlink(missing_ok=True)

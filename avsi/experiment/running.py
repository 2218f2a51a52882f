"""Running the trials that are not finished, beside other runs on the same results folder."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from filelock import BaseFileLock

from avsi.data import DataError
from avsi.experiment.checkpoint import checkpoint_path, discard_checkpoint
from avsi.experiment.engines import Engine, Failure, Job, Outcome
from avsi.experiment.progress import Display
from avsi.experiment.results import Results
from avsi.experiment.spec import Experiment, Method
from avsi.experiment.trial import Setting

PAUSE = 1.0  # seconds between looks at trials that another run has in hand


def run_trials(
    experiment: Experiment,
    trials: Sequence[tuple[Method, int]],
    results: Results,
    setting: Setting,
    engine: Engine,
    display: Display,
    *,
    rerun: bool = False,
    tensorboard: bool = False,
) -> None:
    """Run trials and write their results; a trial's failure is shown and leaves the others alone.

    Trials that another run has in hand are left to it. At the end it is waited for them, and those it did not finish
    are run here.

    Args:
        experiment: The experiment.
        trials: Methods and seeds.
        results: Where results go. Finished trials found there are not run.
        setting: Device and data.
        engine: Runs the trials.
        display: Shows progress and failures.
        rerun: Run finished trials too, and all from their beginning. An old result stays until there is a new one.
        tensorboard: Write TensorBoard logs beside each trial's result.
    """
    pending = list(trials)
    held: dict[tuple[str, int], BaseFileLock] = {}

    def release(method: Method, seed: int) -> None:
        results.release(experiment, method, seed, held.pop((method.name, seed)))

    def jobs() -> Iterator[Job]:
        for method, seed in list(pending):
            lock = results.claim(experiment, method, seed)
            if lock is None:
                continue
            held[method.name, seed] = lock
            pending.remove((method, seed))
            path = results.path(experiment, method, seed).absolute()
            checkpoint, log = checkpoint_path(path), path.with_name(f"tensorboard-{seed:03d}")
            finished = not rerun and results.read(experiment, method, seed) is not None
            if finished or rerun:
                discard_checkpoint(checkpoint)
            if finished:
                release(method, seed)
                display.forget()
                continue
            if tensorboard and not checkpoint.exists():  # an earlier attempt's log would be drawn over the new one
                shutil.rmtree(log, ignore_errors=True)
            job = Job(experiment, method, seed, replace(setting, tensorboard=log if tensorboard else None), checkpoint)
            display.start(job.name)
            yield job

    def settle(job: Job, outcome: Outcome) -> None:
        if isinstance(outcome, dict):
            try:
                path = results.write(experiment, job.method, outcome)
                discard_checkpoint(checkpoint_path(path))
            except Exception as error:  # a full disk, a result that is not a number
                outcome = Failure.of(error)
        release(job.method, job.seed)
        if isinstance(outcome, Failure):
            display.fail(job.name, outcome.reason, outcome.details)
        else:
            display.finish(job.name, outcome["accuracy"], outcome["wall_time_s"])

    waiting = False
    try:
        while pending:
            before = len(pending)
            with contextlib.closing(engine(jobs(), lambda job, event: display.show(job.name, event))) as outcomes:
                for job, outcome in outcomes:
                    settle(job, outcome)
            if len(pending) == before:
                if not waiting:
                    display.say(f"waiting for trials that another run has in hand: {len(pending)}")
                waiting = True
                time.sleep(PAUSE)
    finally:
        for lock in held.values():
            lock.release()


def prepare_data(experiment: Experiment, setting: Setting, seed: int) -> None:
    """Obtain the data sets once, before many processes ask for them, and before any work is lost.

    Args:
        experiment: The experiment.
        setting: Where the data are.
        seed: Any seed.

    Raises:
        DataError: If a data set cannot be had.
    """
    try:
        experiment.scenario(seed=seed, dataset_root=setting.data_root, download=setting.download)
    except DataError:
        raise
    except Exception:  # the trials will meet it, and report it with its traceback
        return

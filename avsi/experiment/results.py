"""The results folder: one JSON file per finished trial, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import BaseFileLock, FileLock, Timeout

from avsi.experiment.spec import Experiment, ExperimentError, Method

SCHEMA = 1
REQUIRED = {"seed", "accuracy", "bwt", "task_accuracy", "accuracy_matrix", "data"}


class Results:
    """Finished trials below one folder: ``<experiment>/<method>-<digest>/seed-<seed>.json``.

    The digest is that of the trial's description without the seed, so that trials of another protocol or with other
    hyper-parameters never mix.

    Args:
        folder: The folder; made if missing.

    Raises:
        ExperimentError: If the folder cannot be made or written to.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        probe = self.folder / f".probe-{uuid4().hex}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise ExperimentError(
                f"cannot write to the results folder {self.folder} ({error.strerror}); choose another with --out"
            ) from error

    def trial_folder(self, experiment: Experiment, method: Method) -> Path:
        """Name the folder of a method's trials.

        Args:
            experiment: The experiment.
            method: The method.

        Returns:
            The folder, which need not exist.
        """
        return self.folder / experiment.name / f"{method.trial_name}-{experiment.digest(method)}"

    def path(self, experiment: Experiment, method: Method, seed: int) -> Path:
        """Name a trial's file.

        Args:
            experiment: The experiment.
            method: The method.
            seed: The seed.

        Returns:
            The file, which need not exist.
        """
        return trial_file(self.trial_folder(experiment, method), seed)

    def read(self, experiment: Experiment, method: Method, seed: int) -> dict[str, Any] | None:
        """Read a finished trial.

        Args:
            experiment: The experiment.
            method: The method.
            seed: The seed.

        Returns:
            The trial's result, or None if it is not finished.

        Raises:
            ExperimentError: If the file is there but is not a trial's result.
        """
        path = self.path(experiment, method, seed)
        try:
            result = json.loads(path.read_text())
            readable = isinstance(result, dict) and result.get("schema") == SCHEMA and result.keys() >= REQUIRED
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ExperimentError(
                f"cannot read the result {path} ({error}); delete it to run the trial again"
            ) from error
        if not readable:
            raise ExperimentError(f"{path} is not a whole result of schema {SCHEMA}; delete it to run the trial again")
        return result

    def write(self, experiment: Experiment, method: Method, result: dict[str, Any]) -> Path:
        """Write a finished trial, whole or not at all.

        Args:
            experiment: The experiment.
            method: The method.
            result: The result.

        Returns:
            The file.
        """
        path = self.path(experiment, method, result["seed"])
        write_json(path, {"schema": SCHEMA} | result)
        return path

    def claim(self, experiment: Experiment, method: Method, seed: int) -> BaseFileLock | None:
        """Take a trial in hand, so that no other run does. A process that dies lets go of its trials.

        Args:
            experiment: The experiment.
            method: The method.
            seed: The seed.

        Returns:
            What to give to :meth:`release`; None if another run has the trial in hand.

        Raises:
            ExperimentError: If the file system lets nothing be written or locked.
        """
        path = self.path(experiment, method, seed)
        lock = FileLock(path.with_name(f".{path.stem}.lock"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            return None
        except (OSError, NotImplementedError) as error:
            message = f"cannot lock {lock.lock_file} ({error}); choose another folder with --out"
            raise ExperimentError(message) from error
        return lock

    def release(self, experiment: Experiment, method: Method, seed: int, lock: BaseFileLock) -> None:
        """Let go of a trial. Once it is finished, no hidden file of it stays.

        Args:
            experiment: The experiment.
            method: The method.
            seed: The seed.
            lock: From :meth:`claim`.
        """
        path = self.path(experiment, method, seed)
        # Two runs can hold a lock whose file is removed, but only where there is a result, for the second to find.
        if path.exists():
            for hidden in path.parent.glob(f".{path.stem}.*"):
                with contextlib.suppress(OSError):  # Windows removes no open file
                    hidden.unlink()
        lock.release()


def trial_file(folder: Path, seed: int) -> Path:
    """Name a trial's file.

    Args:
        folder: The folder of a method's trials.
        seed: The seed.

    Returns:
        The file, which need not exist.
    """
    return folder / f"seed-{seed:03d}.json"


def write_json(path: Path, data: Any) -> None:
    """Write JSON data, whole or not at all.

    Args:
        path: The file; its folder is made if missing.
        data: JSON data without NaN.
    """
    write_text(path, json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Args:
        path: The file; its folder is made if missing.
        text: Its new content.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Args:
        path: The file; its folder is made if missing.
        content: Its new content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)

"""The results folder: where trials are, writing them, and reading them whatever else lies there.

    ROOT/<experiment>/experiment.json                    titles, labels, what the paper reports: see write_experiment
    ROOT/<experiment>/<method>-<digest>/seed-NNN.json    a trial: see write_trial

Nothing of the rest of the package is needed here: whoever runs trials gives their names. Files are regular files or
they are not read: links and pipes in a results folder are not followed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from avsi.files import write_bytes, write_json

SCHEMA = 1
EXPERIMENT = "experiment"  # the stem of an experiment's file
LARGEST = 256 * 2**20  # bytes of a file; a trial of ten tasks has less than one megabyte


class ResultsError(ValueError):
    """A results folder or a file in it cannot be used; the message names it and says how to mend it."""


def prepare(root: Path) -> Path:
    """Make a results folder, and see that it can be written to.

    Args:
        root: The results folder; made if missing.

    Returns:
        The folder.

    Raises:
        ResultsError: If the folder cannot be made or written to.
    """
    try:
        probe = root / f".probe-{os.getpid()}"
        write_bytes(probe, b"")
        probe.unlink()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ResultsError(
            f"cannot write to the results folder {root} ({reason}); choose another with --out"
        ) from error
    return root


def trial_folder(root: Path, experiment: str, method: str, digest: str) -> Path:
    """Name the folder of a method's trials.

    Args:
        root: The results folder.
        experiment: The experiment's name.
        method: The method's name.
        digest: Fingerprint of the trials' description without the seed: trials of another protocol or with other
            hyper-parameters never mix.

    Returns:
        The folder, which need not exist.

    A name that leads out of the results folder is a ResultsError.

    Example:
        >>> trial_folder(Path("results"), "split_mnist", "si", "4ffe13e32f").as_posix()
        'results/split_mnist/si-4ffe13e32f'
    """
    return root / _inside(experiment) / _inside(f"{method}-{digest}")


def trial_file(folder: Path, seed: int) -> Path:
    """Return the name of a trial's file, which need not exist, in the folder of its method."""
    return folder / f"seed-{seed:03d}.json"


def _is_inside(name: str) -> bool:
    return bool(name) and not name.startswith(".") and not any(mark in name for mark in "/\\\0")


def _inside(name: str) -> str:
    if not _is_inside(name):
        raise ResultsError(f"{name[:80]!r} cannot name a folder of results: no name starts with a dot or has a slash")
    return name


def write_trial(path: Path, result: Mapping[str, Any]) -> None:
    """Write a finished trial, whole or not at all.

    Args:
        path: The trial's file.
        result: JSON data. Accuracies are fractions. Needed are ``seed``, ``accuracy``, ``bwt``, ``task_accuracy`` (a
            value a task, final model), ``accuracy_matrix`` (tasks, tasks) and ``data`` (see
            ``avsi.experiment.provenance``); the matrix and ``bwt`` are None where tasks are not learned one after the
            other. ``method`` and ``digest`` must be those of the folder. Shown where they are there:
            ``validation_accuracy``, ``train_accuracy`` (as ``task_accuracy``), ``class_accuracy`` and ``class_images``
            (a list for each task: final test accuracy on each class, its number of training images),
            ``validation_error``, ``description``, ``environment``, ``notes``, ``started``, ``wall_time_s``, and
            ``code`` (fingerprint of the package that ran it). ``status`` is ``finished`` (default) or ``diverged``;
            then accuracies are None and ``divergence`` holds ``task``, ``epoch``, ``step``, ``cause`` and
            ``stable_strength``.
    """
    write_json(path, {"schema": SCHEMA} | dict(result))


def read_trial(path: Path) -> dict[str, Any] | None:
    """Read a finished trial and check what tables and figures are made of.

    Args:
        path: The trial's file.

    Returns:
        The result; None if there is no such file.

    Raises:
        ResultsError: If the file is not a whole result of this folder's method and this seed.
    """
    if not os.path.lexists(path):
        return None
    trial = read_json(path)
    fault = _fault(trial, path)
    if fault:
        raise ResultsError(f"{path} is damaged ({fault}); delete it and run its script again")
    return trial


def write_experiment(root: Path, content: Mapping[str, Any], suffix: str = "") -> Path:
    """Write what presentation needs and trials lack.

    Args:
        root: The results folder.
        content: JSON data: ``name``, ``title``, ``source``, ``protocol``, ``deviation`` (how the protocol differs from
            the published one; "" if it does not), and ``methods``, for each ``name``, ``label``, ``regime``,
            ``folder`` (of its trials, see :func:`trial_folder`), ``reported`` (``accuracy`` and ``tasks`` in percent,
            ``bwt`` a fraction) and ``candidate_of``; if known ``command``, the command that ran it.
        suffix: Ends the names of this experiment's files: "" for the published protocol, such as "-1-epochs" for
            a changed one.

    Returns:
        The file.
    """
    path = root / _inside(content["name"]) / f"{EXPERIMENT}{suffix}.json"
    write_json(path, {"schema": SCHEMA} | dict(content))
    return path


def claim(path: Path) -> BaseFileLock | None:
    """Take a trial in hand, so that no other run does. A process that dies lets go of its trials.

    Args:
        path: The trial's file.

    Returns:
        What to give to :func:`release`; None if another run has the trial in hand.

    Raises:
        ResultsError: If the file system lets nothing be written or locked.
    """
    lock = FileLock(path.with_name(f".{path.stem}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except (OSError, NotImplementedError) as error:
        raise ResultsError(f"cannot lock {lock.lock_file} ({error}); choose another folder with --out") from error
    return lock


def release(path: Path, lock: BaseFileLock) -> None:
    """Let go of a trial. Once it is finished, no hidden file of it stays.

    Args:
        path: The trial's file.
        lock: From :func:`claim`.
    """
    # Two runs can hold a lock whose file is removed, but only where there is a result, for the second to find.
    if path.exists():
        for hidden in path.parent.glob(f".{path.stem}.*"):
            with contextlib.suppress(OSError):  # Windows removes no open file
                hidden.unlink()
    lock.release()


def read_bytes(path: Path) -> bytes:
    """Read a regular file; links and pipes are not followed.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        ResultsError: If it is missing, not a regular file, too large, or cannot be read.
    """
    # What becomes a link or a pipe after the look at it is neither followed nor waited for.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        regular = stat.S_ISREG(os.lstat(path).st_mode)
        with os.fdopen(os.open(path, flags), "rb") if regular else io.BytesIO() as file:
            content = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise ResultsError(f"cannot read {_short(path)} ({getattr(error, 'strerror', None) or error})") from error
    if not regular or len(content) > LARGEST:
        raise ResultsError(f"{path} is {'too large' if regular else 'a link, a folder or a device'}; delete it")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of this schema.

    Args:
        path: The file.

    Returns:
        The content.

    Raises:
        ResultsError: If it cannot be read or is of another schema.
    """
    raw = read_bytes(path)
    try:
        content = json.loads(raw.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{path} is damaged ({error}); delete it and run its script again") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ResultsError(f"{path} is not a file of schema {SCHEMA}; delete it and run its script again")
    return content


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _short(value: object, limit: int = 300) -> str:
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


Check = Callable[[Any], bool]


def _number(low: float, high: float) -> Check:  # a truth value is none, and NaN is in no range
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _optional(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _listed(check: Check, least: int = 0) -> Check:
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(check, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


_fraction = _number(0, 1)
_percent = _number(0, 100)
CHECKS: dict[str, Check] = {
    "status": lambda value: value in ("finished", "diverged"),
    "accuracy": _optional(_fraction),
    "bwt": _optional(_number(-1, 1)),
    "forgetting": _optional(_number(-1, 1)),
    "validation_accuracy": _optional(_fraction),
    "task_accuracy": _optional(_listed(_fraction, 1)),
    "accuracy_matrix": _optional(_listed(_listed(_fraction, 1), 1)),
    "train_accuracy": _optional(_listed(_optional(_fraction))),
    "class_accuracy": _optional(_listed(_listed(_optional(_fraction)))),
    "class_images": _optional(_listed(_listed(_number(0, 1e12)))),
    "validation_error": _optional(_listed(_listed(_optional(_fraction)))),
    "divergence": _optional(_is_object),
    "description": _is_object,
    "environment": _is_object,
    "data": _listed(_is_object),
    "notes": _listed(_is_text),
    "code": _optional(_is_text),
    "digest": _is_text,
    "started": _is_text,
    "wall_time_s": _optional(_number(0, 1e12)),
}
"""How the values of a trial's file are checked, where they are there."""

METHOD: dict[str, Check] = {
    "name": _is_text,
    "label": _is_text,
    "regime": lambda value: value in ("sequential", "independent", "joint"),
    "folder": lambda value: _is_text(value) and _is_inside(value),
    "candidate_of": _is_text,
    "reported": lambda value: (
        _is_object(value)
        and _optional(_percent)(value.get("accuracy"))
        and _optional(_number(-1, 1))(value.get("bwt"))
        and _listed(_percent)(value.get("tasks"))
    ),
    "settings": _optional(_is_object),
    "published": _optional(_is_object),
    "seeds": _optional(_listed(_number(0, 2**32))),
}
"""How the values of a method in an experiment's file are checked. All must be there, but for those of a sweep:
``settings`` and ``published`` (values by parameter) and ``seeds`` (of the trials that count)."""

REQUIRED = ("seed", "accuracy", "bwt", "task_accuracy", "accuracy_matrix", "data")


def _fault(trial: dict[str, Any], path: Path) -> str:
    missing = [key for key in REQUIRED if key not in trial]
    if missing:
        return f"no {', '.join(missing)}"
    if type(trial["seed"]) is not int or path.name != f"seed-{trial['seed']:03d}.json":
        return f"it is of seed {_short(trial['seed'], 20)}"
    method, _, digest = path.parent.name.rpartition("-")
    for key, name in (("method", method), ("digest", digest)):
        if trial.get(key, name) != name:
            return f"it is of {key} {_short(trial[key], 80)}"
    wrong = [key for key, check in CHECKS.items() if key in trial and not check(trial[key])]
    if wrong:
        return f"{', '.join(wrong)}: no such value can be"
    if trial.get("status") == "diverged":
        return ""
    tasks, matrix = trial["task_accuracy"], trial["accuracy_matrix"]
    if trial["accuracy"] is None or tasks is None:
        return "no accuracies"
    if matrix is not None and [len(row) for row in matrix] != [len(tasks)] * len(tasks):
        return "its accuracy matrix is not one row and one column for each task"
    for key in ("train_accuracy", "class_accuracy", "class_images"):
        if trial.get(key) and len(trial[key]) != len(tasks):
            return f"{key} is not one entry for each task"
    accuracies, images = trial.get("class_accuracy") or [], trial.get("class_images") or []
    if accuracies and images and [len(row) for row in accuracies] != [len(row) for row in images]:
        return "class_accuracy and class_images are not of the same classes"
    return ""

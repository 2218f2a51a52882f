"""The results folder: where trials are, writing them, and reading them whatever else lies there.

    ROOT/<experiment>/experiment.json                    titles, labels, what the paper reports: see METHOD
    ROOT/<experiment>/<method>-<digest>/seed-NNN.json    a trial: see TRIAL

Nothing of the rest of the package is needed here: whoever runs trials gives their names. Files are regular files or
they are not read: links and pipes in a results folder are not followed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from avsi.files import write_bytes, write_json

SCHEMA = 1
EXPERIMENT = "experiment"  # the stem of an experiment's file
LARGEST = 256 * 2**20  # bytes of a file; a trial of ten tasks has less than one megabyte
LONGEST = 120  # characters of a title or label

# A shape is a type, a range of numbers (least, most), a pattern of texts, a list of a shape ([shape, None] where items
# may be unknown), or a mapping of shapes by key. None is as good as a missing value.
FRACTION, SIGNED, PERCENT, POSITIVE = (0, 1), (-1, 1), (0, 100), (0, 1e12)
NAME = re.compile(r"[^./\\\0][^/\\\0]*")  # of a folder that leads nowhere else

TRIAL: dict[str, Any] = {
    "seed": int,
    "method": str,  # with the digest the name of the trial's folder
    "digest": str,  # fingerprint of the description without the seed: trials of different protocols never mix
    "status": re.compile("finished|diverged"),  # default: finished
    "accuracy": FRACTION,  # None, as the others, where the trial diverged
    "bwt": SIGNED,  # None, as the matrix, where tasks are not learned one after the other
    "forgetting": SIGNED,
    "task_accuracy": [FRACTION],  # final model
    "accuracy_matrix": [[FRACTION]],  # (tasks trained, tasks)
    "validation_accuracy": FRACTION,
    "train_accuracy": [FRACTION, None],  # by task
    "class_accuracy": [[FRACTION, None]],  # by task and class, final model
    "class_images": [[POSITIVE]],  # training images of these classes
    "validation_error": [[FRACTION, None]],
    "divergence": dict,  # task, epoch, step, cause and stable_strength
    "description": dict,
    "environment": dict,
    "data": [dict],  # name, split, fingerprint, images, published, complete, source
    "notes": [str],
    "code": str,  # fingerprint of the package that ran the trial
    "started": str,
    "wall_time_s": POSITIVE,
}
"""What a trial's file may hold."""

REQUIRED = ("seed", "accuracy", "bwt", "task_accuracy", "accuracy_matrix", "data")

METHOD: dict[str, Any] = {
    "name": str,
    "label": str,
    "regime": re.compile("sequential|independent|joint"),
    "folder": NAME,
    "candidate_of": str,  # the method whose strength was chosen among candidates, of which this is one; or ""
    "reported": {"accuracy": PERCENT, "bwt": SIGNED, "tasks": [PERCENT]},  # by the paper
    "settings": dict,  # of a sweep: values by parameter
    "published": dict,  # the script's own values of these parameters
    "seeds": [(0, 2**32)],  # of the trials that count; default: all
}
"""What an experiment's file may hold of each of its ``methods``.

Beside them stand its name, title, source, protocol, deviation ("" for the published protocol) and command.
"""


class ResultsError(ValueError):
    """A results folder or a file in it cannot be used; the message names it and says how to mend it."""


def reason(error: Exception) -> str:
    """Say why a file cannot be used, without its name."""
    return str(getattr(error, "strerror", None) or error)


def plain(value: object, limit: int = LONGEST) -> str:
    """Make one short line of a text from a file: no control characters, no marks that turn text around."""
    text = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in str(value)[: 4 * limit])
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def prepare(root: Path) -> Path:
    """Make a results folder, see that it can be written to, and return it."""
    probe = root / f".probe-{os.getpid()}"
    try:
        write_bytes(probe, b"")
        probe.unlink()
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"cannot write to the results folder {root} ({reason(error)}); choose another with --out"
        ) from error
    return root


def trial_folder(root: Path, experiment: str, method: str, digest: str) -> Path:
    """Name the folder of a method's trials, which need not exist; a name that leads elsewhere is a ResultsError."""
    return root / _inside(experiment) / _inside(f"{method}-{digest}")


def trial_file(folder: Path, seed: int) -> Path:
    """Name a trial's file, which need not exist, in the folder of its method."""
    return folder / f"seed-{seed:03d}.json"


def _inside(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ResultsError(f"{name[:80]!r} cannot name a folder of results: no name starts with a dot or has a slash")
    return name


def write_trial(path: Path, result: Mapping[str, Any]) -> None:
    """Write a finished trial (see TRIAL), whole or not at all."""
    write_json(path, {"schema": SCHEMA} | dict(result))


def write_experiment(root: Path, content: Mapping[str, Any], suffix: str = "") -> Path:
    """Write what presentation needs and trials lack (see METHOD); a changed protocol has files with a suffix."""
    path = root / _inside(content["name"]) / f"{EXPERIMENT}{suffix}.json"
    write_json(path, {"schema": SCHEMA} | dict(content))
    return path


def claim(path: Path) -> BaseFileLock | None:
    """Take a trial in hand, as a lock for :func:`release`; None if another run has it. A dead process lets go."""
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
    """Let go of a trial. Once it is finished, no hidden file of it stays."""
    # Two runs can hold a lock whose file is removed, but only where there is a result, for the second to find.
    if path.exists():
        for hidden in path.parent.glob(f".{path.stem}.*"):
            with contextlib.suppress(OSError):  # Windows removes no open file
                hidden.unlink()
    lock.release()


def read_bytes(path: Path) -> bytes:
    """Read a regular file; what becomes a link or a pipe after the look at it is neither followed nor waited for."""
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise OSError("it is a link, a folder or a device; delete it")
        with open(path, "rb", opener=lambda name, mode: os.open(name, mode | flags)) as file:
            content = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise ResultsError(f"cannot read {plain(path, 300)} ({reason(error)})") from error
    if len(content) > LARGEST:
        raise ResultsError(f"{path} is too large; delete it")
    return content


def read_text(path: Path) -> str:
    """Read a regular file of text in UTF-8."""
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise _damaged(path, str(error)) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of this schema."""
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise _damaged(path, f"it is not of schema {SCHEMA}")
    return content


def _damaged(path: Path, fault: str) -> ResultsError:
    return ResultsError(f"{path} is damaged ({fault}); delete it and run its script again")


def read_trial(path: Path) -> dict[str, Any] | None:
    """Read a finished trial and check what tables and figures are made of; None if there is no such file."""
    if not os.path.lexists(path):
        return None
    trial = read_json(path)
    fault = _fault(trial, path)
    if fault:
        raise _damaged(path, fault)
    return trial


def faults(content: Mapping[str, Any], shapes: Mapping[str, Any], needed: Iterable[str] = ()) -> list[str]:
    """Name the values that have not their shape; only those that are needed must be there."""
    given = {key: content.get(key) for key in shapes if key in needed or content.get(key) is not None}
    return [key for key, value in given.items() if not _fits(value, shapes[key])]


def _fits(value: Any, shape: Any) -> bool:
    if isinstance(shape, list):
        return type(value) is list and all(_fits(v, shape[0]) or (v is None and None in shape) for v in value)
    if isinstance(shape, tuple):  # NaN is in no range
        return type(value) in {int, float} and shape[0] <= value <= shape[1]
    if isinstance(shape, re.Pattern):
        return type(value) is str and shape.fullmatch(value) is not None
    if isinstance(shape, dict):
        return type(value) is dict and not faults(value, shape)
    return type(value) is shape


def _fault(trial: dict[str, Any], path: Path) -> str:
    """Say what is wrong with a trial of a file; "" if nothing is."""
    missing = [key for key in REQUIRED if key not in trial]
    if missing:
        return f"no {', '.join(missing)}"
    wrong = faults(trial, TRIAL, ("seed", "data"))
    if wrong:
        return f"{', '.join(wrong)}: no such value can be"
    method, _, digest = path.parent.name.rpartition("-")
    if path.name != trial_file(path.parent, trial["seed"]).name:
        return f"it is of seed {plain(trial['seed'], 80)}"
    for key, name in (("method", method), ("digest", digest)):
        if trial.get(key, name) != name:
            return f"it is of {key} {plain(trial[key], 80)}"
    if trial.get("status") == "diverged":
        return ""
    tasks, matrix = trial["task_accuracy"], trial["accuracy_matrix"]
    if trial["accuracy"] is None or not tasks:
        return "no accuracies"
    if matrix is not None and [len(row) for row in matrix] != [len(tasks)] * len(tasks):
        return "its accuracy matrix is not one row and one column for each task"
    by_task = {key: trial.get(key) or [] for key in ("train_accuracy", "class_accuracy", "class_images")}
    for key, values in by_task.items():
        if values and len(values) != len(tasks):
            return f"{key} is not one entry for each task"
    counts = [[len(row) for row in by_task[key]] for key in ("class_accuracy", "class_images") if by_task[key]]
    if counts[1:] and counts[0] != counts[1]:
        return "class_accuracy and class_images are not of the same classes"
    return ""

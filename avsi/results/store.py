"""The results folder: where trials are, writing them, and reading them whatever else lies there.

    ROOT/<experiment>/experiment.json                    titles, labels, what the paper reports: see STUDY
    ROOT/<experiment>/<method>-<digest>/seed-NNN.json    a trial: see TRIAL

Whoever runs trials gives their names. Files are regular files or
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
from statistics import fmean
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from avsi.experiment.trial import trial_file
from avsi.files import write_bytes, write_json

SCHEMA = 1
EXPERIMENT = "experiment"  # the stem of an experiment's file
MAX_BYTES = 256 * 2**20  # bytes of a file; a trial of ten tasks has less than one megabyte
MAX_TEXT = 480  # characters of a text
ROUNDING = 1e-6  # by which a mean that a trial has may differ from its parts
MAX_DEPTH = 50  # levels of lists and objects in a file

# A shape is a type, a range of numbers (least, most), a pattern of texts, a list of a shape ([shape, None] where items
# may be unknown), or a mapping of shapes by key. None is as good as a missing value.
FRACTION, SIGNED, PERCENT, POSITIVE = (0, 1), (-1, 1), (0, 100), (0, 1e12)

TRIAL: dict[str, Any] = {
    "seed": int,
    "method": str,  # with the digest the name of the trial's folder
    "digest": str,  # fingerprint of the description without the seed: trials of different protocols never mix
    "status": re.compile("finished|diverged"),  # default: finished
    "accuracy": FRACTION,  # None, as the others, where the trial diverged
    "bwt": SIGNED,  # None, as the matrix, where tasks are not learned one after the other, or have no test set each
    "forgetting": SIGNED,
    "task_accuracy": [FRACTION],  # final model
    "accuracy_matrix": [[FRACTION]],  # (tasks trained, tasks)
    "validation_accuracy": FRACTION,
    "train_accuracy": [FRACTION, None],  # by task
    "class_accuracy": [[FRACTION, None]],  # by task and class, final model
    "class_images": [[POSITIVE]],  # training images of these classes
    "validation_error": [[FRACTION, None]],
    "hebbian_dynamics": dict,  # of a DHP layer: steps, and lists of eta and norms
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

STUDY: dict[str, Any] = dict.fromkeys(("title", "source", "protocol", "deviation", "command"), str) | {"methods": list}
"""What an experiment's file may hold. The deviation is "" for the published protocol."""

METHOD: dict[str, Any] = {
    "name": str,
    "label": str,
    "regime": re.compile("sequential|independent|joint"),
    "folder": str,
    "candidate_of": str,  # the method whose strength was chosen among candidates, of which this is one; or ""
    "reported": {"accuracy": PERCENT, "bwt": SIGNED, "tasks": [PERCENT]},  # by the paper
    "settings": dict,  # of a sweep: values by parameter
    "published": dict,  # the script's own values of these parameters
    "seeds": [(0, 2**32)],  # of the trials that count; default: all
}
"""What an experiment's file may hold of each of its methods."""


class ResultsError(ValueError):
    """A results folder or a file in it cannot be used; the message names it and says how to mend it."""


def reason(error: Exception) -> str:
    """Say why a file cannot be used, without its name."""
    return str(getattr(error, "strerror", None) or error)


def harmless(value: Any, depth: int = 0) -> Any:
    """Give JSON data back with short printable lines for texts, and None for numbers that cannot be drawn."""
    if depth > MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} levels of lists and objects")
    if isinstance(value, str):
        # No control characters, no marks that turn text around.
        text = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in value[: 4 * MAX_TEXT])
        text = " ".join(text.split())
        return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."
    if isinstance(value, list):
        return [harmless(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {harmless(key): harmless(item, depth + 1) for key, item in value.items()}
    largest = 1e300 if isinstance(value, float) else 2**63
    return None if isinstance(value, int | float) and not abs(value) < largest else value


def prepare(root: Path) -> Path:
    """Make a results folder, ~ being the user's, see that it can be written to, and return it."""
    root = root.expanduser()
    probe = root / f".probe-{os.getpid()}"
    try:
        write_bytes(probe, b"")
        probe.unlink()
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"cannot write to the results folder {root} ({reason(error)}); choose another with --out"
        ) from error
    return root


def write_trial(path: Path, result: Mapping[str, Any]) -> None:
    """Write a finished trial (see TRIAL), whole or not at all."""
    write_json(path, {"schema": SCHEMA} | dict(result))


def write_experiment(root: Path, content: Mapping[str, Any], suffix: str = "") -> Path:
    """Write what presentation needs and trials lack (see STUDY, METHOD); a changed protocol has files with a suffix."""
    path = root / content["name"] / f"{EXPERIMENT}{suffix}.json"
    write_json(path, {"schema": SCHEMA} | dict(content))
    return path


def claim(path: Path) -> BaseFileLock | None:
    """Claim a trial, as a lock for :func:`release`; None if another run has claimed it. A dead process lets go."""
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
    # Once the lock's file is deleted another run can lock a new one of that name while this one holds the old. That is
    # harmless: it is only deleted where there is a result, and a run looks for one after it has its lock.
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
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ResultsError(f"cannot read {path} ({reason(error)})") from error
    if len(content) > MAX_BYTES:
        raise ResultsError(f"{path} is too large; delete it")
    return content


def read_text(path: Path) -> str:
    """Read a regular file of text in UTF-8."""
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise _damaged(path, str(error)) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of this schema; its texts and numbers are made harmless, here and nowhere else."""
    text = read_text(path)
    try:
        content = harmless(json.loads(text))
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
    measured = () if trial.get("status") == "diverged" else ("accuracy", "task_accuracy")
    wrong = faults(trial, TRIAL, ("seed", "data", *measured))
    if wrong:
        return f"{', '.join(wrong)}: missing, or no such value can be"
    method, _, digest = path.parent.name.rpartition("-")
    seed = trial["seed"] if path == trial_file(path.parent, trial["seed"]) else None
    for key, value in {"seed": seed, "method": method, "digest": digest}.items():
        if trial.get(key, value) != value:
            return f"it is of {key} {trial[key]}"
    keys = ["task_accuracy", "accuracy_matrix", "class_accuracy", "class_images"]
    keys += ["train_accuracy"] if trial.get("accuracy_matrix") else []  # else there may be other tasks to train on
    by_task = [trial[key] for key in keys if trial.get(key)] + (trial.get("accuracy_matrix") or [])
    if not measured:
        return "it diverged and has accuracies" if by_task or trial.get("accuracy") is not None else ""
    if {len(values) for values in by_task} != {len(trial["task_accuracy"])}:
        return "it has not one number, row and column for each task"
    if abs(trial["accuracy"] - fmean(trial["task_accuracy"])) > ROUNDING:
        return "its accuracy is not the mean of its task_accuracy"
    return ""

"""Brings results of earlier code to today's descriptions: ``python -m avsi.experiment.migrate RESULTS``.

A trial's folder is named after the fingerprint of its description. Where a function's arguments have been renamed
since, the description of the same trial has another fingerprint, and its result would not be found. This rewrites
descriptions, fingerprints and names of folders; measurements stay as they are. What was done already is left alone.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avsi.experiment.description import Name, digest
from avsi.experiment.spec import ExperimentError
from avsi.files import write_json

NAMES: dict[str, str] = {}
"""Functions and classes that have another name now."""

ARGUMENTS: dict[str, dict[str, str]] = {
    "avsi.scenarios.permuted_mnist": {"tasks": "n_experiences"},
    "avsi.scenarios.permuted_digits": {"tasks": "n_experiences"},
    "avsi.scenarios.imbalanced_permuted_mnist": {"tasks": "n_experiences"},
}
"""Arguments that have another name now, by function."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "avsi.scenarios.mnist_background": {"backgrounds": "cifar10"},
}
"""Defaults that were in force before they were changed, by function."""


def migrated(description: Any) -> Any:
    """Bring a description to today's names.

    Example:
        >>> migrated({"call": "avsi.scenarios.permuted_mnist", "args": [], "kwargs": {"tasks": 5}})
        {'call': 'avsi.scenarios.permuted_mnist', 'args': [], 'kwargs': {'n_experiences': 5}}

    Args:
        description: What ``describe`` gave then.

    Returns:
        What it gives now.
    """
    if isinstance(description, str):
        name = NAMES.get(description, description)
        return {"call": name, "args": [], "kwargs": dict(DEFAULTS[name])} if name in DEFAULTS else name
    if isinstance(description, list):
        return [migrated(item) for item in description]
    if isinstance(description, dict):
        if description.keys() == {"call", "args", "kwargs"}:
            name = NAMES.get(str(description["call"]), str(description["call"]))
            renamed = ARGUMENTS.get(name, {})
            given = {renamed.get(key, key): migrated(value) for key, value in description["kwargs"].items()}
            return {"call": name, "args": migrated(description["args"]), "kwargs": DEFAULTS.get(name, {}) | given}
        return {key: migrated(value) for key, value in description.items()}
    return description


def check(description: Any) -> None:
    """See that the package has all that a description names.

    Args:
        description: The description.

    Raises:
        ExperimentError: If a function or class of avsi's is not there, or takes no such arguments.
    """
    if isinstance(description, str):
        _import(description)
    elif isinstance(description, list):
        for item in description:
            check(item)
    elif isinstance(description, dict) and description.keys() == {"call", "args", "kwargs"}:
        call = _import(description["call"])
        if call is not None:
            try:
                inspect.signature(call).bind_partial(*description["args"], **description["kwargs"])
            except TypeError as error:
                raise ExperimentError(f"{description['call']}: {error}") from error
        check([*description["args"], *description["kwargs"].values()])
    elif isinstance(description, dict):
        check(list(description.values()))


def _import(name: str) -> Any:
    if not name.startswith("avsi."):
        return None  # a user's own, or a library's
    try:
        return Name(*name.rsplit(".", 1)).resolve()
    except (ImportError, AttributeError) as error:
        raise ExperimentError(f"there is no {name}") from error


def migrate(root: Path) -> Iterator[str]:
    """Migrate all trials of a results folder.

    Args:
        root: The results folder.

    Yields:
        What was done, a line for each folder that was renamed.

    Raises:
        ExperimentError: If a file cannot be read, or is of what is not known; nothing is changed then.
    """
    plan: dict[Path, tuple[dict[str, Any], Path]] = {}
    for file in sorted(root.glob("*/*/seed-*.json")):
        try:
            trial = json.loads(file.read_text())
            if "code" in trial:  # of today's descriptions
                continue
            description = migrated(trial["description"])
            check(description)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ExperimentError(f"{file}: {error}; nothing was changed") from error
        new = digest(description)
        target = file.parents[1] / f"{description['method']['name']}-{new}" / file.name
        if target != file and target.exists():
            raise ExperimentError(f"{file} is the trial of {target}, which is there too; nothing was changed")
        plan[file] = trial | {"description": description, "digest": new, "code": None}, target
    renamed = {file.parent: target.parent for file, (_, target) in plan.items() if file.parent != target.parent}
    for file, (trial, target) in plan.items():
        write_json(target, trial)
        if target != file:
            file.unlink()
    for old, new_folder in renamed.items():
        for left in old.iterdir():  # logs
            left.rename(new_folder / left.name)
        old.rmdir()
        yield f"{old} is {new_folder.name} now"
    for file in {path for old in renamed for path in old.parent.glob("experiment*.json")}:
        names = {old.name: new_folder.name for old, new_folder in renamed.items() if old.parent == file.parent}
        content = json.loads(file.read_text())
        for method in content["methods"]:
            method["folder"] = names.get(method["folder"], method["folder"])
            method["digest"] = method["folder"].rpartition("-")[2]
        write_json(file, content)


def main() -> None:
    """Migrate the results folders named on the command line."""
    if not sys.argv[1:]:
        sys.exit("usage: python -m avsi.experiment.migrate RESULTS ...")
    for folder in sys.argv[1:]:
        try:
            for line in migrate(Path(folder)):
                print(line)
        except ExperimentError as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

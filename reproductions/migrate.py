"""Brings results of earlier code to today's descriptions: ``python reproductions/migrate.py RESULTS ...``.

A trial's folder is named after the fingerprint of its description. Where a function's arguments have been renamed
since, the description of the same trial has another fingerprint, and its result would not be found. This rewrites
descriptions, fingerprints and names of folders; measurements stay as they are. What was done already is left alone.
"""

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avsi.experiment import ExperimentError
from avsi.experiment.description import Name, digest
from avsi.files import write_json

ARGUMENTS = {
    "avsi.scenarios.permuted_mnist": {"tasks": "n_experiences"},
    "avsi.scenarios.permuted_digits": {"tasks": "n_experiences"},
    "avsi.scenarios.imbalanced_permuted_mnist": {"tasks": "n_experiences"},
}
"""Arguments that have another name now, by function."""

DEFAULTS = {"avsi.scenarios.mnist_background": {"backgrounds": "cifar10"}}
"""Defaults that were in force before they were changed, by function."""

CALL = {"call", "args", "kwargs"}


def migrated(description: Any) -> Any:
    """Bring a description to today's names, and see that the package has them: an ExperimentError where it has not."""
    match description:
        case str(name) if name in DEFAULTS:
            return migrated({"call": name, "args": [], "kwargs": {}})
        case str(name):
            _imported(name)
        case list(items):
            return [migrated(item) for item in items]
        case {"call": str(name), "args": args, "kwargs": kwargs} if description.keys() == CALL:
            renamed = ARGUMENTS.get(name, {})
            given = {renamed.get(key, key): migrated(value) for key, value in kwargs.items()}
            new = {"call": name, "args": migrated(args), "kwargs": DEFAULTS.get(name, {}) | given}
            try:
                inspect.signature(_imported(name)).bind_partial(*new["args"], **new["kwargs"])
            except TypeError as error:
                raise ExperimentError(f"{name}: {error}") from error
            return new
        case dict(items):
            return {key: migrated(value) for key, value in items.items()}
    return description


def _imported(name: str) -> Any:
    if not name.startswith("avsi."):
        return lambda *args, **kwargs: None  # a user's own, or a library's
    try:
        return Name(*name.rsplit(".", 1)).resolve()
    except (ImportError, AttributeError) as error:
        raise ExperimentError(f"there is no {name}") from error


def migrate(root: Path) -> Iterator[str]:
    """Migrate all trials of a results folder, all or none, and tell which of their folders have another name now."""
    plan: dict[Path, tuple[dict[str, Any], Path]] = {}
    for file in sorted(root.glob("*/*/seed-*.json")):
        try:
            trial = json.loads(file.read_text())
            if "code" in trial:  # of today's descriptions
                continue
            description = migrated(trial["description"])
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
        content = json.loads(file.read_text())
        for method in content["methods"]:
            if new_folder := renamed.get(file.parent / method["folder"]):
                method["folder"] = new_folder.name
                method["digest"] = new_folder.name.rpartition("-")[2]
        write_json(file, content)


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit(__doc__)
    try:
        for folder in sys.argv[1:]:
            for line in migrate(Path(folder)):
                print(line)
    except ExperimentError as error:
        sys.exit(f"error: {error}")

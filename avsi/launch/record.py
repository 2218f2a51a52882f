"""Writing what an experiment is beside its results: its methods, their settings and seeds, and the command."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from avsi.experiment.spec import Method
from avsi.experiment.trial import Trial
from avsi.launch.sweep import Chosen, candidate
from avsi.results import store


def write_experiment(
    chosen: Chosen, root: Path, sweep_seeds: Iterable[int], seeds: Iterable[int], command: Sequence[str]
) -> None:
    """Write what results do not say of themselves, and tables need, beside them."""
    experiment, rows = chosen.experiment, []
    for method in (*experiment.methods, *chosen.candidates, *_earlier_candidates(chosen, root)):
        trial = Trial(experiment, method, 0)
        row: dict[str, Any] = {
            "name": method.name,
            "label": method.label or method.name,
            "regime": method.regime,
            "digest": trial.digest,
            "folder": trial.folder.name,
            "reported": asdict(experiment.reported(method)),
            "candidate_of": method.candidate_of,
        }
        published = chosen.published.get(method.candidate_of or method.name)
        if published is not None:  # the method was swept
            row["settings"] = dict(method.settings)
            if method.candidate_of:
                row["seeds"] = sorted(sweep_seeds)
            else:  # all its finished trials, of earlier runs too, but those that it was chosen by
                row["seeds"] = sorted({*seeds, *_finished(root, trial)} - set(sweep_seeds))
                row["published"] = published
        rows.append(row)
    content = {key: getattr(experiment, key) for key in ("name", "title", "source", "protocol", "deviation")}
    store.write_experiment(root, content | {"methods": rows, "command": shlex.join(command)}, experiment.suffix)


def _earlier_candidates(chosen: Chosen, root: Path) -> Iterator[Method]:
    """Find what an earlier sweep of the same parameters tried."""
    experiment = chosen.experiment
    known = {Trial(experiment, method, 0).folder.name for method in chosen.candidates}
    path = root / experiment.name / f"experiment{experiment.suffix}.json"
    if not known or not path.exists():
        return
    swept = {method.name: method for method in experiment.methods}
    for row in store.read_json(path).get("methods") or ():
        method, settings = swept.get(row.get("candidate_of")), row.get("settings")
        if method and settings and row["folder"] not in known:
            values = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
            again = candidate(experiment, method, {f"{method.base_name}.{key}": values[key] for key in values})
            if Trial(experiment, again, 0).folder.name == row["folder"]:  # else the script was another then
                yield again


def _finished(root: Path, trial: Trial) -> list[int]:
    """List the seeds of a method's finished trials."""
    seeds = (path.stem.removeprefix("seed-") for path in (root / trial.file).parent.glob("seed-*.json"))
    return [int(seed) for seed in seeds if seed.isdecimal()]

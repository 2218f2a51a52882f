"""What a results folder says of an experiment: its trials, and beside them what presentation needs and they lack."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from avsi.experiment.results import REQUIRED, SCHEMA, Results, trial_file, write_json
from avsi.experiment.spec import Experiment, ExperimentError, Reported

FILE = "experiment"
TRIALS = "*/seed-*.json"


@dataclass(frozen=True)
class Outcome:
    """A method and its finished trials.

    Attributes:
        name: The method's name.
        label: How tables and figures call it.
        regime: ``sequential``, ``independent`` or ``joint``.
        folder: Name of the folder of its trials.
        reported: What the paper reports.
        candidate_of: The method whose strength was chosen among candidates, of which this is one; "" if it is none.
        trials: The trials' results, by seed.
    """

    name: str
    label: str
    regime: str
    folder: str
    reported: Reported = field(default_factory=Reported)
    candidate_of: str = ""
    trials: tuple[dict[str, Any], ...] = ()

    def values(self, key: str) -> list[float]:
        """Collect a number from every trial that has it.

        Args:
            key: Its name in the trials' files.

        Returns:
            The numbers, by seed.
        """
        return [trial[key] for trial in self.trials if trial.get(key) is not None]


@dataclass(frozen=True)
class Study:
    """An experiment as its files show it.

    Attributes:
        name: The experiment's name, which is its folder's.
        title: Heading of tables and figures.
        source: The paper's table or figure, or where the protocol comes from.
        protocol: Whose protocol it is, where a script has several.
        deviation: How the protocol differs from the published one; "" if it does not.
        suffix: Ends the names of its files, such as "-1-epochs"; "" for the published protocol.
        methods: All methods, candidates included, with or without trials.
        others: Folders of trials that belong to none of the methods.
    """

    name: str
    title: str
    source: str
    protocol: str = ""
    deviation: str = ""
    suffix: str = ""
    methods: tuple[Outcome, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """The title, with the protocol's name and what was changed in it."""
        protocol = f", protocol {self.protocol}" if self.protocol else ""
        return f"{self.title}{protocol}" + (f" ({self.deviation})" if self.deviation else "")

    @property
    def compared(self) -> list[Outcome]:
        """The methods with finished trials, without candidates."""
        return [method for method in self.methods if method.trials and not method.candidate_of]

    @property
    def trials(self) -> list[dict[str, Any]]:
        """All trials. Those that a method shares with one of its candidates are there once."""
        folders = {method.folder: method.trials for method in self.methods}
        return [trial for trials in folders.values() for trial in trials]

    def only(self, names: Sequence[str]) -> Study:
        """Leave methods out.

        Args:
            names: The methods to keep. Candidates stay with their method, and a candidate keeps its method.

        Returns:
            The smaller study.
        """
        wanted = {method.candidate_of or method.name for method in self.methods if method.name in names}
        return replace(self, methods=tuple(m for m in self.methods if (m.candidate_of or m.name) in wanted))


def write_study(experiment: Experiment, results: Results) -> Path:
    """Write what presentation needs and trials lack: titles, labels, what the paper reports, where the trials are.

    Args:
        experiment: The experiment.
        results: Where its trials are.

    Returns:
        The file: ``experiment.json`` in the experiment's folder, for a changed number of epochs another one.
    """
    content = {
        "schema": SCHEMA,
        "name": experiment.name,
        "title": experiment.title,
        "source": experiment.source,
        "protocol": experiment.protocol,
        "deviation": experiment.deviation,
        "methods": [
            {
                "name": method.name,
                "label": method.label or method.name,
                "regime": method.regime,
                "digest": experiment.digest(method),
                "folder": results.trial_folder(experiment, method).name,
                "reported": asdict(experiment.reported(method)),
                "candidate_of": method.candidate_of,
            }
            for method in experiment.methods
        ],
    }
    suffix = f"-{experiment.epochs}-epochs" if experiment.deviation else ""
    path = results.folder / experiment.name / f"{FILE}{suffix}.json"
    write_json(path, content)
    return path


def read_studies(folder: Path) -> list[Study]:
    """Read an experiment's folder.

    Args:
        folder: The folder.

    Returns:
        The study of the published protocol and those of changed ones, as far as they have trials; none if the folder is
        not an experiment's.

    Raises:
        ExperimentError: If a file is damaged, or there are trials but nothing says what they are.
    """
    files = sorted(file for file in folder.glob(f"{FILE}*.json") if re.fullmatch(rf"{FILE}(-.+)?", file.stem))
    studies = [read_study(file) for file in files]
    folders = {file.parent.name for file in folder.glob(TRIALS)}
    if folders and not studies:
        raise ExperimentError(
            f"{folder} holds trials but no {FILE}.json, which says what they are; run its script once on this "
            "results folder, which does not run finished trials again"
        )
    others = tuple(sorted(folders - {method.folder for study in studies for method in study.methods}))
    return [replace(study, others=others) for study in studies if study.trials]


def read_study(path: Path) -> Study:
    """Read an experiment and its finished trials.

    Args:
        path: Its ``experiment.json``; the trials are in folders beside it.

    Returns:
        The study.

    Raises:
        ExperimentError: If a file is damaged, or trials cannot be compared with each other; the message names the file.
    """
    content = read_json(path, {"name", "title", "source", "protocol", "deviation", "methods"}, "run its script again")
    try:
        methods = tuple(_read_method(path.parent, entry) for entry in content["methods"])
        title, source, protocol, deviation = (str(content[key]) for key in ("title", "source", "protocol", "deviation"))
    except (KeyError, TypeError) as error:
        raise ExperimentError(f"{path} is damaged ({error!r}); run its script again") from error
    lengths: dict[int, Path] = {}
    for method in methods:
        for trial in method.trials:
            lengths.setdefault(len(trial["task_accuracy"]), trial_file(path.parent / method.folder, trial["seed"]))
    if len(lengths) > 1:
        files = " and ".join(f"{file} ({tasks} tasks)" for tasks, file in lengths.items())
        raise ExperimentError(
            f"trials of different numbers of tasks cannot be compared: {files}; delete the wrong ones"
        )
    suffix = path.stem[len(FILE) :]
    return Study(path.parent.name, title, source, protocol, deviation, suffix, methods)


def _read_method(folder: Path, entry: dict[str, Any]) -> Outcome:
    reported = entry["reported"]
    trials = read_trials(folder / entry["folder"])
    if entry["regime"] == "sequential":
        for trial in trials:
            if trial["accuracy_matrix"] is None:
                file = trial_file(folder / entry["folder"], trial["seed"])
                raise ExperimentError(f"{file} is damaged (no accuracy matrix); delete it and run its script again")
    return Outcome(
        name=entry["name"],
        label=entry["label"],
        regime=entry["regime"],
        folder=entry["folder"],
        reported=Reported(reported["accuracy"], reported["bwt"], tuple(reported["tasks"])),
        candidate_of=entry["candidate_of"],
        trials=tuple(trials),
    )


def read_trials(folder: Path) -> list[dict[str, Any]]:
    """Read the finished trials in a method's folder.

    Args:
        folder: The folder, which need not exist.

    Returns:
        The results, by seed.

    Raises:
        ExperimentError: If a file is damaged; the message names it.
    """
    seeds = sorted(int(file.stem[5:]) for file in folder.glob("seed-*.json") if file.stem[5:].isdecimal())
    trials = []
    for seed in seeds:
        path = trial_file(folder, seed)
        trial = read_json(path, REQUIRED, "delete it and run its script again")
        fault = _fault(trial)
        if fault:
            raise ExperimentError(f"{path} is damaged ({fault}); delete it and run its script again")
        trials.append(trial)
    return trials


def _fault(trial: dict[str, Any]) -> str:
    """Find what is wrong with the numbers that tables and figures are made of.

    Returns:
        What is wrong; "" if nothing is.
    """
    tasks, matrix = trial["task_accuracy"], trial["accuracy_matrix"]
    rows = [tasks, [trial["accuracy"]], *(matrix or [])]
    if not all(isinstance(row, list) and row and all(_is_fraction(value) for value in row) for row in rows):
        return "accuracies that are no numbers between 0 and 1"
    if matrix is not None and [len(row) for row in matrix] != [len(tasks)] * len(tasks):
        return "its accuracy matrix is not one row and one column for each task"
    if not isinstance(trial["data"], list) or not all(isinstance(item, dict) for item in trial["data"]):
        return "no list of its data"
    return ""


def _is_fraction(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= 1


def read_json(path: Path, required: set[str], advice: str) -> dict[str, Any]:
    """Read a JSON file of this schema.

    Args:
        path: The file.
        required: Keys it must have.
        advice: How to mend it.

    Returns:
        The content.

    Raises:
        ExperimentError: If it cannot be read or is not whole.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExperimentError(f"cannot read {path} ({error}); {advice}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not content.keys() >= required:
        raise ExperimentError(f"{path} is not a whole file of schema {SCHEMA}; {advice}")
    return content

"""What a results folder says of an experiment: its methods, and their trials."""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from avsi.results.store import EXPERIMENT, METHOD, ResultsError, read_json, read_trial

LONGEST = 120  # characters of a title or label


@dataclass(frozen=True)
class Outcome:
    """A method and its trials.

    Attributes:
        name: The method's name.
        label: How tables and figures call it.
        regime: ``sequential``, ``independent`` or ``joint``.
        folder: Name of the folder of its trials.
        candidate_of: The method whose strength was chosen among candidates, of which this is one; "" if it is none.
        reported: What the paper reports: ``accuracy`` and ``tasks`` in percent, ``bwt`` as a fraction.
        trials: The trials' results, by seed.
        settings: What a sweep tried or chose, by parameter.
        published: The script's own values of these parameters, where this is what a sweep chose.
    """

    name: str
    label: str
    regime: str
    folder: str
    candidate_of: str = ""
    reported: dict[str, Any] = field(default_factory=lambda: {"accuracy": None, "bwt": None, "tasks": []})
    trials: tuple[dict[str, Any], ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    published: dict[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> list[dict[str, Any]]:
        """The trials that did not diverge."""
        return [trial for trial in self.trials if trial.get("status") != "diverged"]

    @property
    def diverged(self) -> str:
        """How many trials diverged, such as "diverged (2 of 3), stable strength 0.5"; "" for none."""
        lost = [trial.get("divergence") or {} for trial in self.trials if trial.get("status") == "diverged"]
        known = (cause.get("stable_strength") for cause in lost)
        stable = [value for value in known if isinstance(value, int | float) and 0 <= value < 1e300]
        return bool(lost) * f"diverged ({len(lost)} of {len(self.trials)})" + (
            f", stable strength {min(stable):.3g}" if stable else ""
        )

    def values(self, key: str) -> pd.Series:
        """Collect a number from every finished trial that has it.

        Args:
            key: Its name in the trials' files.

        Returns:
            The numbers, indexed by seed.
        """
        return pd.Series({t["seed"]: t[key] for t in self.finished if t.get(key) is not None}, dtype=float)

    def by_task(self, key: str = "task_accuracy") -> pd.DataFrame:
        """Collect a number for each task from every finished trial that has them.

        Args:
            key: Their name in the trials' files.

        Returns:
            A row for each seed, a column for each task, from 1.
        """
        frame = pd.DataFrame.from_dict({t["seed"]: t[key] for t in self.finished if t.get(key)}, "index", dtype=float)
        return frame.set_axis(range(1, frame.shape[1] + 1), axis="columns")


@dataclass(frozen=True)
class Study:
    """An experiment as its files show it.

    Attributes:
        folder: The experiment's folder.
        title: Heading of tables and figures.
        source: The paper's table or figure, or where the protocol comes from.
        protocol: Whose protocol it is, where a script has several.
        deviation: How the protocol differs from the published one; "" if it does not.
        command: The command that ran it, where it is known.
        suffix: Ends the names of its files, such as "-1-epochs"; "" for the published protocol.
        methods: All methods, candidates included, with or without trials.
        others: Folders of trials that belong to none of the methods.
    """

    folder: Path
    title: str
    source: str
    protocol: str = ""
    deviation: str = ""
    command: str = ""
    suffix: str = ""
    methods: tuple[Outcome, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Names the experiment's files and its section of the page."""
        return plain(f"{self.folder.name}{self.suffix}")

    @property
    def heading(self) -> str:
        """The title, with the protocol's name and what was changed in it."""
        protocol = f", protocol {self.protocol}" if self.protocol else ""
        return f"{self.title}{protocol}" + (f" ({self.deviation})" if self.deviation else "")

    @property
    def compared(self) -> list[Outcome]:
        """The methods with trials, without candidates."""
        return [method for method in self.methods if method.trials and not method.candidate_of]

    @property
    def run(self) -> list[Outcome]:
        """The methods with trials, candidates included, but for those that share another method's trials."""
        methods = [method for method in self.methods if method.trials]
        # The chosen of a sweep has its candidate's folder, and other seeds of it.
        shared = {(m.folder, *(trial["seed"] for trial in m.trials)): m for m in reversed(methods)}
        return list(shared.values())[::-1]

    @property
    def trials(self) -> list[dict[str, Any]]:
        """All trials, each once."""
        return [trial for method in self.run for trial in method.trials]

    @property
    def tasks(self) -> int:
        """Number of tasks; 0 where all trials diverged."""
        return max((len(trial["task_accuracy"]) for trial in self.trials if trial["task_accuracy"]), default=0)

    def only(self, names: Sequence[str]) -> Study:
        """Leave methods out.

        Args:
            names: The methods to keep. Candidates stay with their method, and a candidate keeps its method.

        Returns:
            The smaller study.
        """
        wanted = {method.candidate_of or method.name for method in self.methods if method.name in names}
        return replace(self, methods=tuple(m for m in self.methods if (m.candidate_of or m.name) in wanted))


def plain(value: object, limit: int = LONGEST) -> str:
    r"""Make one short line of a text from a file: no control characters, no marks that turn text around.

    Args:
        value: The text.
        limit: The most characters.

    Returns:
        The line.

    Example:
        >>> plain("SI,\x1b[31m c = 1\n")
        'SI, [31m c = 1'
    """
    text = str(value)[: 4 * limit]
    text = "".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in text)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, by name, without links and hidden ones.

    Raises:
        ResultsError: If it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(e) for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith("."))
    except OSError as error:
        raise ResultsError(f"cannot read {plain(folder)} ({error.strerror})") from error


def read_studies(folder: Path) -> tuple[list[Study], list[str]]:
    """Read an experiment's folder.

    Args:
        folder: The folder.

    Returns:
        The study of the published protocol and those of changed ones, as far as they have trials; none if the folder is
        not an experiment's. And why files are left out, a line for each.
    """
    studies, problems, read = [], [], {}
    for child in subfolders(folder):
        try:
            files = sorted(file for file in os.listdir(child) if re.fullmatch(r"seed-\d+\.json", file))
        except OSError as error:
            problems.append(f"cannot read {child} ({error.strerror})")
            continue
        trials = []
        for file in files:
            try:
                trials.append(read_trial(child / file))
            except ResultsError as error:
                problems.append(str(error))
        if files:
            read[child.name] = sorted((trial for trial in trials if trial), key=lambda trial: trial["seed"])
    known: set[str] = set()
    experiments = sorted(name for name in os.listdir(folder) if re.fullmatch(rf"{EXPERIMENT}(-.+)?\.json", name))
    for file in experiments:
        try:
            study, faults = _read_study(folder / file, read)
        except ResultsError as error:
            problems.append(str(error))
            continue
        known |= {method.folder for method in study.methods}
        studies.append(study)
        problems += faults
    if read and not experiments:
        problems.append(
            f"{folder} holds trials but no {EXPERIMENT}.json, which says what they are; run its script once on this "
            "results folder, which does not run finished trials again"
        )
    others = tuple(plain(name) for name in read if name not in known)
    return [replace(study, others=others) for study in studies if study.trials], problems


def _read_study(path: Path, read: dict[str, list[dict[str, Any]]]) -> tuple[Study, list[str]]:
    content, problems = read_json(path), []
    if not isinstance(content.get("methods"), list):
        raise ResultsError(f"{path} is damaged (no list of methods); run its script again")
    methods: dict[str, Outcome] = {}
    for index, entry in enumerate(content["methods"]):
        fault = "no object" if not isinstance(entry, dict) else ", ".join(
            key for key, check in METHOD.items() if not check(entry.get(key))
        )  # fmt: skip
        if fault or plain(entry["name"]) in methods:
            problems.append(f"{path}: method {index + 1} is left out ({fault or 'named as another one'})")
            continue
        name, label, candidate_of = (plain(entry[key]) for key in ("name", "label", "candidate_of"))
        reported = {key: entry["reported"].get(key) for key in ("accuracy", "bwt", "tasks")}
        seeds = entry.get("seeds")
        trials = [t for t in read.get(entry["folder"], []) if seeds is None or t["seed"] in seeds]
        settings, published = (
            {plain(key): value for key, value in (entry.get(part) or {}).items()} for part in ("settings", "published")
        )
        methods[name] = Outcome(
            name, label or name, entry["regime"], entry["folder"], candidate_of, reported, tuple(trials), settings,
            published,
        )  # fmt: skip
    # What most trials have decides; a trial that cannot be compared with them is left out.
    lengths = Counter(len(t["task_accuracy"]) for m in methods.values() for t in m.finished)
    tasks = lengths.most_common(1)[0][0] if lengths else 0
    for name, method in methods.items():
        kept = []
        for trial in method.trials:
            sequence = method.regime == "sequential" and trial.get("status") != "diverged"
            if trial["task_accuracy"] and len(trial["task_accuracy"]) != tasks:
                fault = f"{len(trial['task_accuracy'])} tasks instead of {tasks}"
            else:
                fault = "no accuracy matrix" if sequence and not trial["accuracy_matrix"] else ""
            if fault:
                problems.append(f"{path.parent / method.folder}, seed {trial['seed']}, is left out ({fault})")
            else:
                kept.append(trial)
        methods[name] = replace(method, trials=tuple(kept))
    title, source, protocol, deviation, command = (
        plain(content.get(key) or "", 4 * LONGEST if key in {"source", "command"} else LONGEST)
        for key in ("title", "source", "protocol", "deviation", "command")
    )
    suffix = path.stem[len(EXPERIMENT) :]
    study = Study(
        path.parent, title or plain(path.parent.name), source, protocol, deviation, command, suffix,
        tuple(methods.values()),
    )  # fmt: skip
    return study, list(dict.fromkeys(problems))


COLUMNS = (
    "experiment", "protocol", "deviation", "method", "label", "regime", "candidate_of", "seed", "status", "accuracy",
    "bwt", "validation_accuracy", "task_accuracy", "train_accuracy", "class_accuracy", "class_images",
    "accuracy_matrix", "divergence", "validation_error", "wall_time_s", "started", "code", "digest", "description",
    "environment", "file",
)  # fmt: skip


def trials(folder: str | Path) -> pd.DataFrame:
    """Read all trials of a results folder.

    A file that cannot be read is left out, with a warning that names it.

    Args:
        folder: The results folder.

    Returns:
        A row for each trial of each method. A candidate that was chosen shares its trials with its method: they are
        there under both names, with the same ``file``, and ``candidate_of`` tells them apart. Accuracies and BWT are
        fractions; ``task_accuracy`` and the like hold lists; see ``avsi.results.store.write_trial``.

    Example:
        >>> frame = trials("reproductions/results")
        >>> compared = frame[(frame.experiment == "split_mnist_zenke") & (frame.candidate_of == "")]
        >>> means = compared.groupby("method").accuracy.agg(["mean", "sem", "count"])
        >>> bool(means["mean"]["si"] > means["mean"]["finetune"])
        True
    """
    rows, problems = [], []
    for child in subfolders(Path(folder)):
        studies, faults = read_studies(child)
        problems += faults
        for study in studies:
            of_study = {"experiment": study.folder.name, "protocol": study.protocol, "deviation": study.deviation}
            for method in study.methods:
                named = {key: getattr(method, key) for key in ("label", "regime", "candidate_of")}
                for trial in method.trials:
                    file = study.folder / method.folder / f"seed-{trial['seed']:03d}.json"
                    rows.append(
                        {"status": "finished"} | trial | of_study | named | {"method": method.name, "file": file}
                    )
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    return pd.DataFrame(rows, columns=list(COLUMNS))

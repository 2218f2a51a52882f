"""What a results folder says of an experiment: its methods, and their trials."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mode
from typing import Any

import pandas as pd

from avsi.results import store
from avsi.results.store import EXPERIMENT, ResultsError, plain


@dataclass(frozen=True)
class Outcome:
    """A method (see ``avsi.results.store.METHOD``) and its trials, by seed."""

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
        stable = [cause["stable_strength"] for cause in lost if is_number(cause.get("stable_strength"))]
        told = [f"diverged ({len(lost)} of {len(self.trials)})"] if lost else []
        return ", ".join(told + ([f"stable strength {min(stable):.3g}"] if stable else []))

    def values(self, key: str) -> pd.Series:
        """Collect a number from every finished trial that has it, by seed."""
        return pd.Series({t["seed"]: t[key] for t in self.finished if t.get(key) is not None}, dtype=float)

    def by_task(self, key: str = "task_accuracy") -> pd.DataFrame:
        """Collect a number for each task (columns, from 1) from every finished trial (rows, by seed) that has them."""
        frame = pd.DataFrame.from_dict({t["seed"]: t[key] for t in self.finished if t.get(key)}, "index", dtype=float)
        return frame.set_axis(range(1, frame.shape[1] + 1), axis="columns")


def is_number(value: Any) -> bool:
    """Say whether a value of unknown type is a number that can be drawn and written."""
    return type(value) in {int, float} and abs(value) < 1e300


@dataclass(frozen=True)
class Study:
    """An experiment as its files show it: what it is called, its methods, candidates included, and foreign trials."""

    folder: Path
    title: str
    source: str
    protocol: str = ""
    deviation: str = ""
    command: str = ""
    suffix: str = ""  # ends the names of its files, such as "-1-epochs"; "" for the published protocol
    methods: tuple[Outcome, ...] = ()
    others: tuple[str, ...] = ()  # folders of trials that belong to none of the methods

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
        return max((len(trial["task_accuracy"]) for method in self.run for trial in method.finished), default=0)

    def file(self, kind: str, ending: str) -> Path:
        """Name a file that is made of the study, such as ``summary.md``."""
        return self.folder / f"{kind}{self.suffix}.{ending}"

    def trial_file(self, method: Outcome, trial: dict[str, Any]) -> Path:
        """Name the file of a method's trial."""
        return store.trial_file(self.folder / method.folder, trial["seed"])

    def only(self, names: Sequence[str]) -> Study:
        """Leave other methods out. Candidates stay with their method, and a candidate keeps its method."""
        wanted = {method.candidate_of or method.name for method in self.methods if method.name in names}
        return replace(self, methods=tuple(m for m in self.methods if (m.candidate_of or m.name) in wanted))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """List a folder, by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ResultsError(f"cannot read {plain(folder)} ({store.reason(error)})") from error


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, by name, without links and hidden ones."""
    return [Path(e) for e in _entries(folder) if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")]


def _files(folder: Path, pattern: str) -> list[Path]:
    """Return what in a folder has such a name, by name."""
    return [Path(entry) for entry in _entries(folder) if re.fullmatch(pattern, entry.name)]


@contextmanager
def left_out(problems: list[str]) -> Iterator[None]:
    """Go on without what cannot be used, and note why."""
    try:
        yield
    except (ResultsError, OSError) as error:
        problems.append(str(error))


def read_studies(folder: Path) -> tuple[list[Study], list[str]]:
    """Read an experiment's folder: a study for each of its protocols with trials, and why files are left out."""
    problems: list[str] = []
    read: dict[str, list[dict[str, Any]]] = {}
    for child in subfolders(folder):
        with left_out(problems):
            for file in _files(child, r"seed-\d+\.json"):
                of_method = read.setdefault(child.name, [])
                with left_out(problems):
                    of_method += filter(None, [store.read_trial(file)])
    studies: list[Study] = []
    experiments = _files(folder, rf"{EXPERIMENT}(-.+)?\.json")
    for file in experiments:
        with left_out(problems):
            studies.append(_read_study(file, read, problems))
    if read and not experiments:
        problems.append(
            f"{folder} holds trials but no {EXPERIMENT}.json, which says what they are; run its script once on this "
            "results folder, which does not run finished trials again"
        )
    known = {method.folder for study in studies for method in study.methods}
    others = tuple(plain(name) for name in read if name not in known)
    return [replace(study, others=others) for study in studies if study.trials], list(dict.fromkeys(problems))


def _read_study(path: Path, read: Mapping[str, list[dict[str, Any]]], problems: list[str]) -> Study:
    """Read an experiment's file; trials were read by folder, and what is left out is noted."""
    content = store.read_json(path)
    if not isinstance(content.get("methods"), list):
        raise ResultsError(f"{path} is damaged (no list of methods); run its script again")
    methods: dict[str, Outcome] = {}
    for index, entry in enumerate(content["methods"], 1):
        with left_out(problems):
            method = _make_outcome(entry, read, f"{path}: method {index}")
            if method.name in methods:
                raise ResultsError(f"{path}: method {index} is left out (named as another one)")
            methods[method.name] = method
    # What most trials have decides; a trial that cannot be compared with them is left out.
    tasks = mode([len(trial["task_accuracy"]) for method in methods.values() for trial in method.finished] or [0])
    for name, method in methods.items():
        lost = set()
        for trial in method.finished:
            unordered = method.regime == "sequential" and not trial["accuracy_matrix"]
            count = len(trial["task_accuracy"])
            if unordered or count != tasks:
                fault = "no accuracy matrix" if count == tasks else f"{count} tasks instead of {tasks}"
                problems.append(f"{path.parent / method.folder}, seed {trial['seed']}, is left out ({fault})")
                lost.add(trial["seed"])
        methods[name] = replace(method, trials=tuple(t for t in method.trials if t["seed"] not in lost))
    keys = ("title", "source", "protocol", "deviation", "command")
    texts: dict[str, Any] = {key: plain(content.get(key) or "", 4 * store.LONGEST) for key in keys}
    texts["title"] = texts["title"] or plain(path.parent.name)
    return Study(path.parent, suffix=path.stem.removeprefix(EXPERIMENT), methods=tuple(methods.values()), **texts)


def _make_outcome(entry: Any, read: Mapping[str, list[dict[str, Any]]], where: str) -> Outcome:
    """Make a method of its entry in an experiment's file and the trials of its folder."""
    needed = ("name", "label", "regime", "folder", "candidate_of", "reported")
    wrong = store.faults(entry, store.METHOD, needed) if isinstance(entry, dict) else ["no object"]
    if wrong:
        raise ResultsError(f"{where} is left out ({', '.join(wrong)})")
    seeds, reported = entry.get("seeds"), entry["reported"]
    trials = [trial for trial in read.get(entry["folder"], []) if seeds is None or trial["seed"] in seeds]
    return Outcome(
        name=plain(entry["name"]),
        label=plain(entry["label"] or entry["name"]),
        regime=entry["regime"],
        folder=entry["folder"],
        candidate_of=plain(entry["candidate_of"]),
        reported={key: reported.get(key) for key in ("accuracy", "bwt")} | {"tasks": reported.get("tasks") or []},
        trials=tuple(sorted(trials, key=lambda trial: trial["seed"])),
        settings={plain(key): value for key, value in (entry.get("settings") or {}).items()},
        published={plain(key): value for key, value in (entry.get("published") or {}).items()},
    )


ABOUT = ("experiment", "protocol", "deviation", "method", "label", "regime", "candidate_of")


def trials(folder: str | Path) -> pd.DataFrame:
    """Read all trials of a results folder.

    A file that cannot be read is left out, with a warning that names it.

    Args:
        folder: The results folder.

    Returns:
        A row for each trial of each method. A candidate that was chosen shares its trials with its method: they are
        there under both names, with the same ``file``, and ``candidate_of`` tells them apart. Accuracies and BWT are
        fractions; ``task_accuracy`` and the like hold lists; see ``avsi.results.store.TRIAL``.

    Example:
        >>> frame = trials("reproductions/results")
        >>> compared = frame[(frame.experiment == "split_mnist_zenke") & (frame.candidate_of == "")]
        >>> means = compared.groupby("method").accuracy.agg(["mean", "sem", "count"])
        >>> bool(means["mean"]["si"] > means["mean"]["finetune"])
        True
    """
    rows, problems = [], []
    for child in subfolders(Path(folder)):
        studies, of_child = read_studies(child)
        problems += of_child
        for study in studies:
            for method in study.methods:
                of_study = (study.folder.name, study.protocol, study.deviation)
                of_method = (method.name, method.label, method.regime, method.candidate_of)
                about = dict(zip(ABOUT, of_study + of_method, strict=True))
                for trial in method.trials:
                    rows.append({"status": "finished"} | trial | about | {"file": study.trial_file(method, trial)})
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    return pd.DataFrame(rows, columns=list(dict.fromkeys((*ABOUT, *store.TRIAL, "file"))))

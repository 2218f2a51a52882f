"""What a results folder says of an experiment, as two tables: its methods, and their trials."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from avsi.results import store
from avsi.results.store import EXPERIMENT, METHOD, TRIAL, ResultsError, harmless

COLUMNS = dict.fromkeys((*TRIAL, "file")) | {"status": "finished"}  # of a table of trials, with what they start as
DTYPES = dict.fromkeys([key for key, shape in TRIAL.items() if isinstance(shape, tuple)], float) | {"seed": int}
DATA = dict.fromkeys(("name", "split", "images", "published"))
MEASURES = {
    "accuracy": "accuracy_{}_percent",
    "bwt": "bwt_{}_fraction",
    "forgetting": "forgetting_{}_fraction",
    "validation_accuracy": "validation_accuracy_{}_percent",
    "train_accuracy": "train_accuracy_{}_percent",
    "paired_difference": "paired_difference_{}_percentage_points",
}
ABOUT = ("experiment", "protocol", "deviation", "method", "label", "regime", "candidate_of")


@dataclass(frozen=True)
class Study:
    """An experiment as its files show it: what it is called, its methods, candidates included, and their trials."""

    folder: Path
    methods: pd.DataFrame  # by name; see ``avsi.results.store.METHOD``
    trials: pd.DataFrame  # by method and seed, with their files; see ``avsi.results.store.TRIAL``
    title: str = ""
    source: str = ""
    protocol: str = ""
    deviation: str = ""
    command: str = ""
    suffix: str = ""  # ends the names of its files, such as "-1-epochs"; "" for the published protocol

    @property
    def name(self) -> str:
        """What it is called among all: the experiment, and what was changed."""
        return harmless(f"{self.folder.name}{self.suffix}")

    @property
    def heading(self) -> str:
        """The title, with the protocol's name and what was changed in it."""
        protocol = f", protocol {self.protocol}" if self.protocol else ""
        return f"{self.title}{protocol}" + (f" ({self.deviation})" if self.deviation else "")

    @property
    def run(self) -> pd.DataFrame:
        """The methods with trials, candidates included."""
        return self.methods[self.methods.index.isin(self.trials.index.get_level_values("method"))]

    @property
    def compared(self) -> pd.DataFrame:
        """The methods with trials, without candidates."""
        return self.run[self.run.candidate_of == ""]

    @property
    def tasks(self) -> int:
        """Number of tasks; 0 where all trials diverged."""
        return max((len(values) for values in self.trials.task_accuracy if values), default=0)

    def of(self, *methods: str) -> pd.DataFrame:
        """Choose the trials of some methods."""
        return self.trials[self.trials.index.get_level_values("method").isin(methods)]

    def by_seed(self, key: str) -> pd.DataFrame:
        """Collect a number of trials, or a list's mean: by seed (rows) and method (columns), NaN where unknown."""
        numbers = [pd.Series(value, dtype=float).mean() for value in self.trials[key]]
        return pd.Series(numbers, self.trials.index, dtype=float).unstack("method").reindex(columns=self.methods.index)

    def by_task(self, method: str, key: str = "task_accuracy") -> pd.DataFrame:
        """Collect a number for each task (columns, from 1) from a method's trials that have them (rows)."""
        rows = [values for values in self.of(method)[key] if values and len(values) == self.tasks]
        frame = pd.DataFrame(rows, dtype=float)
        return frame.set_axis(range(1, frame.shape[1] + 1), axis="columns")

    def in_sequence(self, method: str) -> bool:
        """Say whether tasks were learned one after the other, each with a test set of its own."""
        return self.methods.regime[method] == "sequential" and any(self.of(method).accuracy_matrix)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A row for each method with trials; means and standard errors (sample standard deviation / sqrt(n)).

        The paired difference is to the first method, over the seeds that both have.
        """
        methods, accuracy = self.run, self.by_seed("accuracy")
        paired = accuracy.sub(accuracy[[*self.compared.index[:1]]].mean(axis="columns"), axis="index")
        about = {"experiment": self.folder.name, "protocol": self.protocol, "method": methods.index}
        table = pd.DataFrame(about, methods.index).assign(label=methods.label, n=accuracy.count())
        for key, name in MEASURES.items():
            values = self.by_seed(key) if key in self.trials else paired
            factor = 100 if "percent" in name else 1  # percent, percentage points
            table[name.format("mean")] = factor * values.mean()
            table[name.format("standard_error")] = factor * values.sem()
        trials = [self.of(name) for name in methods.index]
        return table.assign(
            paper_accuracy_percent=methods.paper_accuracy,
            paper_bwt_fraction=methods.paper_bwt,
            partial_protocol=self.deviation,
            partial_data=["; ".join(self.partial_data(name)) for name in methods.index],
            diverged=[_diverged(rows) for rows in trials],
            seeds=[" ".join(map(str, rows.index.get_level_values("seed"))) for rows in trials],
            code=[" ".join(sorted({code[:12] for code in rows.code if code})) for rows in trials],
            candidate_of=methods.candidate_of,
        )

    def partial_data(self, *methods: str) -> list[str]:
        """Say in what the data of some methods differ from what was published; nothing if they do not."""
        trials = self.of(*methods)
        items = [item for data in trials.data for item in data if item.get("complete") is False]
        missing = {"{name} ({split}), {images} of {published} images".format_map(DATA | item) for item in items}
        notes = {note.removeprefix("partial: ") for notes in trials.notes for note in notes or ()}
        return sorted(missing) + sorted(notes)

    def file(self, kind: str, ending: str) -> Path:
        """Name a file that is made of the study, such as ``summary.md``."""
        return self.folder / f"{kind}{self.suffix}.{ending}"

    def only(self, names: Sequence[str]) -> Study:
        """Leave other methods out. Candidates stay with their method, and a candidate keeps its method."""
        family = {name: of or name for name, of in self.methods.candidate_of.items()}  # a candidate's is its method
        shown = {family[name] for name in names if name in family}
        kept = [name for name in family if family[name] in shown]
        return replace(self, methods=self.methods.loc[kept], trials=self.of(*kept))


def _diverged(trials: pd.DataFrame) -> str:
    """Say how many trials of a method diverged, such as "diverged (2 of 3), stable strength 0.5"; "" for none."""
    lost = trials[trials.status == "diverged"]
    told = [(cause or {}).get("stable_strength") for cause in lost.divergence]
    stable = [strength for strength in told if isinstance(strength, int | float)]
    text = f"diverged ({len(lost)} of {len(trials)})" if len(lost) else ""
    return text + (f", stable strength {min(stable):.3g}" if stable else "")


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, by name, without links and hidden ones."""
    return [path for path in _entries(folder, "[!.]*") if path.is_dir() and not path.is_symlink()]


def _entries(folder: Path, pattern: str) -> list[Path]:
    """List what in a folder has such a name, by name."""
    try:
        return sorted(path for path in folder.iterdir() if path.match(pattern))
    except OSError as error:
        raise ResultsError(f"cannot read {folder} ({store.reason(error)})") from error


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
            for file in _entries(child, "seed-*.json"):
                of_method = read.setdefault(child.name, [])
                with left_out(problems):
                    of_method += [trial | {"file": file} for trial in [store.read_trial(file)] if trial]
    studies: list[Study] = []
    experiments = _entries(folder, f"{EXPERIMENT}*.json")
    for file in experiments:
        with left_out(problems):
            studies.append(make_study(file, store.read_json(file), read, problems))
    if read and not experiments:
        problems.append(
            f"{folder} holds trials but no {EXPERIMENT}.json, which says what they are; run its script once on this "
            "results folder, which does not run finished trials again"
        )
    return [study for study in studies if len(study.trials)], list(dict.fromkeys(problems))


def make_study(
    path: Path, content: Mapping[str, Any], read: Mapping[str, Sequence[Mapping[str, Any]]], problems: list[str]
) -> Study:
    """Make a study of an experiment's file and the trials that were read, by folder; notes what is left out."""
    wrong = store.faults(content, store.STUDY, ("methods",))
    if wrong:
        raise ResultsError(f"{path} is damaged ({', '.join(wrong)}); run its script again")
    rows: dict[str, dict[str, Any]] = {}
    trials: list[dict[str, Any]] = []
    for index, entry in enumerate(content["methods"], 1):
        needed = ("name", "label", "regime", "folder", "candidate_of", "reported")
        wrong = store.faults(entry, METHOD, needed) if isinstance(entry, dict) else ["no object"]
        if wrong or entry["name"] in rows:
            problems.append(f"{path}: method {index} is left out ({', '.join(wrong) or 'named as another one'})")
            continue
        about, seeds = {key: entry.get(key) for key in METHOD}, entry.get("seeds")
        about |= {f"paper_{key}": entry["reported"].get(key) for key in METHOD["reported"]}
        rows[entry["name"]] = about | {"label": entry["label"] or entry["name"]}
        for trial in sorted(read.get(entry["folder"], ()), key=lambda trial: trial["seed"]):
            if seeds is None or trial["seed"] in seeds:
                known = {key: value for key, value in trial.items() if value is not None and key in COLUMNS}
                trials.append(COLUMNS | known | {"method": entry["name"]})
    labels = [row["label"] for row in rows.values()]
    for name, row in rows.items():  # tables and legends tell methods apart by their labels
        row["label"] += f" ({name})" * (labels.count(row["label"]) > 1)
    columns = [*METHOD, *(f"paper_{key}" for key in METHOD["reported"])]
    methods = pd.DataFrame(list(rows.values()), columns=columns, dtype=object).set_index("name")
    methods = methods.astype({"paper_accuracy": float, "paper_bwt": float})
    table = pd.DataFrame(trials, columns=list(COLUMNS), dtype=object).astype(DTYPES)
    texts = {key: content.get(key) or "" for key, shape in store.STUDY.items() if shape is str}
    return Study(
        path.parent,
        methods,
        _comparable(table, problems),
        suffix=path.stem.removeprefix(EXPERIMENT),
        **texts | {"title": texts["title"] or harmless(path.parent.name)},
    )


def _comparable(trials: pd.DataFrame, problems: list[str]) -> pd.DataFrame:
    """Leave out trials of another number of tasks than most."""
    tasks = trials.task_accuracy.map(len, na_action="ignore")
    usual = tasks.mode().max()
    odd = tasks.notna() & (tasks != usual)
    for file, count in zip(trials.file[odd], tasks[odd], strict=True):
        problems.append(f"{file} is left out ({count:.0f} tasks instead of {usual:.0f})")
    return trials[~odd].set_index(["method", "seed"])


def trials(folder: str | Path) -> pd.DataFrame:
    """Read all trials of a results folder.

    A file that cannot be read is left out, with a warning that names it.

    Args:
        folder: The results folder.

    Returns:
        A row for each trial of each method. Trials of changed protocols are among them: ``deviation`` is "" for the
        script's own. A trial that counts for several, such as a method beside a sweep's candidates, is there for each,
        with the same ``file``; ``candidate_of`` is "" but for candidates. Accuracies and BWT are fractions;
        ``task_accuracy`` and the like hold lists; see ``avsi.results.store.TRIAL``.

    Example:
        >>> frame = trials("reproductions/results")
        >>> published = frame[(frame.deviation == "") & (frame.candidate_of == "")]
        >>> compared = published[published.experiment == "split_mnist_zenke"]
        >>> means = compared.groupby("method").accuracy.agg(["mean", "sem", "count"])
        >>> bool(means["mean"]["si"] > means["mean"]["finetune"])
        True
    """
    found, problems = [], []
    for child in subfolders(Path(folder)):
        studies, of_child = read_studies(child)
        problems += of_child
        for study in studies:
            about = {"experiment": study.folder.name, "protocol": study.protocol, "deviation": study.deviation}
            methods = study.methods[["label", "regime", "candidate_of"]]
            found.append(study.trials.reset_index().join(methods, on="method").assign(**about))
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    columns = list(dict.fromkeys((*ABOUT, *COLUMNS)))
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)

"""Finished trials with invented numbers, for tests of what is made of them."""

from pathlib import Path

from avsi.experiment.trial import trial_file
from avsi.results.store import harmless, write_experiment, write_trial
from avsi.results.study import make_study

PAPER = {"accuracy": 90.0, "bwt": -0.1, "tasks": [80.0, 85.0, 90.0]}
NO_PAPER = {"accuracy": None, "bwt": None, "tasks": []}


def trial(seed=0, tasks=(0.9, 0.8, 1.0), bwt=-0.25, complete=True, sequential=True, **more):
    """R[t][i] lies below the final accuracy by 0.01 for each task that is still to come."""
    count = len(tasks)
    matrix = [[max(0.0, accuracy - 0.01 * (count - 1 - t)) for accuracy in tasks] for t in range(count)]
    data = {"name": "mnist", "split": "train", "fingerprint": f"{complete}", "images": 10}
    return {
        "seed": seed,
        "accuracy": sum(tasks) / count,
        "bwt": bwt if sequential else None,
        "forgetting": -bwt if sequential else None,
        "task_accuracy": list(tasks),
        "accuracy_matrix": matrix if sequential else None,
        "data": [data | {"published": 10 if complete else 20, "complete": complete}],
    } | more


def diverged(seed=0, stable=None):
    cause = {"task": 2, "epoch": 1, "step": 40, "cause": "loss is nan", "stable_strength": stable}
    nothing = dict.fromkeys(("accuracy", "bwt", "task_accuracy", "accuracy_matrix"))
    return trial(seed) | nothing | {"status": "diverged", "divergence": cause}


def entry(name, **more):
    """A method of an experiment's file."""
    start = {"name": name, "label": name.upper(), "regime": "sequential", "folder": f"{name}-0123456789"}
    return start | {"candidate_of": "", "reported": NO_PAPER} | more


def outcome(name, *trials, **more):
    """A method of an experiment's file, and its trials."""
    return entry(name, **more) | {"trials": trials}


def study(*outcomes, folder="tiny", **more):
    """A study as it is made of files."""
    content = {"title": "Tiny", "source": "A paper.", "methods": list(outcomes)} | more
    read, problems = {}, []
    for of in outcomes:
        files = [{"file": trial_file(Path(folder, of["folder"]), trial["seed"])} for trial in of["trials"]]
        read[of["folder"]] = [harmless(trial) | file for trial, file in zip(of["trials"], files, strict=True)]
    found = make_study(Path(folder, "experiment.json"), harmless(content), read, problems)
    assert problems == []
    return found


def write(root, *entries, trials=(), name="tiny", suffix="", **more):
    """Write an experiment and its trials, which are pairs of an entry and a trial."""
    start = {"name": name, "title": "Tiny", "source": "A paper.", "protocol": "", "deviation": ""}
    for of, result in trials:
        method, _, digest = of["folder"].rpartition("-")
        run = {"environment": {"python": "3.11", "device": "cpu"}, "wall_time_s": 2, "method": method, "digest": digest}
        write_trial(trial_file(root / name / of["folder"], result["seed"]), run | result)
    return write_experiment(root, start | {"methods": list(entries)} | more, suffix)

"""Finished trials with invented numbers, for tests of what is made of them."""

from avsi.experiment.spec import Reported
from avsi.experiment.study import Outcome, Study


def trial(seed=0, tasks=(0.9, 0.8, 1.0), bwt=-0.25, complete=True, sequential=True, **more):
    """R[t][i] lies below the final accuracy by 0.01 for each task that is still to come."""
    count = len(tasks)
    matrix = [[accuracy - 0.01 * (count - 1 - t) for accuracy in tasks] for t in range(count)]
    data = {"name": "mnist", "split": "train", "fingerprint": f"{complete}", "images": 10}
    return {
        "seed": seed,
        "accuracy": sum(tasks) / count,
        "bwt": bwt if sequential else None,
        "task_accuracy": list(tasks),
        "accuracy_matrix": matrix if sequential else None,
        "data": [data | {"published": 10 if complete else 20, "complete": complete}],
    } | more


def outcome(name, *trials, regime="sequential", **more):
    return Outcome(
        name, more.pop("label", name.upper()), regime, more.pop("folder", f"{name}-0"), trials=trials, **more
    )


def study(*methods, **more):
    return Study(**{"name": "tiny", "title": "Tiny", "source": "A paper.", "methods": methods} | more)


PAPER = Reported(90.0, bwt=-0.1, tasks=(80.0, 85.0, 90.0))

"""Accuracy matrix, average accuracy and backward transfer, from Avalanche's evaluation metrics.

A matrix of another shape than a function asks for, or with a value that is not a finite number, is a ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from avsi._numbers import as_number


def evaluation_metrics() -> list:
    """Make the Avalanche metrics that :func:`accuracy_row` and :func:`check_against_avalanche` read.

    Returns:
        Accuracy per experience and pooled over the stream, and Avalanche's BWT and forgetting.
    """
    from avalanche.evaluation.metrics import accuracy_metrics, bwt_metrics, forgetting_metrics  # figures need none

    metrics = [*accuracy_metrics(experience=True, stream=True), *bwt_metrics(stream=True)]
    return [*metrics, *forgetting_metrics(stream=True)]


def accuracy_row(results: Mapping[str, float], stream: Sequence) -> list[float]:
    """Read one row of the accuracy matrix R from the result of ``strategy.eval(stream)``.

    Args:
        results: What ``strategy.eval`` returned.
        stream: The evaluated experiences.

    Returns:
        Test accuracy on each experience, in [0, 1].
    """
    phase = f"Top1_Acc_Exp/eval_phase/{stream[0].origin_stream.name}_stream/"
    # In between stands the experience's task label, where it has a single one.
    values = {key.rsplit("/", 1)[-1]: float(value) for key, value in results.items() if key.startswith(phase)}
    return [values[f"Exp{experience.current_experience:03d}"] for experience in stream]


def average_accuracy(matrix: Sequence[Sequence[float]]) -> float:
    """Compute ACC = mean_i R[T, i], tasks equally weighted.

    Args:
        matrix: R, (any number, T), whose last row holds the accuracies after the last experience, in [0, 1].

    Returns:
        ACC, in [0, 1].
    """
    last = _checked(matrix)[-1]
    return math.fsum(last) / len(last)


def backward_transfer(matrix: Sequence[Sequence[float]]) -> float:
    """Compute BWT = 1/(T-1) sum_{i<T} (R[T, i] - R[i, i]) (Lopez-Paz & Ranzato 2017).

    Args:
        matrix: R, (T, T), in [0, 1]; R[t][i] is the accuracy on task i after learning task t.

    Returns:
        BWT, in [-1, 1]; negative means forgetting. 0 for a single task.
    """
    matrix = _checked(matrix, square=True)
    last = len(matrix) - 1
    return math.fsum(matrix[last][i] - matrix[i][i] for i in range(last)) / last if last else 0.0


def forgetting(matrix: Sequence[Sequence[float]]) -> float:
    """Compute 1/(T-1) sum_{i<T} (R[i, i] - R[T, i]), Avalanche's forgetting: the negative of BWT.

    Args:
        matrix: R, (T, T), in [0, 1].

    Returns:
        Forgetting, in [-1, 1]. 0 for a single task.
    """
    return 0.0 - backward_transfer(matrix)


def accuracy_over_seen(matrix: Sequence[Sequence[float]]) -> list[float]:
    """Compute the mean accuracy over the tasks seen so far, after each task.

    Args:
        matrix: R, (T, T).

    Returns:
        mean_{i<=t} R[t, i] for each t.
    """
    return [math.fsum(row[: t + 1]) / (t + 1) for t, row in enumerate(_checked(matrix, square=True))]


def _checked(matrix: Sequence[Sequence[float]], *, square: bool = False) -> list[list[float]]:
    try:
        rows = [[as_number(value) for value in row] for row in matrix]
    except TypeError:
        raise ValueError(f"R must be a matrix, a sequence of rows, got {matrix!r:.80}") from None
    if len({len(row) for row in rows}) != 1 or not rows[0] or (square and len(rows) != len(rows[0])):
        wanted = "a row and a column for each task" if square else "at least one row, all of the same length"
        raise ValueError(f"R must have {wanted}, got {len(rows)} rows of lengths {[len(row) for row in rows]}")
    checked = []
    for t, row in enumerate(rows):
        for i, value in enumerate(row):
            if value is None or not math.isfinite(value):
                raise ValueError(f"R[{t}][{i}] must be a finite number, got {matrix[t][i]!r}")
        checked.append([float(value) for value in row if value is not None])
    return checked


def check_against_avalanche(matrix: Sequence[Sequence[float]], results: Mapping[str, float], stream: Sequence) -> None:
    """Check R, and the ACC, BWT and forgetting computed from it, against Avalanche's own numbers.

    Avalanche's stream accuracy pools samples over tasks, so it must equal R's last row weighted by the tasks' sizes;
    its BWT and forgetting must equal :func:`backward_transfer` and :func:`forgetting`.

    Args:
        matrix: R, (T, T).
        results: What the last ``strategy.eval(stream)`` returned.
        stream: The evaluated stream.

    Raises:
        RuntimeError: If they disagree.
    """
    name = stream[0].origin_stream.name
    sizes = [len(experience.dataset) for experience in stream]
    pooled = math.fsum(a * n for a, n in zip(matrix[-1], sizes, strict=True)) / sum(sizes)
    ours = {f"Top1_Acc_Stream/eval_phase/{name}_stream": pooled}
    if len(matrix) > 1:
        ours[f"StreamBWT/eval_phase/{name}_stream"] = backward_transfer(matrix)
        ours[f"StreamForgetting/eval_phase/{name}_stream"] = forgetting(matrix)
    for key, value in ours.items():
        theirs = next((v for k, v in results.items() if k.split("/Task")[0] == key), None)
        if theirs is None or not math.isclose(theirs, value, abs_tol=1e-6):
            raise RuntimeError(f"{key}: Avalanche reports {theirs}, the accuracy matrix gives {value}")

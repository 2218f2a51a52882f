"""Accuracy matrix, average accuracy and backward transfer, from Avalanche's evaluation metrics.

A matrix of another shape than a function asks for, or with a value that is not a finite number, is a ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from avsi._arguments import as_number


def evaluation_metrics() -> list:
    """Make the Avalanche metrics that :func:`accuracy_row` and :func:`check_against_avalanche` read.

    Returns:
        Accuracy per experience and pooled over the stream, and Avalanche's BWT and forgetting.

    Examples:
        >>> from avsi.plugins import EvaluationPlugin
        >>> evaluator = EvaluationPlugin(*evaluation_metrics(), loggers=[])  # a strategy's `evaluator`
        >>> [str(metric) for metric in evaluator.metrics]
        ['Top1_Acc_Exp', 'Top1_Acc_Stream', 'StreamBWT', 'StreamForgetting']
    """
    from avalanche.evaluation.metrics import accuracy_metrics, bwt_metrics, forgetting_metrics  # figures need none

    metrics = [*accuracy_metrics(experience=True, stream=True), *bwt_metrics(stream=True)]
    return [*metrics, *forgetting_metrics(stream=True)]


def accuracy_row(results: Mapping[str, float], stream: Sequence) -> list[float]:
    """Read one row of the accuracy matrix R from the result of ``strategy.eval(stream)``.

    The strategy's evaluator must measure accuracy by experience: with ``accuracy_metrics(experience=True)``, as
    Avalanche's default evaluator and :func:`evaluation_metrics` have it. With ``evaluator=None`` there is none to read.

    Args:
        results: What ``strategy.eval`` returned.
        stream: The evaluated experiences.

    Returns:
        Test accuracy on each experience, in [0, 1].

    Raises:
        ValueError: If there is no experience, or the results hold no accuracy on one of them.

    Examples:
        >>> import torch
        >>> from avalanche.training import Naive
        >>> from avsi.metrics import evaluation_metrics
        >>> from avsi.models import MLP, MultiHead
        >>> from avsi.plugins import EvaluationPlugin
        >>> from avsi.scenarios import split_digits
        >>> benchmark, model = split_digits(), MLP(64, (16,), MultiHead)
        >>> strategy = Naive(
        ...     model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), train_mb_size=32,
        ...     eval_mb_size=100, evaluator=EvaluationPlugin(*evaluation_metrics(), loggers=[]),
        ... )
        >>> matrix = []
        >>> for experience in benchmark.train_stream[:2]:
        ...     metrics = strategy.train(experience)
        ...     matrix.append(accuracy_row(strategy.eval(benchmark.test_stream[:2]), benchmark.test_stream[:2]))
        >>> [len(row) for row in matrix]
        [2, 2]
    """
    if not len(stream):
        raise ValueError("stream holds no experience; pass the one that was evaluated")
    name = stream[0].origin_stream.name
    phase = f"Top1_Acc_Exp/eval_phase/{name}_stream/"
    # In between stands the experience's task label, where it has a single one.
    values = {key.rsplit("/", 1)[-1]: float(value) for key, value in results.items() if key.startswith(phase)}
    wanted = [experience.current_experience for experience in stream]
    missing = [number for number in wanted if f"Exp{number:03d}" not in values]
    if missing:
        raise ValueError(
            f"the results hold no accuracy on experience{'s' * (len(missing) > 1)} {', '.join(map(str, missing))} of "
            f"the {name} stream: give the strategy an evaluator with accuracy_metrics(experience=True), such as "
            "EvaluationPlugin(*evaluation_metrics()), and pass what strategy.eval returned for this very stream"
        )
    return [values[f"Exp{number:03d}"] for number in wanted]


def average_accuracy(matrix: Sequence[Sequence[float]]) -> float:
    """Compute ACC = mean_i R[T, i], tasks equally weighted.

    Args:
        matrix: R, (any number, T), whose last row holds the accuracies after the last experience, in [0, 1].

    Returns:
        ACC, in [0, 1].

    Examples:
        >>> average_accuracy([[0.9, 0.5], [0.7, 0.8]])
        0.75
    """
    last = _checked(matrix)[-1]
    return math.fsum(last) / len(last)


def backward_transfer(matrix: Sequence[Sequence[float]]) -> float:
    """Compute BWT = 1/(T-1) sum_{i<T} (R[T, i] - R[i, i]) (Lopez-Paz & Ranzato 2017).

    Args:
        matrix: R, (T, T), in [0, 1]; R[t][i] is the accuracy on task i after learning task t.

    Returns:
        BWT, in [-1, 1]; negative means forgetting. 0 for a single task.

    Examples:
        >>> round(backward_transfer([[0.9, 0.5], [0.7, 0.8]]), 4)  # 0.7 - 0.9
        -0.2
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

    Examples:
        >>> round(forgetting([[0.9, 0.5], [0.7, 0.8]]), 4)
        0.2
    """
    return 0.0 - backward_transfer(matrix)


def accuracy_over_seen(matrix: Sequence[Sequence[float]]) -> list[float]:
    """Compute the mean accuracy over the tasks seen so far, after each task.

    Args:
        matrix: R, (T, T), in [0, 1].

    Returns:
        mean_{i<=t} R[t, i] for each t, in [0, 1].

    Examples:
        >>> accuracy_over_seen([[0.9, 0.5], [0.7, 0.8]])
        [0.9, 0.75]
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
        matrix: R, (T, T), in [0, 1]; in joint training its one row.
        results: What the last ``strategy.eval(stream)`` returned, with the metrics of :func:`evaluation_metrics`.
        stream: The evaluated stream.

    Raises:
        RuntimeError: If they disagree.

    Examples:
        >>> import torch
        >>> from avalanche.training import Naive
        >>> from avsi.metrics import accuracy_row, evaluation_metrics
        >>> from avsi.models import MLP, MultiHead
        >>> from avsi.plugins import EvaluationPlugin
        >>> from avsi.scenarios import split_digits
        >>> model, stream = MLP(64, (16,), MultiHead), split_digits().test_stream
        >>> strategy = Naive(
        ...     model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), eval_mb_size=100,
        ...     evaluator=EvaluationPlugin(*evaluation_metrics(), loggers=[]),
        ... )
        >>> results = strategy.eval(stream)
        >>> check_against_avalanche([accuracy_row(results, stream)], results, stream)  # silent: they agree
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

import numpy as np
import pytest
import torch
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin
from torch import nn
from training import seeded_mlp

from avsi.metrics import (
    accuracy_over_seen,
    accuracy_row,
    average_accuracy,
    backward_transfer,
    check_against_avalanche,
    evaluation_metrics,
    forgetting,
)

R = [[0.9, 0.2, 0.1], [0.7, 0.8, 0.3], [0.6, 0.5, 1.0]]


def test_definitions_written_out():
    assert average_accuracy(R) == pytest.approx((0.6 + 0.5 + 1.0) / 3)
    assert backward_transfer(R) == pytest.approx(((0.6 - 0.9) + (0.5 - 0.8)) / 2)
    assert accuracy_over_seen(R) == pytest.approx([0.9, 0.75, 0.7])
    assert backward_transfer([[0.4]]) == 0.0
    assert forgetting(R) == pytest.approx(((0.9 - 0.6) + (0.8 - 0.5)) / 2)
    assert str(forgetting([[0.4]])) == "0.0"


@pytest.mark.parametrize("kind", [np.array, torch.tensor, lambda rows: [np.float32(row) for row in rows], tuple])
def test_matrices_of_every_kind(kind):
    assert backward_transfer(kind(R)) == pytest.approx(backward_transfer(R))
    assert average_accuracy(kind(R)) == pytest.approx(average_accuracy(R))
    assert average_accuracy(kind(R[-1:])) == pytest.approx(average_accuracy(R))  # joint training has just one row


SQUARE = (backward_transfer, forgetting, accuracy_over_seen)
NAN = float("nan")


@pytest.mark.parametrize(
    ("matrix", "message", "functions"),
    [
        ([[0.9], [0.7, 0.8]], r"2 rows of lengths \[1, 2\]", (*SQUARE, average_accuracy)),
        ([[0.9, 0.1], [0.7]], r"2 rows of lengths \[2, 1\]", (*SQUARE, average_accuracy)),
        ([], r"0 rows of lengths \[\]", (*SQUARE, average_accuracy)),
        ([[]], r"1 rows of lengths \[0\]", (*SQUARE, average_accuracy)),
        ([0.9, 0.8], r"a sequence of rows, got \[0.9, 0.8\]", (*SQUARE, average_accuracy)),
        (0.9, "a sequence of rows, got 0.9", (*SQUARE, average_accuracy)),
        ([[0.9, NAN], [0.7, 0.8]], r"R\[0\]\[1\] must be a finite number, got nan", (*SQUARE, average_accuracy)),
        ([[0.9, 0.1], [0.7, None]], r"R\[1\]\[1\] must be a finite number, got None", (*SQUARE, average_accuracy)),
        ([[0.9, "0.1"], [0.7, 0.8]], r"R\[0\]\[1\] must be a finite number, got '0.1'", (*SQUARE, average_accuracy)),
        ([[0.9, 0.1]], "a row and a column for each task, got 1 rows", SQUARE),
        ([[0.9], [0.1]], "a row and a column for each task, got 2 rows", SQUARE),
    ],
)
def test_bad_matrices(matrix, message, functions):
    for function in functions:
        with pytest.raises(ValueError, match=message):
            function(matrix)


def evaluated(digits, evaluator):
    model = seeded_mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    strategy = Naive(model=model, optimizer=optimizer, eval_mb_size=100, evaluator=evaluator)
    return strategy.eval(digits.test_stream[:2])


def test_results_without_accuracies_are_refused(digits):
    message = r"no accuracy on experiences 0, 1 of the test stream: .*accuracy_metrics\(experience=True\)"
    for evaluator in (None, EvaluationPlugin(*accuracy_metrics(stream=True))):
        with pytest.raises(ValueError, match=message):
            accuracy_row(evaluated(digits, evaluator), digits.test_stream[:2])
    results = evaluated(digits, EvaluationPlugin(*evaluation_metrics()))
    assert len(accuracy_row(results, digits.test_stream[:2])) == 2
    with pytest.raises(ValueError, match="no accuracy on experiences 2, 3, 4 of the test stream"):
        accuracy_row(results, digits.test_stream)
    with pytest.raises(ValueError, match="no accuracy on experience 0 of the train stream"):
        accuracy_row(results, digits.train_stream[:1])
    with pytest.raises(ValueError, match="stream holds no experience"):
        accuracy_row(results, digits.test_stream[:0])


def test_matrix_agrees_with_predictions_counted_by_hand_and_with_avalanche(digits):
    model = seeded_mlp()
    strategy = Naive(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=1e-2),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=32,
        eval_mb_size=64,
        evaluator=EvaluationPlugin(*evaluation_metrics()),
    )
    matrix = []
    for experience in digits.train_stream:
        strategy.train(experience, eval_streams=[])
        results = strategy.eval(digits.test_stream)
        matrix.append(accuracy_row(results, digits.test_stream))
        for task, test in enumerate(digits.test_stream):
            samples = [test.dataset[i] for i in range(len(test.dataset))]
            predicted = model.eval()(torch.stack([s[0] for s in samples]), task).argmax(1)
            right = [p == s[1] for p, s in zip(predicted, samples, strict=True)]
            assert matrix[-1][task] == pytest.approx(np.mean(right))
    check_against_avalanche(matrix, results, digits.test_stream)
    matrix[0][0] -= 0.01
    with pytest.raises(RuntimeError, match="StreamBWT"):
        check_against_avalanche(matrix, results, digits.test_stream)
    matrix[0][0] += 0.01
    matrix[-1][2] -= 0.01
    with pytest.raises(RuntimeError, match="Top1_Acc_Stream"):
        check_against_avalanche(matrix, results, digits.test_stream)
    matrix[-1][2] += 0.01
    name = next(name for name in results if name.startswith("StreamForgetting"))
    with pytest.raises(RuntimeError, match="StreamForgetting"):
        check_against_avalanche(matrix, results | {name: results[name] + 0.01}, digits.test_stream)

import statistics
from math import sqrt

import pytest

from avsi.experiment.figure import accuracy_figure
from avsi.experiment.summary import Estimate, main_table, notes, task_table


def trial(seed, accuracies, bwt=-0.25, complete=True):
    matrix = [[a - 0.01 * (2 - t) for a in accuracies] for t in range(3)]
    source = {"name": "mnist", "split": "train", "fingerprint": str(complete)}
    data = [source | {"images": 10, "published": 10 if complete else 20, "complete": complete}]
    accuracy = sum(accuracies) / 3
    return {"seed": seed, "accuracy": accuracy, "bwt": bwt, "task_accuracy": accuracies, "accuracy_matrix": matrix,
            "data": data}  # fmt: skip


def test_estimate_is_mean_and_standard_error():
    values = [0.5, 0.7, 0.9]
    estimate = Estimate.of(values)
    assert estimate.mean == pytest.approx(0.7)
    assert estimate.error == pytest.approx(statistics.stdev(values) / sqrt(3))
    assert estimate.text(scale=100) == "70.00 ± 11.55"
    assert Estimate.of([0.5]).text() == "0.50"


def test_table_holds_the_papers_values_beside_the_measured_ones(experiment):
    finetune = experiment.method("finetune")
    trials = [(finetune, [trial(0, [0.9, 0.8, 1.0]), trial(1, [0.9, 0.9, 0.9])])]
    table = main_table(experiment, trials)
    assert table.columns == ("method", "accuracy %", "paper", "diff.", "BWT", "(paper)", "n")
    assert table.rows == (("fine-tuning", "90.00 ± 0.00", "90.00", "+0.00", "-0.250 ± 0.000", "-0.10", "2"),)
    assert "| fine-tuning | 90.00 ± 0.00 | 90.00 | +0.00 |" in table.markdown()
    by_task = task_table(experiment, trials)
    assert by_task.rows[0] == ("fine-tuning", "90.0", "85.0", "95.0")
    assert by_task.rows[1] == ("fine-tuning (paper)", "80.0", "85.0", "90.0", "95.0", "100.0")


def test_papers_columns_are_left_out_where_it_reports_nothing(experiment):
    joint = experiment.method("joint")
    result = trial(0, [0.9, 0.8, 1.0], bwt=None) | {"accuracy_matrix": None}
    table = main_table(experiment, [(joint, [result])])
    assert table.columns == ("method", "accuracy %", "BWT", "n")
    assert table.rows == (("joint training", "90.00", "-", "1"),)


def test_notes_tell_of_changed_protocols_partial_data_and_single_seeds(experiment):
    si = experiment.method("si")
    text = "\n".join(notes(experiment.with_epochs(1), [(si, [trial(0, [0.9] * 3, complete=False)])]))
    assert "Changed protocol: 1 epochs instead of 2." in text
    assert "One seed only, no standard error: si." in text
    assert "Partial data: mnist (train), 10 of 20 images." in text
    plain = "\n".join(notes(experiment, [(si, [trial(s, [0.9] * 3) for s in range(2)])]))
    assert "Changed" not in plain
    assert "Partial" not in plain
    assert "One seed" not in plain


def test_notes_tell_of_any_partial_trial_and_of_different_data(experiment):
    si = experiment.method("si")
    text = "\n".join(notes(experiment, [(si, [trial(0, [0.9] * 3, complete=False), trial(1, [0.9] * 3)])]))
    assert "Partial data: mnist (train), 10 of 20 images." in text
    assert "the trials used 2 different versions of mnist (train)" in text
    text = "\n".join(notes(experiment, [(si, [trial(0, [0.9] * 3) | {"notes": ["partial: without svhn"]}])]))
    assert "partial: without svhn" in text


def test_figure_draws_curves_with_bands_and_bounds_as_lines(experiment):
    si, joint = experiment.method("si"), experiment.method("joint")
    runs = [trial(0, [0.9, 0.8, 1.0]), trial(1, [0.7, 0.8, 0.9])]
    figure = accuracy_figure(experiment, [(si, runs), (joint, runs)])
    (axes,) = figure.axes
    curve, bound = axes.lines
    assert list(curve.get_xdata()) == [1, 2, 3]
    expected = [(0.88 + 0.68) / 2, (0.89 + 0.79 + 0.69 + 0.79) / 4, (0.9 + 0.8 + 1.0 + 0.7 + 0.8 + 0.9) / 6]
    assert list(curve.get_ydata()) == pytest.approx([100 * e for e in expected])
    assert bound.get_ydata()[0] == pytest.approx(85.0)
    assert len(axes.collections) == 1
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["SI, c = 1", "joint training"]

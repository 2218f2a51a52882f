"""The overview of all reproductions: what it says is what the results' files say."""

import json
from pathlib import Path
from statistics import fmean

import overview
import pandas as pd
import pytest

from avsi.experiment import Reported
from avsi.scenarios.imbalanced_permuted_mnist import TABLE_2

REPRODUCTIONS = Path(__file__).parents[2] / "reproductions"


def test_every_number_is_what_the_results_say():
    assert (REPRODUCTIONS / "README.md").read_text(encoding="utf-8") == overview.overview()


def test_a_number_recomputed_by_hand():
    files = list(REPRODUCTIONS.glob("results/split_mnist_zenke/si-*/seed-*.json"))
    accuracies = [100 * json.loads(file.read_text())["accuracy"] for file in files]
    training = [100 * fmean(json.loads(file.read_text())["train_accuracy"]) for file in files]
    text = (REPRODUCTIONS / "README.md").read_text(encoding="utf-8")
    assert f"SI, c = 1 {fmean(accuracies):.2f} ± " in text
    assert f"SI, training images {fmean(training):.2f} ± " in text
    assert f"(near 100), n = {len(accuracies)}<br>" in text


def test_every_script_of_a_table_is_listed():
    listed = {item.command.split()[0] for item in overview.ITEMS}
    parts = {"analysis.py", "dhp_parts.py", "overview.py", "split_digits.py", "dhp_dynamics.py"}
    others = {"three_scenarios.py", "task_by_task.py", "proximal.py"}
    assert {path.name for path in REPRODUCTIONS.glob("*.py")} - parts - others == listed


def test_thinned_accuracy_weights_classes_by_the_test_images_that_would_be_left():
    """All right on digit 0 of the first task alone: 738 of its test images, over ten tasks."""
    train = 5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949
    test = 980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009
    left = [round(count * there / of) for count, there, of in zip(TABLE_2[0], test, train, strict=True)]
    assert left[0] == 738
    classes = [[0.0] * 10 for _ in range(10)]
    classes[0][0] = 1.0
    assert overview.thinned_accuracy(classes) == pytest.approx(738 / sum(left) / 10)


NOTHING = pd.DataFrame({"method": [], "deviation": []}, dtype=str)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (overview.Cell("SI", "si"), "SI not run (96.9)"),
        (overview.Cell("SI", "si", "near 100"), "SI not run (near 100)"),
        (overview.Cell("SI", "si", ""), "SI not run"),
        (overview.Cell("SI", "si", task=2), "SI not run (90.5)"),
        (overview.Cell("SI", "si", task=3), "SI not run"),
    ],
)
def test_what_was_not_run_is_said_and_the_papers_number_is_the_scripts(cell, expected):
    assert cell.text(NOTHING, Reported(96.9, tasks=(99.0, 90.5))) == expected


def test_a_swept_strength_counts_where_it_is_meant_and_nowhere_else():
    frame = pd.DataFrame(
        {
            "method": ["si"] * 3,
            "deviation": ["", "si.strength = swept", "1 epoch instead of 10, si.strength = swept"],
            "accuracy": [0.5, 0.75, 1.0],
        }
    )
    assert overview.Cell("SI", "si").text(frame, Reported(96.9)) == "SI 50.00 (96.9), n = 1"
    assert overview.Cell("SI", "si", swept=True).text(frame, Reported(96.9)) == "SI 75.00 (96.9), n = 1"


def test_a_sweep_is_of_any_one_parameter_of_the_method():
    deviations = ["avalanche_ewc.ewc_lambda = swept", "avalanche_ewc_2.ewc_lambda = swept"]
    deviations += ["avalanche_ewc.ewc_lambda = swept, avalanche_ewc.mode = swept", "avalanche_ewc.ewc_lambda = 1"]
    deviations += ["optimizer.lr = 0.1, avalanche_ewc.ewc_lambda = swept"]
    frame = pd.DataFrame({"method": ["avalanche_ewc"] * 5, "deviation": deviations, "accuracy": [0.5, 1, 1, 1, 1]})
    cell = overview.Cell("EWC", "avalanche_ewc", swept=True)
    assert cell.text(frame, Reported()) == "EWC 50.00, n = 1"
    frame.loc[1, "deviation"] = "avalanche_ewc.decay_factor = swept"
    with pytest.raises(ValueError, match=r"several sweeps of avalanche_ewc: .*ewc_lambda = swept, .*decay"):
        cell.text(frame, Reported())


def test_an_analysis_that_was_not_run_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(overview, "RESULTS", tmp_path)
    analyses = [item for item in overview.ITEMS if isinstance(item, overview.Analysis)]
    assert [item.ours(NOTHING) for item in analyses] == ["not run"] * 2

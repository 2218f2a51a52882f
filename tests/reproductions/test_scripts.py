"""The reproduction scripts themselves, as a user runs them."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean, stdev

import pytest

SCRIPTS = Path(__file__).parents[2] / "reproductions"


def script(name, *arguments, cwd):
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=environment)


COMPARISONS = {
    "split_digits": "",
    "split_mnist": "Zenke",
    "split_cifar": "Zenke",
    "three_scenarios": "van de Ven",
    "permuted_mnist": "Zenke",
    "imbalanced_permuted_mnist": "Differentiable Hebbian consolidation",
    "five_vision": "Differentiable Hebbian consolidation",
    "eta_sensitivity": "Differentiable Hebbian consolidation",
    "transfer": "Zenke",
    "plasticity": "Permuted MNIST, five tasks",
    "proximal": "three tasks of three epochs",
    "fisher_table": "van de Ven",
    "close_the_gap": "continual-learning-baselines",
    "output_layer": "Split MNIST as in the DHP paper",
}
# See test_analyses.py.
ANALYSES = {"quadratic", "importance_correlation", "importance_and_curvature", "dhp_dynamics", "task_by_task"}


def test_every_script_is_covered_here():
    """At full length where it is a matter of a minute, else shortened or only its command line."""
    parts = {"analysis", "dhp_parts", "overview"}
    assert {path.stem for path in SCRIPTS.glob("*.py")} == COMPARISONS.keys() | ANALYSES | parts


def test_split_digits_runs_from_any_folder(tmp_path):
    done = script("split_digits", "--methods", "finetune", "si", "--trials", "1", "--epochs", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "SI, c = 1" in done.stdout
    folder = tmp_path / "results" / "split_digits"
    assert (folder / "accuracy-2-epochs.png").exists()
    result = json.loads(next(folder.glob("si-*/seed-000.json")).read_text())
    assert result["accuracy"] > 0.9


def test_si_beats_fine_tuning_on_split_digits_by_more_than_twice_the_combined_standard_error(tmp_path):
    """The README's first command, with three seeds."""
    done = script("split_digits", "--methods", "finetune", "si", "--trials", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    mean, error = {}, {}
    for method in ("finetune", "si"):
        files = (tmp_path / "results" / "split_digits").glob(f"{method}-*/seed-*.json")
        accuracies = [json.loads(file.read_text())["accuracy"] for file in files]
        assert len(accuracies) == 3
        mean[method], error[method] = fmean(accuracies), stdev(accuracies) / math.sqrt(3)
    assert mean["si"] - mean["finetune"] > 2 * math.hypot(error["si"], error["finetune"])
    assert (tmp_path / "results" / "split_digits" / "accuracy.png").exists()


@pytest.mark.parametrize(("name", "paper"), COMPARISONS.items())
def test_help_names_paper_and_methods(name, paper, tmp_path):
    done = script(name, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert paper in text
    assert "Methods: " in text


def test_imbalanced_permuted_mnist_on_real_data_measures_validation_accuracy(real_data, tmp_path):
    arguments = ("--methods", "finetune", "--trials", "1", "--epochs", "1", "--data-root", real_data)
    done = script("imbalanced_permuted_mnist", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(next(tmp_path.rglob("seed-000.json")).read_text())
    assert result["deviation"] == "at most 1 epoch instead of 100"
    assert result["accuracy_matrix"][9][9] > 0.6
    assert [len(errors) for errors in result["validation_error"]] == [1] * 10
    # Test sets are balanced, validation data are thinned out as the training data are: near each other, not the same.
    assert result["validation_accuracy"] == pytest.approx(result["accuracy"], abs=0.1)
    assert result["forgetting"] == -result["bwt"]


def test_split_mnist_on_real_data(real_data, tmp_path):
    """One epoch instead of ten: SI is already far above chance on every task."""
    arguments = ("--methods", "si", "--trials", "1", "--epochs", "1", "--data-root", real_data)
    done = script("split_mnist", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(next(tmp_path.rglob("seed-000.json")).read_text())
    assert result["accuracy"] > 0.95
    assert result["deviation"] == "1 epoch instead of 10"
    assert [(d["name"], d["split"], d["images"], d["complete"]) for d in result["data"]] == [
        ("mnist", "train", 60_000, True),
        ("mnist", "test", 10_000, True),
    ]

import math
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from avsi.experiment.early_stopping import Patience
from avsi.experiment.progress import Display
from avsi.experiment.trial import Setting, run_trial
from avsi.metrics import average_accuracy, backward_transfer

VOLATILE = {"started", "wall_time_s", "train_time_s"}


def run(experiment, name, seed=0, **setting):
    with Display(1, Console(quiet=True)) as display:
        return run_trial(experiment, experiment.method(name), seed, Setting(**setting), display.trial(name, seed))


@pytest.mark.parametrize("name", ["finetune", "si"])
def test_sequential_trial(experiment, name):
    result = run(experiment, name)
    matrix = result["accuracy_matrix"]
    assert len(matrix) == 5
    assert all(len(row) == 5 for row in matrix)
    assert result["accuracy"] == average_accuracy(matrix)
    assert result["bwt"] == backward_transfer(matrix)
    assert result["task_accuracy"] == matrix[-1]
    assert all(matrix[t][t] > 0.8 for t in range(5))
    assert len(result["train_time_s"]) == 5
    assert result["wall_time_s"] > 0
    assert result["seed"] == 0
    assert result["description"]["method"]["name"] == name
    assert result["description"]["epochs"] == 2
    assert result["environment"]["torch"] == torch.__version__.split("+")[0]
    train, test = result["data"]
    assert (train["name"], train["split"], train["images"], train["complete"]) == ("digits", "train", 1442, True)
    assert (test["split"], test["images"], test["published"]) == ("test", 355, 355)
    assert len(train["fingerprint"]) == 64


def test_a_trial_is_a_function_of_its_description_and_seed(experiment):
    torch.manual_seed(123)
    first = run(experiment, "si", seed=3)
    torch.manual_seed(321)
    again = run(experiment, "si", seed=3)
    other = run(experiment, "si", seed=4)
    assert {k: v for k, v in first.items() if k not in VOLATILE} == {
        k: v for k, v in again.items() if k not in VOLATILE
    }
    assert first["accuracy_matrix"] != other["accuracy_matrix"]


@pytest.mark.parametrize("name", ["scratch", "joint"])
def test_bounds_have_accuracies_by_task_and_no_matrix(experiment, name):
    result = run(experiment, name)
    assert result["accuracy_matrix"] is None
    assert result["bwt"] is None
    assert len(result["task_accuracy"]) == 5
    assert result["accuracy"] == pytest.approx(math.fsum(result["task_accuracy"]) / 5)
    assert result["accuracy"] > 0.85


def test_from_scratch_models_are_fresh(experiment):
    """A model trained on one task alone cannot depend on the others: the first task's is that of fine-tuning."""
    scratch, finetune = run(experiment, "scratch"), run(experiment, "finetune")
    assert scratch["task_accuracy"][0] == finetune["accuracy_matrix"][0][0]
    assert len(scratch["train_time_s"]) == 5


def test_early_stopping_trains_at_least_and_at_most_so_long(experiment):
    stopping = replace(experiment, epochs=6, patience=Patience(epochs=1, at_least=2, validation=0.2))
    assert stopping.digest(experiment.method("si")) != replace(experiment, epochs=6).digest(experiment.method("si"))
    result = run(stopping, "si")
    assert result["description"]["patience"] == {"epochs": 1, "at_least": 2, "validation": 0.2}
    assert all(2 <= len(errors) <= 6 for errors in result["validation_error"])
    assert any(len(errors) < 6 for errors in result["validation_error"])
    assert "patience" not in run(experiment, "finetune")["description"]


def test_tensorboard_logs_on_request(experiment, tmp_path):
    run(experiment, "finetune", tensorboard=tmp_path / "logs")
    files = list((tmp_path / "logs").rglob("events.out.tfevents*"))
    assert files
    assert sum(file.stat().st_size for file in files) > 1000

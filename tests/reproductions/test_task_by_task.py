"""Strengths chosen task by task, as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest
import task_by_task

from avsi.experiment import ExperimentError, Trial
from avsi.launch import sweep
from avsi.launch.settings import change
from avsi.results import markdown_table, store

REPRODUCTIONS = Path(__file__).parents[2] / "reproductions"


def script(name, *arguments, cwd):
    command = [sys.executable, str(REPRODUCTIONS / f"{name}.py"), *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=environment)


def test_strengths_task_by_task_beside_the_best_of_a_grid(tmp_path):
    sweep = ("--set", "scenario.validation=0.1", "--sweep", "si.strength=0.1,10", "--epochs", "3", "--trials", "1")
    done = script("split_digits", *sweep, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = script("task_by_task", "results", "--methods", "si", "--epochs", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results" / "task_by_task_split_digits-3-epochs" / "si-0.json").read_text())
    assert len(found["choices"]) == 5
    assert all(choice["accuracy"] >= 0.8 * choice["plasticity"] for choice in found["choices"])
    strengths = [choice["strength"] for choice in found["choices"]]
    assert strengths == sorted(strengths, reverse=True)
    assert found["accuracy"] == pytest.approx(100 * fmean(found["tasks"]))
    trials = [json.loads(file.read_text()) for file in (tmp_path / "results").rglob("seed-000.json")]
    best = max(trials, key=lambda trial: trial["validation_accuracy"])
    assert f" {100 * best['accuracy']:.2f}" in done.stdout


def test_a_learning_rate_at_which_training_diverges_is_written_as_one(tmp_path):
    fast = """import sys; sys.argv = ["task_by_task.py", "results", "--methods", "si", "--epochs", "1"]
import task_by_task; task_by_task.LEARNING_RATES = (1.0, 1e15)
task_by_task.run_analysis(task_by_task.analyse, task_by_task.Options, "")
"""
    command = [sys.executable, "-c", fast]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPRODUCTIONS)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results" / "task_by_task_split_digits-1-epochs" / "si-0.json").read_text())
    assert all(choice["attempts"][1]["accuracy"] is None for choice in found["choices"])


# The table

RESULTS = REPRODUCTIONS / "results"


def write_run(options, method="si", seed=0, accuracy=90.0, strength=8.0):
    choices = [{"strength": strength, "attempts": [{}] * 4}]
    options.folder.mkdir(parents=True, exist_ok=True)
    run = {"method": method, "accuracy": accuracy, "choices": choices, "margin": options.margin, "seed": seed}
    (options.folder / f"{method}-{seed}.json").write_text(json.dumps(run))


def write_candidate(root, settings, strength, accuracy, validation, rate=None):
    """A sweep's trial of split digits, as the command line writes it."""
    experiment = change(task_by_task.EXPERIMENTS["split_digits"], settings)
    swept = {"si.strength": strength} | ({} if rate is None else {"si.optimizer.lr": rate})
    candidate = sweep.candidate(experiment, experiment.method("si"), swept)
    trial = Trial(experiment, candidate, 0)
    about = {"seed": 0, "method": "si", "digest": trial.digest, "description": trial.description, "data": []}
    measured = {"accuracy": accuracy, "validation_accuracy": validation}
    measured |= {"task_accuracy": [accuracy], "accuracy_matrix": [[accuracy]]}
    store.write_trial(root / trial.file, about | measured)
    method = {"name": candidate.name, "label": candidate.label, "regime": candidate.regime, "reported": {}}
    method |= {"folder": trial.folder.name, "candidate_of": "si"}
    content = {"name": experiment.name, "deviation": experiment.deviation, "methods": [method]}
    store.write_experiment(root, content, f"{experiment.suffix}-{strength}")


def test_the_published_table_is_what_the_runs_beside_it_say():
    options = task_by_task.Options(RESULTS, "split_mnist")
    heading, table = (options.folder / "summary.md").read_text(encoding="utf-8").split("\n\n")
    assert heading == "# Split MNIST: strengths chosen task by task, margin 0.2"
    assert table == markdown_table(task_by_task.tabulate(options))
    assert task_by_task.tabulate(options)["best of the grid %"].tolist() == ["98.41", "98.34", "98.14"]


@pytest.mark.parametrize("margin", [0.2, 0.05])
def test_the_published_tables_of_permuted_mnist_are_what_the_runs_beside_them_say(margin):
    options = task_by_task.Options(RESULTS, "permuted_mnist", epochs=1, margin=margin)
    _, table = (options.folder / "summary.md").read_text(encoding="utf-8").split("\n\n")
    assert table == markdown_table(task_by_task.tabulate(options))


def test_every_run_of_the_folder_has_its_row_and_another_margin_another_folder(tmp_path, capsys):
    options = task_by_task.Options(tmp_path)
    for method, seed, accuracy in (("mas", 0, 70.0), ("si", 10, 80.0), ("si", 2, 90.0)):
        write_run(options, method, seed, accuracy)
    (options.folder / "damaged-0.json").write_text("{")
    strict = task_by_task.Options(tmp_path, margin=0.05)
    write_run(strict, accuracy=60.0)
    table = task_by_task.write_summary(options)
    assert table.index.tolist() == ["SI, c = 1", "SI, c = 1", "MAS, λ = 0.5"]
    assert table.seed.tolist() == ["2", "10", "0"]
    assert table["task by task %"].tolist() == ["90.00", "80.00", "70.00"]
    assert table["best of the grid %"].tolist() == [""] * 3
    assert table.trainings.tolist() == ["5"] * 3
    assert "damaged-0.json is left out" in capsys.readouterr().out.replace("\n", "")
    assert strict.folder.name == "task_by_task_split_digits-margin-0.05"
    assert task_by_task.tabulate(strict)["task by task %"].tolist() == ["60.00"]


def test_the_best_of_the_grid_is_of_the_same_protocol(tmp_path):
    """It may hold out another share and sweep learning rates too; with other epochs or images it does not count."""
    held_out = ("scenario.validation", 0.2)
    write_candidate(tmp_path, [held_out], 0.1, 0.5, 0.90)
    write_candidate(tmp_path, [held_out], 10.0, 0.6, 0.91)
    for changed in (("epochs", 1), ("scenario.scenario", "class"), ("optimizer.lr", 1e-2)):
        write_candidate(tmp_path, [held_out, changed], 3.0, 0.7, 0.99)
    write_run(task_by_task.Options(tmp_path))
    assert task_by_task.tabulate(task_by_task.Options(tmp_path))["best of the grid %"].tolist() == ["60.00"]
    write_candidate(tmp_path, [held_out], 0.3, 0.65, 0.92, rate=1e-2)
    assert task_by_task.tabulate(task_by_task.Options(tmp_path))["best of the grid %"].tolist() == ["65.00"]
    shortened = task_by_task.Options(tmp_path, epochs=1)
    write_run(shortened)
    assert task_by_task.tabulate(shortened)["best of the grid %"].tolist() == ["70.00"]
    write_run(task_by_task.Options(tmp_path), seed=1)
    assert task_by_task.tabulate(task_by_task.Options(tmp_path))["best of the grid %"].tolist() == ["65.00", ""]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": ()}, "there is no method; give --methods one or more of si, online_ewc, mas, "),
        ({"methods": ("si", "finetune")}, "finetune has no strength to choose; give --methods one or more of si, "),
        ({"methods": ("maz",)}, "no method 'maz'; did you mean 'mas'"),
        ({"margin": 1.0}, r"margin must be in \[0, 1\), got 1.0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
    ],
)
def test_bad_options_are_refused_before_anything_is_trained(arguments, message, tmp_path):
    with pytest.raises(ExperimentError, match=message):
        task_by_task.analyse(task_by_task.Options(tmp_path / "results", **arguments))
    assert not list(tmp_path.iterdir())

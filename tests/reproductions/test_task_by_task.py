"""Strengths chosen task by task, as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest

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

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

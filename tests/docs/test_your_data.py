"""The guide is executed: its benchmark, model and method run, resume and report, in processes of their own too."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from avsi.experiment import Setting, Trial
from avsi.experiment.progress import TrialProgress

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "your_data.md"
TIMES = {"started", "wall_time_s", "train_time_s", "resumed"}


@pytest.fixture
def script(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    path = tmp_path / "mine.py"
    path.write_text(code)
    return path


class EnoughError(Exception):
    """Ends a trial."""


class Stop(TrialProgress):
    def before_training_exp(self, strategy, *args, **kwargs):
        super().before_training_exp(strategy, *args, **kwargs)
        if strategy.experience.current_experience == 3:
            raise EnoughError


def test_the_guides_script_runs_in_processes_and_reports(script, tmp_path):
    options = ["--smoke", "--workers", "2", "--threads", "1", "--set", "si.strength=0.5"]
    done = subprocess.run(
        [sys.executable, str(script), *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(file.read_text()) for file in tmp_path.glob("results/mine/*/seed-000.json")]
    assert sorted(result["method"] for result in results) == ["finetune", "si,strength=0.5", "stay"]
    assert all(result["data"] == [] and len(result["accuracy_matrix"]) == 5 for result in results)
    assert "stay" in done.stdout
    assert (tmp_path / "results" / "report.html").exists()


def test_the_guides_method_goes_on_where_it_was_interrupted(script, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    import mine

    trial = Trial(mine.EXPERIMENT.with_epochs(1), mine.EXPERIMENT.method("stay"), 0)
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(EnoughError):
        trial.run(Setting(), Stop(lambda event: None), checkpoint)
    told = []
    resumed = trial.run(Setting(), TrialProgress(told.append), checkpoint)
    assert any(getattr(event, "line", "") == "resuming after task 3 of 5" for event in told)
    uncut = trial.run()
    assert {k: v for k, v in resumed.items() if k not in TIMES} == {k: v for k, v in uncut.items() if k not in TIMES}
    assert resumed["resumed"] == 1

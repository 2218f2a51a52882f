"""The measurements run, on models so small that their numbers mean nothing, and count what they say they count."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2]))
from avsi.models import MLP
from perf import breakdown, growth, rounds, steps, training
from perf.__main__ import Arguments, main


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    tiny = training.Size(lambda head: MLP(784, (8, 8), head), (1, 28, 28), 16, 2, 3)
    monkeypatch.setitem(training.SIZES, "mlp256", tiny)


def test_one_command_measures_prints_and_keeps(tmp_path, capsys):
    path = tmp_path / "numbers.json"
    main(Arguments(parts=("steps",), sizes=("mlp256",), rounds=2, json=path))
    main(Arguments(parts=("breakdown",), sizes=("mlp256",), rounds=2, json=path))
    kept = json.loads(path.read_text())
    assert kept.keys() == {"machine", "steps", "breakdown"}
    by_method = {row["method"]: row for row in kept["steps"]["mlp256"]}
    assert by_method.keys() == training.METHODS.keys()
    assert by_method["Naive"]["later tasks"] == 1.0
    block = 784 * 8 / by_method["SI"]["parameters"]  # the penalty's, here the whole first layer
    assert by_method["SI"]["held between steps"] == by_method["SI"]["held in a step"] == pytest.approx(5 + block)
    assert by_method["MAS"]["held between steps"] == pytest.approx(2 + block)
    assert by_method["Online EWC"]["held in a step"] == pytest.approx(2 + block)
    assert by_method["Online EWC"]["consolidation"] > by_method["SI"]["consolidation"] > 0
    assert sum(row["plugin"] > 0 for row in kept["breakdown"]["mlp256"]) == len(breakdown.SHOWN) - 1
    assert "Avalanche's SI" in capsys.readouterr().out


def test_growth(tmp_path, monkeypatch):
    heads = {"one head": training.SIZES["mlp256"].model, "a head per task": training.multi_head((8,))}
    monkeypatch.setattr(growth, "HEADS", heads)
    tasks = list(growth.over_tasks(1, "cpu", (2, 3)))
    parameters = list(growth.over_parameters(1, "cpu", {1: 4, 2: 8}))
    held = {(row["method"], row["heads"], row["tasks"]): row["held"] for row in tasks}
    assert held["SI", "one head", 2] == held["SI", "one head", 3] == pytest.approx(5 + 784 * 8 / 6442)
    assert 5 < held["SI", "a head per task", 3] < 6
    assert held["Avalanche's EWC, separate", "one head", 3] > held["Avalanche's EWC, separate", "one head", 2]
    assert [row["parameters"] for row in parameters if row["method"] == "SI"] == [3210, 6442]
    growth.draw(tasks, parameters, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_rounds_are_interleaved_and_ratios_are_taken_within_a_round(monkeypatch):
    calls, now = [], iter(range(1000))
    monkeypatch.setattr(rounds, "clock", lambda: float(next(now)))
    runs = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    times = rounds.interleave(runs, 3, "cpu", slow={"c"}, slow_rounds=1, warm_up=1)
    assert "".join(calls) == "ab" + "abc" + "ab" + "ab"
    assert times == {"a": [1.0] * 3, "b": [1.0] * 3, "c": [1.0]}
    assert rounds.interleave(runs, 1, "cpu", slow={"c"}).keys() == {"a", "b"}
    assert rounds.ratio([2.0, 30.0, 4.0], [1.0, 10.0, 8.0]) == 2.0


def test_memory_is_counted_once_for_each_storage():
    model = torch.nn.Linear(4, 4, bias=False)

    class Plugin:
        def __init__(self):
            self.whole = torch.zeros(4, 4)
            self.views = {"a": [self.whole[0], self.whole[1]], "parameter": model.weight}

    assert steps.held(Plugin(), model) == 16

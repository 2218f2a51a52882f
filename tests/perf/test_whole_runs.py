"""Loops by hand do what trials do; what is compared is the same thing; parts add up."""

import json
import mmap
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

sys.path.append(str(Path(__file__).parents[2]))
from avsi.importance import fisher_diagonal
from perf import first_seconds, floors, importance, memory, plain_loop, readme, rounds, training, whole_runs
from perf.floors import Loop, Network


@pytest.fixture
def _short(monkeypatch):
    monkeypatch.setitem(floors.FLOORS, "digits", replace(floors.FLOORS["digits"], epochs=3, rate=0.01))


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("method", floors.METHODS)
def test_loops_by_hand_learn(method):
    loop = Loop(floors.FLOORS["digits"], method, "Adam", every=2)
    matrix = loop.run()
    assert [len(row) for row in matrix] == [5] * 5
    assert min(matrix[task][task] for task in range(5)) > 0.8
    assert loop.steps == 3 * sum(-(-len(train.labels) // 16) for train, _ in loop.tasks)


@pytest.mark.usefixtures("_short")
def test_a_run_is_timed_by_hand_and_with_avsi(monkeypatch):
    monkeypatch.setattr(whole_runs, "SHORT", 4)
    row = whole_runs.in_turns("digits", "SI", "Adam", whole_runs.Arguments(every=4, rounds=1, stock_rounds=0))
    assert row["seconds"].keys() == row["accuracy"].keys() == {"by hand", "avsi"}
    assert all(value > 0.6 for value in row["accuracy"].values())
    whole_runs.show(row)


@pytest.mark.usefixtures("_short")
def test_parts_of_a_run_add_up_and_are_all_found(monkeypatch):
    found = whole_runs.taken_apart("digits", "SI", "Adam", 4)
    for name, seconds in found.items():
        missing = {part for part, value in seconds.items() if value <= 0}
        assert missing <= ({"metrics", "files"} if name == "by hand" else set())


def test_the_plain_loop_computes_the_exact_fisher_information():
    torch.manual_seed(0)
    network = Network(replace(floors.FLOORS["digits"]), plastic=False)
    x, y = torch.rand(6, 1, 8, 8), torch.arange(6) % 2
    by_hand = plain_loop.exact_fisher(network, TensorDataset(x, y), 3)
    ours = fisher_diagonal(nn.Sequential(network.body, network.head(3)), [(x, y)], labels="exact")
    for (name, value), other in zip(by_hand.items(), ours.values(), strict=False):
        assert name.startswith("body")
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-9)


def test_methods_that_compute_importances_agree_and_others_say_why_not(monkeypatch):
    monkeypatch.setitem(importance.SETTINGS, "mlp", replace(importance.SETTINGS["mlp"], model=small, shape=(12,)))
    monkeypatch.setitem(importance.METHODS, "broken", lambda model, batches: model.nothing)
    found, failed = importance.try_out("mlp", "cpu")
    assert list(failed) == ["broken"]
    assert "nothing" in failed["broken"]
    for name, other in importance.AGREES_WITH.items():
        apart = importance.difference(found[name], found[other])
        assert apart > 1e-3 if "estimate" in name else apart < 1e-5


def small():
    return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 10))


def test_peaks_are_measured(monkeypatch):
    tiny = training.Size(lambda head: training.MLP(784, (8, 8), head), (1, 28, 28), 16, 2, 3)
    monkeypatch.setitem(training.SIZES, "mlp256", tiny)
    found = memory.peaks("mlp256", "SI")
    assert found.keys() == {"step", "consolidation", "parameters"}
    before = rounds.resident("VmRSS")
    block = mmap.mmap(-1, 2**26)  # new pages; an allocator may have old ones left
    block.write(bytes(2**26))
    assert rounds.resident("VmHWM") >= before + 0.9 * len(block)


def test_a_process_that_fails_is_an_error():
    assert first_seconds.seconds([sys.executable, "-c", "pass"], cpu_time=False) > 0
    with pytest.raises(RuntimeError, match="nothing here"):
        first_seconds.seconds([sys.executable, "-c", "raise SystemExit('nothing here')"], cpu_time=True)


def test_the_readme_shows_the_published_numbers():
    text = readme.HERE.joinpath("README.md").read_text()
    assert readme.fill(text, readme.HERE / "results") == text
    assert json.loads(readme.HERE.joinpath("results", "cpu.json").read_text())["machine"]["threads"] == 1

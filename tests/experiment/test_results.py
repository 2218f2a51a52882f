import json
import os
import threading

import pytest

from avsi.experiment import ExperimentError
from avsi.experiment.results import Results, write_text
from avsi.experiment.study import read_trials

RESULT = {"accuracy": 0.5, "bwt": -0.1, "task_accuracy": [0.5], "accuracy_matrix": [[0.5]], "data": []}


def test_results_are_read_back_by_protocol(experiment, tmp_path):
    results, method = Results(tmp_path), experiment.method("si")
    assert results.read(experiment, method, 0) is None
    path = results.write(experiment, method, {"seed": 0} | RESULT)
    assert path == tmp_path / "tiny" / f"si-{experiment.digest(method)}" / "seed-000.json"
    assert results.read(experiment, method, 0) == {"schema": 1, "seed": 0} | RESULT
    assert results.read(experiment.with_epochs(1), method, 0) is None
    results.write(experiment, method, {"seed": 12} | RESULT)
    (path.parent / "seed-000 (copy).json").write_text("{}")
    assert [r["seed"] for r in read_trials(path.parent)] == [0, 12]


@pytest.mark.parametrize("content", ["", '{"schema": 1, "seed"', "[]", '{"schema": 0}', '{"schema": 1, "seed": 0}'])
def test_unreadable_result_is_named(experiment, tmp_path, content):
    results, method = Results(tmp_path), experiment.method("si")
    path = results.path(experiment, method, 0)
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ExperimentError, match=r"seed-000\.json.*delete it to run the trial again"):
        results.read(experiment, method, 0)


def test_numbers_that_are_none_are_refused_before_the_file_exists(experiment, tmp_path):
    results, method = Results(tmp_path), experiment.method("si")
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.write(experiment, method, {"seed": 0, "accuracy": float("nan")})
    assert not results.path(experiment, method, 0).exists()


def test_readers_never_see_half_a_file(tmp_path):
    path = tmp_path / "result.json"
    long = json.dumps({"x": list(range(20_000))})
    write_text(path, long)
    stop = threading.Event()
    bad = []

    def read():
        while not stop.is_set():
            if len(path.read_text()) != len(long):
                bad.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        write_text(path, long)
    stop.set()
    reader.join()
    assert not bad
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_text(path, "old")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_folder_that_is_not_writable(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(ExperimentError, match=r"cannot write to the results folder .*file/results.*--out"):
        Results(blocker / "results")


def test_a_trial_is_in_one_runs_hands_at_a_time(experiment, tmp_path):
    trial = (experiment, experiment.method("si"), 0)
    here, there = Results(tmp_path), Results(tmp_path)
    lock = here.claim(*trial)
    assert there.claim(*trial) is None
    assert there.claim(*trial[:2], 1) is not None
    assert there.claim(experiment.with_epochs(1), *trial[1:]) is not None
    here.release(*trial, lock)
    lock = there.claim(*trial)
    assert lock is not None
    assert here.claim(*trial) is None


def test_a_finished_trial_leaves_its_result_only(experiment, tmp_path):
    results, method = Results(tmp_path), experiment.method("si")
    locks = [results.claim(experiment, method, seed) for seed in (0, 1)]
    path = results.write(experiment, method, {"seed": 0} | RESULT)
    path.with_name(".seed-000.json.123.part").write_text("{")  # of a run that was killed
    results.release(experiment, method, 0, locks[0])
    results.release(experiment, method, 1, locks[1])
    assert sorted(file.name for file in path.parent.iterdir()) == [".seed-001.lock", "seed-000.json"]
    again = results.claim(experiment, method, 0)
    assert again is not None


def test_folder_that_cannot_be_locked(experiment, tmp_path):
    results, method = Results(tmp_path), experiment.method("si")
    results.trial_folder(experiment, method).parent.mkdir()
    results.trial_folder(experiment, method).write_text("")
    with pytest.raises(ExperimentError, match=r"cannot lock .*seed-000\.lock.*--out"):
        results.claim(experiment, method, 0)

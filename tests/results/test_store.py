import json
import os

import pytest
from studies import diverged, entry, trial, write

from avsi.experiment.trial import trial_file
from avsi.files import write_text
from avsi.results.store import (
    ResultsError,
    claim,
    prepare,
    read_trial,
    release,
    write_trial,
)


@pytest.fixture
def path(tmp_path):
    return trial_file(tmp_path / "tiny" / "dhp+si-0123456789", 3)


def test_trials_are_read_back(path, tmp_path):
    assert read_trial(path) is None
    written = trial(3) | {"method": "dhp+si", "digest": "0123456789"}
    write_trial(path, written)
    assert path == tmp_path / "tiny" / "dhp+si-0123456789" / "seed-003.json"
    assert read_trial(path) == {"schema": 1} | written
    write_trial(path, diverged(3, 0.5))
    assert read_trial(path)["divergence"]["stable_strength"] == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "it is of seed 4"),
        ({"seed": True}, "seed: missing, or no such value"),
        ({"method": "si"}, "it is of method si"),
        ({"digest": "x"}, "it is of digest x"),
        ({"accuracy": None}, "accuracy: missing"),
        ({"accuracy": True}, "accuracy: missing, or no such value"),
        ({"accuracy": 90.0}, "accuracy: missing, or no such value"),
        ({"task_accuracy": []}, "not one number, row and column for each task"),
        ({"accuracy": 0.001}, "its accuracy is not the mean of its task_accuracy"),
        ({"accuracy_matrix": [[0.5, 0.5]]}, "not one number, row and column for each task"),
        ({"data": {}}, "data: missing, or no such value"),
        ({"train_accuracy": [0.5]}, "not one number, row and column for each task"),
        ({"class_images": [[1, 2]] * 2}, "not one number, row and column for each task"),
        ({"schema": 0}, "not of schema 1"),
        ({"status": "diverged"}, "it diverged and has accuracies"),
    ],
)
def test_what_cannot_be_is_refused_and_says_how_to_mend_it(path, change, message):
    write_text(path, json.dumps({"schema": 1} | trial(3) | change))
    with pytest.raises(ResultsError, match=rf"seed-003\.json.*{message}.*delete it and run its script again"):
        read_trial(path)


def test_missing_keys_are_named(path):
    write_text(path, '{"schema": 1, "seed": 3}')
    with pytest.raises(ResultsError, match="accuracy, task_accuracy, data: missing"):
        read_trial(path)


def test_numbers_that_are_none_are_refused_before_the_file_exists(path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_trial(path, {"seed": 3, "accuracy": float("nan")})
    assert not path.exists()


def test_texts_of_files_become_short_harmless_lines_and_numbers_that_are_none_are_left_out(path):
    description = {"a\nb": ["SI,\x1b[31m c = 1\n", "a\u202eb\0", "é" * 1000], "x": [10**400, 1.5, True, None, 3]}
    write_text(path, json.dumps({"schema": 1} | trial(3) | {"description": description}).replace("1.5", "1e999"))
    assert read_trial(path)["description"] == {
        "a b": ["SI, [31m c = 1", "a b", "é" * 477 + "..."],
        "x": [None, None, True, None, 3],
    }


def test_what_is_nested_too_deeply_is_damaged(path):
    write_text(path, json.dumps({"schema": 1} | trial(3)).replace('"mnist"', "[" * 200 + "]" * 200))
    with pytest.raises(ResultsError, match=r"damaged \(more than 50 levels"):
        read_trial(path)


def test_folders_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "results", tmp_path / ("x" * 5000), tmp_path / "a\0b"):
        with pytest.raises(ResultsError, match=r"cannot write to the results folder .*--out"):
            prepare(folder)
    assert list(prepare(tmp_path / "new" / "results").iterdir()) == []


def test_a_trial_is_in_one_runs_hands_at_a_time(path):
    lock = claim(path)
    assert claim(path) is None
    assert claim(path.with_name("seed-004.json")) is not None
    release(path, lock)
    lock = claim(path)
    assert lock is not None
    assert claim(path) is None


def test_a_finished_trial_leaves_its_result_only(path):
    locks = {seed: claim(trial_file(path.parent, seed)) for seed in (3, 4)}
    write_trial(path, trial(3))
    path.with_name(".seed-003.json.123.part").write_text("{")  # of a run that was killed
    for seed, lock in locks.items():
        release(trial_file(path.parent, seed), lock)
    assert sorted(file.name for file in path.parent.iterdir()) == [".seed-004.lock", "seed-003.json"]
    assert claim(path) is not None


def test_folder_that_cannot_be_locked(path):
    path.parent.parent.mkdir()
    path.parent.write_text("")
    with pytest.raises(ResultsError, match=r"cannot lock .*seed-003\.lock.*--out"):
        claim(path)


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


def test_experiments_are_named_by_their_protocol(tmp_path):
    assert write(tmp_path, entry("si"), suffix="-1-epochs") == tmp_path / "tiny" / "experiment-1-epochs.json"

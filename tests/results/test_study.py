import doctest
import json
import re
from pathlib import Path

import pytest
from studies import diverged, entry, outcome, study, trial, write

from avsi.metrics import backward_transfer, forgetting
from avsi.results import ResultsError, tables, trials
from avsi.results import study as reading
from avsi.results.study import read_studies

FINETUNE, SI = entry("finetune"), entry("si")
REPOSITORY = Path(__file__).parents[2]


def test_a_folder_is_read_with_candidates_changed_protocols_and_foreign_trials(tmp_path):
    chosen, other = entry("si_1", folder=SI["folder"], candidate_of="si"), entry("si_2", candidate_of="si")
    old = entry("old")
    write(
        tmp_path, FINETUNE, SI, chosen, other, trials=[(SI, trial(1)), (SI, trial(0)), (other, trial()), (old, trial())]
    )
    write(tmp_path, entry("si", folder="si-1111111111"), suffix="-1-epochs", deviation="1 epoch instead of 2",
          trials=[(entry("si", folder="si-1111111111"), trial())])  # fmt: skip
    (changed, whole), problems = read_studies(tmp_path / "tiny")
    assert problems == []
    assert list(whole.methods.index) == ["finetune", "si", "si_1", "si_2"]
    assert list(whole.trials.index) == [("si", 0), ("si", 1), ("si_1", 0), ("si_1", 1), ("si_2", 0)]
    assert list(whole.compared.index) == ["si"]
    assert list(whole.run.index) == ["si", "si_1", "si_2"]
    assert len(whole.trials.file.unique()) == 3
    assert (changed.suffix, changed.name) == ("-1-epochs", "tiny-1-epochs")
    assert changed.heading == "Tiny (1 epoch instead of 2)"
    for name in ("si", "si_2"):
        assert list(whole.only([name]).methods.index) == ["si", "si_1", "si_2"]
        assert len(whole.only([name]).trials) == 5
    assert whole.only(["finetune"]).trials.empty


def test_what_cannot_be_compared_is_left_out_by_row(tmp_path):
    mas = entry("mas")
    rows = [(FINETUNE, trial()), (SI, trial()), (SI, trial(1, (0.5, 0.5))), (mas, diverged(1))]
    write(tmp_path, FINETUNE, SI, mas, SI, trials=rows)
    ((found,), problems) = read_studies(tmp_path / "tiny")
    assert found.trials.groupby("method", sort=False).size().to_dict() == {"finetune": 1, "si": 1, "mas": 1}
    renamed, short = problems
    assert "named as another" in renamed
    assert re.search(r"si-0123456789/seed-001.json is left out \(2 tasks instead of 3\)", short)


def test_trials_without_an_experiment_file_say_how_to_mend_it(tmp_path):
    write(tmp_path, SI, trials=[(SI, trial())]).unlink()
    studies, (problem,) = read_studies(tmp_path / "tiny")
    assert studies == []
    assert "run its script once" in problem


def test_trials_as_one_table(tmp_path):
    chosen = entry("si_1", folder=SI["folder"], candidate_of="si")
    rows = [(FINETUNE, trial()), (SI, trial(0, code="abc")), (SI, diverged(1, 0.5))]
    write(tmp_path, FINETUNE, SI, chosen, trials=rows, protocol="zenke")
    frame = trials(tmp_path)
    assert frame[["method", "seed", "status"]].values.tolist() == [
        ["finetune", 0, "finished"], ["si", 0, "finished"], ["si", 1, "diverged"],
        ["si_1", 0, "finished"], ["si_1", 1, "diverged"],
    ]  # fmt: skip
    assert len(frame.drop_duplicates("file")) == 3
    assert frame.accuracy.tolist()[:2] == [0.9, 0.9]
    assert frame.accuracy.isna().sum() == 2
    assert set(frame.protocol) == {"zenke"}
    assert all(file.exists() for file in frame.file)
    assert trials(tmp_path / "tiny").empty
    with pytest.raises(ResultsError, match="cannot read"):
        trials(tmp_path / "none")


def test_damaged_trials_are_named_in_a_warning(tmp_path):
    write(tmp_path, SI, trials=[(SI, trial()), (SI, trial(1))])
    (tmp_path / "tiny" / SI["folder"] / "seed-001.json").write_text("{")
    with pytest.warns(UserWarning, match=r"seed-001\.json is damaged"):
        assert len(trials(tmp_path)) == 1


def test_diverged_trials_are_told_of_with_the_stable_strength():
    found = study(outcome("a", trial()), outcome("b", trial(), diverged(1), diverged(2)))
    assert list(found.summary.diverged) == ["", "diverged (2 of 3)"]
    lost = study(outcome("si", diverged(0, 0.5), diverged(1, 0.25)))
    assert lost.summary.diverged["si"] == "diverged (2 of 2), stable strength 0.25"
    assert lost.by_seed("accuracy").isna().all(axis=None)
    assert lost.tasks == 0


def test_all_committed_results_are_read_without_complaint():
    read = [read_studies(folder) for folder in (REPOSITORY / "reproductions" / "results").iterdir() if folder.is_dir()]
    assert [problem for _, problems in read for problem in problems] == []
    files = set((REPOSITORY / "reproductions" / "results").glob("*/*/seed-*.json"))
    assert {file for studies, _ in read for found in studies for file in found.trials.file} == files


def test_the_parts_of_committed_trials_agree():
    found = [
        json.loads(file.read_text()) for file in (REPOSITORY / "reproductions" / "results").glob("*/*/seed-*.json")
    ]
    in_sequence = [result for result in found if result.get("accuracy_matrix")]
    assert len(in_sequence) > 600
    for result in in_sequence:
        matrix = result["accuracy_matrix"]
        assert matrix[-1] == pytest.approx(result["task_accuracy"], abs=1e-9)
        assert result["bwt"] == pytest.approx(backward_transfer(matrix), abs=1e-9)
        assert result["forgetting"] == pytest.approx(forgetting(matrix), abs=1e-9)


@pytest.mark.parametrize("module", [reading, tables], ids=lambda m: m.__name__)
def test_examples(module, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    failed, tried = doctest.testmod(module)
    assert (failed, tried > 0) == (0, True)

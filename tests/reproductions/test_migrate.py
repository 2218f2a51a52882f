import json
import shutil
from pathlib import Path

import pytest
from migrate import migrate, migrated

from avsi.experiment import ExperimentError
from avsi.experiment.description import digest
from avsi.experiment.trial import trial_file
from avsi.results import store

RESULTS = Path(__file__).parents[2] / "reproductions" / "results"
OLD = {"call": "avsi.scenarios.permuted_mnist", "args": [], "kwargs": {"tasks": 5, "permute_first": True}}


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.json")}


def test_committed_results_are_found_by_todays_descriptions_and_migrate_to_themselves(tmp_path):
    folder = shutil.copytree(RESULTS, tmp_path / "results")
    before = {path: json.loads(path.read_text()) for path in folder.glob("*/*/seed-*.json")}
    assert len(before) > 100
    assert list(migrate(folder)) == []
    for path, old in before.items():
        new = store.read_trial(path)
        assert new["digest"] == digest(new["description"])
        assert path.parent.name == f"{new['description']['method']['name']}-{new['digest']}"
        assert new == old | {"code": old.get("code")}
    once = contents(folder)
    assert list(migrate(folder)) == []
    assert contents(folder) == once


@pytest.fixture
def old(tmp_path):
    """A results folder with a trial of renamed arguments."""
    description = {"experiment": "e", "scenario": OLD, "method": {"name": "si"}}
    folder = tmp_path / "e" / f"si-{digest(description)}"
    measured = {"seed": 1, "accuracy": 0.5, "bwt": None, "task_accuracy": [0.5], "accuracy_matrix": None, "data": []}
    trial = measured | {"method": "si", "description": description, "digest": digest(description)}
    store.write_trial(trial_file(folder, 1), trial)
    (folder / "tensorboard-001").mkdir()
    methods = [{"name": "si", "folder": folder.name, "digest": trial["digest"]}, {"name": "b", "folder": "b-0"}]
    store.write_experiment(tmp_path, {"name": "e", "methods": methods})
    return tmp_path, folder


def test_renamed_arguments_move_the_trial_and_keep_its_numbers(old):
    root, folder = old
    (line,) = migrate(root)
    (new,) = (path for path in (root / "e").iterdir() if path.is_dir())
    assert line == f"{folder} is {new.name} now"
    trial = store.read_trial(new / "seed-001.json")
    assert trial["description"]["scenario"]["kwargs"] == {"n_experiences": 5, "permute_first": True}
    assert trial["accuracy"] == 0.5
    assert (new / "tensorboard-001").is_dir()
    methods = json.loads((root / "e" / "experiment.json").read_text())["methods"]
    assert [method["folder"] for method in methods] == [new.name, "b-0"]
    assert methods[0]["digest"] == trial["digest"]
    assert list(migrate(root)) == []


def test_a_default_that_has_changed_is_said():
    name = "avsi.scenarios.mnist_background"
    assert migrated(name) == {"call": name, "args": [], "kwargs": {"backgrounds": "cifar10"}}
    given = {"call": name, "args": [], "kwargs": {"backgrounds": "mnist"}}
    assert migrated(given) == given


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("avsi.scenarios.nothing", "there is no avsi.scenarios.nothing"),
        ({"call": "avsi.models.MLP", "args": [[]], "kwargs": {"wide": 1}}, "avsi.models.MLP: got an unexpected"),
        ({"method": {"strategy": "avsi.strategies.Nothing"}}, "there is no avsi.strategies.Nothing"),
    ],
)
def test_what_is_not_known_is_refused(description, message):
    with pytest.raises(ExperimentError, match=message):
        migrated(description)


def test_nothing_is_changed_where_something_is_not_known(old):
    root, _ = old
    other = trial_file(root / "e" / "x-0", 0)
    store.write_trial(other, {"seed": 0, "description": {"model": "avsi.models.Nothing", "method": {"name": "x"}}})
    before = contents(root)
    with pytest.raises(
        ExperimentError, match=r"x-0/seed-000.json: there is no avsi.models.Nothing; nothing was changed"
    ):
        list(migrate(root))
    assert contents(root) == before

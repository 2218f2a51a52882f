"""Private names of Avalanche: all listed, all there, all as they are used."""

import ast
import inspect
from importlib import import_module
from pathlib import Path

import pytest
import torch
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.training.templates import SupervisedTemplate
from training import naive, seeded_mlp

import avsi
from avsi._avalanche import INSTANCE_NAMES, PRIVATE_NAMES, joint_experiences, stream_length, unpacked

ROOT = Path(avsi.__file__).parents[1]
LISTED = {name for names in (*PRIVATE_NAMES.values(), *INSTANCE_NAMES.values()) for name in names}


def home(where):
    module, _, name = where.partition(":")
    return getattr(import_module(module), name) if name else import_module(module)


@pytest.mark.parametrize(("where", "name"), [(w, n) for w, names in PRIVATE_NAMES.items() for n in names])
def test_private_names_exist(where, name):
    assert hasattr(home(where), name), f"Avalanche has no {where}.{name} any more"


def test_private_attributes_exist(digits):
    from avalanche.training import JointTraining

    model = seeded_mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = digits.train_stream[0].dataset
    objects = {
        "JointTraining": naive(model, optimizer, strategy=JointTraining),
        "Naive": naive(model, optimizer),
        "EvaluationPlugin": naive(model, optimizer).evaluator,
        "CLExperience": digits.train_stream[0],
        "DatasetExperience": digits.train_stream[0],
        "AvalancheDataset": data,
        "DataAttribute": data.targets,
        "FlatData": data._flat_data,
        "_FlatDataWithTransform": data._flat_data,
    }
    objects["JointTraining"].train(digits.train_stream[:1], eval_streams=[])
    for where, names in INSTANCE_NAMES.items():
        for name in names:
            assert hasattr(objects[where.partition(":")[2]], name), f"Avalanche has no {where}.{name} any more"


def test_they_do_what_they_are_used_for(digits):
    from avalanche.training.utils import _at_task_boundary

    assert list(inspect.signature(_at_task_boundary).parameters) == ["training_experience", "before"]
    assert _at_task_boundary(digits.train_stream[0], before=True) is True
    assert stream_length(digits.train_stream[:2]) == 5
    for experience in digits.train_stream:
        assert experience.dataset.targets.uniques == set(experience.dataset.targets)
    model = seeded_mlp()
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.1))
    batch = [torch.zeros(2, 64), torch.tensor([0, 1]), torch.tensor([3, 3])]
    assert all(a is b for a, b in zip(unpacked(strategy, batch, with_tasks=True), batch, strict=True))
    assert len(unpacked(strategy, batch, with_tasks=False)) == 2
    assert strategy.mbatch is None


def test_joint_training_shows_its_experiences(digits):
    from avalanche.training import JointTraining

    model = seeded_mlp()
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.1), strategy=JointTraining)
    strategy.train(digits.train_stream[:2], eval_streams=[])
    assert joint_experiences(strategy) == list(digits.train_stream[:2])


def imports_of_avalanche(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "avalanche":
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("package", ["avsi", "scenarios", "strategies"])
def test_no_private_name_is_imported_unlisted(package):
    for path in (ROOT / package).rglob("*.py"):
        for name in imports_of_avalanche(ast.parse(path.read_text())):
            assert not name.startswith("_") or name in LISTED, f"{path} imports {name}: list it"


def private(owner):
    return {name for name in dir(owner) if name.startswith("_") and not name.startswith("__")}


def test_no_private_attribute_is_used_unlisted(digits):
    """Attributes with an underscore that avsi's own classes do not define are Avalanche's, also as text in getattr."""
    model = seeded_mlp()
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.1))
    experience = digits.train_stream[0]
    data = experience.dataset
    known = set().union(
        *map(private, (strategy, strategy.evaluator, experience, data, data._flat_data, data.targets)),
        *map(private, (digits.train_stream, AvalancheDataset, SupervisedTemplate)),
    )
    unlisted = []
    for package in ("avsi", "scenarios", "strategies"):
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            for node in ast.walk(tree):
                name = getattr(node, "attr", getattr(node, "value", None))
                if isinstance(name, str) and name in known - defined - LISTED:
                    unlisted.append(f"{path}:{node.lineno} uses {name}: list it")
    assert unlisted == []

"""A user's own code is part of what a trial is."""

import importlib.util
import linecache
import os
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy
import pytest
import torch

from avsi.experiment.description import describe
from avsi.experiment.sources import is_own, source_fingerprint
from avsi.models import MLP

MODULE = '''
from dataclasses import dataclass
from functools import cache, partial
import package.inner
import parts
import parts as also
from parts import Base
from avsi.experiment import lazy_imports
with lazy_imports():
    from parts import late

RATE = 0.1

@dataclass(frozen=True)
class Sizes:
    """Sizes."""
    hidden: int = 16

SIZES = Sizes(8)
TABLE = {"a": [1, partial(int, "3")], "b": {"x", "y", "z"}}

def helper(x):
    """Help."""
    return x + RATE  # a comment

@cache
def cached():
    return 5

class Network(Base):
    """A network."""

    def __init__(self):
        super().__init__()
        self.hidden = SIZES.hidden

    def forward(self, x):
        from parts import inside
        import package.within as within
        import parts as again
        x = inside(x) + within.deep(x) + again.renamed(x) + package.inner.dotted(x)
        return helper(x) + parts.other(x) + cached() + late(x) + len(TABLE)

def unrelated():
    return 1

BUILD = lambda: (Network(), parts.shown, also.unused, package.inner.seen)
'''
PARTS = """
import nothing_of_use

def other(x):
    return x

def late(x):
    return 2 * x

def unused(x):
    return 3 * x

def inside(x):
    return x // 1

def renamed(x):
    return x // 2

def shown(x):
    return x // 3

class Base:
    scale = 1
"""
INNER = """
def dotted(x):
    return x // 4

def seen(x):
    return x // 5
"""
FILES = {
    "mine.py": MODULE,
    "parts.py": PARTS,
    "nothing_of_use.py": "",
    "package/__init__.py": "",
    "package/inner.py": INNER,
    "package/within.py": "def deep(x):\n    return x // 6\n",
}


def described(folder: Path, *edits: tuple[str, str], what: str = "Network", how: str = "import"):
    """What a fresh process describes a thing of a module as, after some edits."""
    (folder / "package").mkdir(exist_ok=True)
    texts = dict(FILES)
    for edit in edits:
        edited = {name: text.replace(*edit) for name, text in texts.items()}
        assert edited != texts
        texts = edited
    for name, text in texts.items():
        (folder / name).write_text(text)
    module = texts["mine.py"]
    show = f"from avsi.experiment.description import describe; print(describe({what}))"
    if how == "import":
        command = ["-c", f"from mine import {what}; {show}"]
    else:
        (folder / "script.py").write_text(f"{module}\n{show}\n")
        command = ["script.py"] if how == "run" else ["-c", f"{module}\n{show}"]
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    return done.stdout


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return described(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize(
    "edit",
    [
        ("helper(x) + parts", "helper(x) - parts"),
        ("return x + RATE", "return x - RATE"),
        ("RATE = 0.1", "RATE = 0.2"),
        ("Sizes(8)", "Sizes(9)"),
        ('"3"', '"4"'),
        ("return 5", "return 6"),
        ("scale = 1", "scale = 2"),
        ("def other(x):\n    return x", "def other(x):\n    return -x"),
        ("return 2 * x", "return 4 * x"),
        ("return x // 1", "return x // 7"),
        ("return x // 2", "return x // 7"),
        ("return x // 4", "return x // 7"),
        ("return x // 6", "return x // 7"),
    ],
)
def test_what_is_edited_is_another(edit, base, tmp_path):
    now = described(tmp_path, edit)
    assert now.startswith("{'name': 'mine.Network', 'source': ")
    assert now != base


CONSTANTS = """
from enum import Enum
from functools import partial
from types import SimpleNamespace
import numpy
import torch
from torch import nn
from torch.nn import ReLU as Activation
import torch.nn.functional as F
from torchvision.transforms import v2

class Kind(Enum):
    SOFT = 61
    HARD = 62

class Plan:
    def __init__(self, size):
        self.size, self.own = size, self

    def twice(self):
        return 63 + 64

KIND, PLAN, PLANNED = Kind.SOFT, Plan(65), [Plan(66)]
LAYER, MAKE, BY_NAME = nn.Sigmoid, partial(torch.optim.SGD, lr=0.5), {"act": nn.GELU}
SPACE, COUNTS, WIDE = SimpleNamespace(width=67), range(68), numpy.int64(69)
def enclose(value, extra=80):
    return lambda: value

ENCLOSED, DEFAULT, BOUND = enclose(81), lambda value=82: value, Plan(83).twice
HALF, CROP, TABLE = torch.float16, v2.Compose([v2.RandomCrop(28, padding=2)]), numpy.zeros(3)

def build():
    return (
        KIND, PLAN, PLANNED, LAYER, MAKE, BY_NAME, SPACE, COUNTS, WIDE, HALF, CROP, TABLE, Activation, F.relu,
        nn.Linear, ENCLOSED, DEFAULT, BOUND
    )
"""


def fingerprint_of(text, folder):
    """Of ``build`` in a module of this text, loaded anew."""
    folder.mkdir()
    (folder / "constants_of_mine.py").write_text(text)
    spec = importlib.util.spec_from_file_location("constants_of_mine", folder / "constants_of_mine.py")
    sys.modules["constants_of_mine"] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return describe(module.build)["source"]
    finally:
        del sys.modules["constants_of_mine"]


@pytest.mark.parametrize(
    "edit",
    [
        ("SOFT = 61", "SOFT = 71"),
        ("Kind.SOFT", "Kind.HARD"),
        ("Plan(65)", "Plan(75)"),
        ("Plan(66)", "Plan(76)"),
        ("return 63 + 64", "return 63 - 64"),
        ("nn.Sigmoid", "nn.Tanh"),
        ("torch.optim.SGD", "torch.optim.Adam"),
        ("nn.GELU", "nn.SELU"),
        ("width=67", "width=77"),
        ("range(68)", "range(78)"),
        ("int64(69)", "int64(79)"),
        ("torch.float16", "torch.bfloat16"),
        ("padding=2", "padding=3"),
        ("ReLU as Activation", "ELU as Activation"),
        ("torch.nn.functional as F", "torch as F"),
        ("enclose(81)", "enclose(91)"),
        ("value=82", "value=92"),
        ("Plan(83)", "Plan(93)"),
    ],
)
def test_constants_that_are_edited_are_others(edit, tmp_path):
    was = fingerprint_of(CONSTANTS, tmp_path / "was")
    edited = CONSTANTS.replace(*edit)
    assert edited != CONSTANTS
    assert fingerprint_of(edited, tmp_path / "edited") != was
    assert fingerprint_of(CONSTANTS, tmp_path / "again") == was


TYPED = """
class Base:
    depth = 41

class Network(Base):
    size = 42

    def __init__(self, hidden=43, *, more=44):
        self.hidden = hidden + more

    @property
    def wide(self):
        return 45

    @staticmethod
    def still():
        return 46

def enclose(value):
    def again(count):
        return again(count - 1) if count else value
    return again

NAMED = enclose(47)

def build():
    return Network(), NAMED
"""


def typed(text, monkeypatch):
    """What `build` is described as in a notebook or a shell, where no class has a file."""
    module = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    exec(text, vars(module))
    return describe(module.build)["source"]


@pytest.mark.parametrize("number", range(41, 48))
def test_what_is_typed_anew_with_another_number_is_another(number, monkeypatch):
    was = typed(TYPED, monkeypatch)
    assert typed(TYPED.replace(f"{number}", "7"), monkeypatch) != was
    assert typed(TYPED, monkeypatch) == was


def test_a_function_that_calls_itself_is_described(monkeypatch):
    module = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    exec(TYPED, vars(module))
    assert describe(module.NAMED) != describe(module.enclose(7))
    assert describe(module.NAMED) == describe(module.enclose(47))


def test_a_class_whose_module_is_loaded_into_it_again_is_another(tmp_path):
    text = "class Network:\n    size = 8\n\n    def forward(self, x):\n        return x\n"
    file = tmp_path / "loaded_again.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location("loaded_again", file)
    sys.modules["loaded_again"] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        fingerprints = [source_fingerprint(module.Network)]
        file.write_text(text.replace("return x", "return -x"))
        linecache.clearcache()
        source_fingerprint.cache_clear()
        assert source_fingerprint(module.Network) == fingerprints[0]  # only the file is another
        changed = {}
        exec(compile(file.read_text(), file, "exec"), changed)
        module.Network.forward.__code__ = changed["Network"].forward.__code__  # as notebooks' autoreload does
        source_fingerprint.cache_clear()
        assert source_fingerprint(module.Network) != fingerprints[0]
    finally:
        del sys.modules["loaded_again"]


def test_what_says_and_does_the_same_is_the_same(base, tmp_path):
    edits = [
        ("# a comment", "# another"),
        ("A network.", "It."),
        ("return 1", "return 2"),
        ("return x + RATE", "return (\n        x + RATE\n    )"),
        ("3 * x", "5 * x"),
        ("return x // 5", "return x // 7"),
    ]
    assert described(tmp_path, *edits) == base


@pytest.mark.parametrize("how", ["import", "run", "typed"])
@pytest.mark.parametrize("what", ["Network", "BUILD"])
def test_scripts_lambdas_and_what_is_typed_in(how, what, tmp_path):
    was, again = (described(tmp_path, what=what, how=how) for _ in range(2))
    assert was == again
    for edit in (("helper(x) + parts", "helper(x) - parts"), ("RATE = 0.1", "RATE = 0.2"), ("x + RATE", "x - RATE")):
        assert described(tmp_path, edit, what=what, how=how) != was


@pytest.mark.parametrize("edit", [("return x // 3", "return x // 7"), ("return x // 5", "return x // 7")])
def test_lambdas_name_things_in_modules(edit, tmp_path):
    was = described(tmp_path, what="BUILD")
    assert described(tmp_path, edit, what="BUILD") != was


def test_a_lambda_of_a_script_that_is_no_module_is_described(tmp_path):
    """As where a script is run by another one."""
    file = tmp_path / "unregistered.py"
    found = []
    for rate in (1, 1, 2):
        file.write_text(f"RATE = {rate}\nBUILD = lambda: RATE\n")
        found.append(describe(runpy.run_path(str(file))["BUILD"]))
    assert found[0] == found[1] != found[2]


def test_installed_and_recorded_packages_go_by_their_versions():
    assert describe(partial(MLP, head=torch.nn.Linear)) == {
        "call": "avsi.models.MLP", "args": [], "kwargs": {"head": "torch.nn.Linear"}
    }  # fmt: skip
    modules = [module.__name__ for module in (numpy, torch, os, pytest, sys)]
    assert not any(map(is_own, [*modules, "avsi.models", "no_such_module", ""]))
    assert is_own(__name__)

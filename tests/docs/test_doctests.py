"""The examples in docstrings."""

import doctest
import importlib
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
FOLDERS = {"avsi": "avsi", "scenarios": "avsi.scenarios", "strategies": "avsi.strategies"}


def modules():
    for folder, package in FOLDERS.items():
        for file in sorted((ROOT / folder).rglob("*.py")):
            if ">>>" in file.read_text() and file.stem != "__main__":
                parts = file.relative_to(ROOT / folder).with_suffix("").parts
                yield ".".join([package, *(part for part in parts if part != "__init__")])


@pytest.mark.parametrize("name", modules())
def test_examples(name, monkeypatch):
    """Each runs alone, as a reader pastes it, with the object it belongs to."""
    monkeypatch.chdir(ROOT)
    module, runner = importlib.import_module(name), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for example in doctest.DocTestFinder().find(module):
        own = example.name.removeprefix(name).lstrip(".").partition(".")[0]
        example.globs = {"__name__": "__main__"} | ({own: getattr(module, own)} if own else {})
        with torch.random.fork_rng():
            torch.manual_seed(0)
            runner.run(example)
    done = runner.summarize(verbose=False)
    assert done.attempted
    assert not done.failed

"""The guide to benchmarks: its code gives what it says. Bad input has the answers listed in bad_input.md."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import avsi.data
import avsi.scenarios
from avsi import InMemoryBatches

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "benchmarks.md").read_text()
ROW = re.compile(r"^\| `(.+)` \| `(\w+Error): (.+)` \|$", flags=re.MULTILINE)
BAD_INPUT = ROW.findall(Path(__file__).with_name("bad_input.md").read_text())


def test_the_code_runs_and_prints_what_is_shown():
    names: dict[str, object] = {}
    for code, shown in re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", GUIDE, flags=re.DOTALL):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "benchmarks.md", "exec"), names)
        assert printed.getvalue() == shown


@pytest.fixture(scope="module")
def names():
    digits = avsi.scenarios.Source.load("digits")
    x, y = np.linspace(0, 1, 60).reshape(12, 5), np.arange(12) % 3
    mine = {"digits": digits, "tasks": avsi.scenarios.permute(digits, tasks=2), "x": x, "y": y}
    public = {name: getattr(package, name) for package in (avsi.data, avsi.scenarios) for name in package.__all__}
    return public | mine | {"InMemoryBatches": InMemoryBatches, "torch": torch, "np": np}


def test_the_tables_are_found():
    assert len(BAD_INPUT) > 50
    shown = ROW.findall(GUIDE)
    assert shown
    assert set(shown) <= set(BAD_INPUT)


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize(("call", "kind", "message"), BAD_INPUT, ids=[call for call, _, _ in BAD_INPUT])
def test_bad_input_is_answered_as_the_table_says(call, kind, message, names, tmp_path, monkeypatch):
    monkeypatch.setenv("AVSI_DATA", str(tmp_path))  # what is wrong is said before data are looked for
    with pytest.raises(Exception, match=f"^{re.escape(message)}") as caught:
        eval(call, dict(names))
    assert type(caught.value).__name__ == kind

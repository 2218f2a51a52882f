"""Damaged and foreign files in a results folder: each costs its own row and a line, none the report."""

import json
import random
import warnings

import pytest
from studies import entry, trial, write

from avsi.results import trials, write_report
from avsi.results.tables import terminal

FINETUNE, SI = entry("finetune"), entry("si")
DEEP = "[" * 100_000 + "]" * 100_000
ODD = [
    None, True, -1, 2, 0.5, 10**400, 1e400, "", "x", "[/red]", "[x](javascript:alert(1))", r"$\frac{$", "=cmd|' /C x'!A0",
    "\x1b[31mred", "\ud800", "<script>alert(1)</script>", "a|b\nc", "_hidden", "é" * 5000, [], [None], [[]], ["x"], {},
    {"": {}}, [0.5, float("nan")], [[0.5] * 3] * 2, {"accuracy": "x", "bwt": [], "tasks": {}}, "../../up", "a/b", "\0",
    [True] * 3, {"call": [], "args": [{}], "kwargs": {"x": [[[]]]}}, "λ" * 300, "‮right to left",
]  # fmt: skip
CONTENTS = [
    b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff\xfe\x00", b"\x80" * 100, DEEP.encode(), b'{"schema": 1}', b"NaN",
    b'{"schema": 1, "seed": 0, "accuracy": NaN}', b'{"schema": 1, "methods": 3}', b'{"schema": 1, "methods": [3, {}]}',
    b'{"schema": 1, "seed": ' + b"9" * 5000 + b"}", ("{" + '"a": {' * 900 + "}" * 901).encode(), b"\xef\xbb\xbf{}",
]  # fmt: skip
KEYS = [
    "schema", "seed", "method", "digest", "status", "accuracy", "bwt", "task_accuracy", "accuracy_matrix", "data",
    "train_accuracy", "class_accuracy", "class_images", "validation_accuracy", "divergence", "description",
    "environment", "notes", "code", "started", "wall_time_s",
]  # fmt: skip
FIELDS = ["schema", "name", "title", "source", "protocol", "deviation", "command", "methods"]


def attacks():
    """Content of the trial's file or of the experiment's, from bytes or by one value of an odd type."""
    whole = {"schema": 1} | trial() | {"method": "si", "digest": "0123456789"}
    about = {"schema": 1, "name": "bad", "title": "Bad", "source": "", "protocol": "", "deviation": ""}
    about["methods"] = [FINETUNE, SI]
    found = [(kind, content) for kind in ("trial", "experiment") for content in CONTENTS]
    found += [("trial", json.dumps(whole | {key: value}).encode()) for key in KEYS for value in ODD]
    found += [("experiment", json.dumps(about | {key: value}).encode()) for key in FIELDS for value in ODD]
    for key in SI:
        methods = [FINETUNE, entry("si", **{"label": "SI"})]
        found += [
            ("experiment", json.dumps(about | {"methods": [methods[0], methods[1] | {key: value}]}).encode())
            for value in ODD
        ]
    for value in ODD:
        parts = [{"description": {"model": value}}, {"environment": {"device": value}}, {"notes": [value]},
                 {"data": [{"name": value}]}, {"data": [{"fingerprint": value, "complete": False}]},
                 {"status": "diverged", "divergence": {"stable_strength": value}},
                 {"class_accuracy": value, "class_images": value}]  # fmt: skip
        found += [("trial", json.dumps(whole | part).encode()) for part in parts]
    return found


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A folder with hundreds of experiments, each with one hostile file, beside a sound one; its report."""
    root = tmp_path_factory.mktemp("results")
    write(root, FINETUNE, SI, trials=[(FINETUNE, trial()), (SI, trial())], name="sound")
    random.seed(0)
    chosen = [attack for attack in attacks() if attack[1] in CONTENTS]
    chosen += random.sample([attack for attack in attacks() if attack[1] not in CONTENTS], 220)
    for index, (kind, content) in enumerate(chosen):
        name = f"bad-{index:03d}"
        write(root, FINETUNE, SI, trials=[(FINETUNE, trial())], name=name)
        file = root / name / ("experiment.json" if kind == "experiment" else f"{SI['folder']}/seed-000.json")
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    return root, len(chosen)


def test_two_hundred_hostile_files_cost_no_report(hostile, monkeypatch):
    root, count = hostile
    assert count >= 200
    drawn = []
    monkeypatch.setattr("avsi.results.report.save_figure", lambda figure, stem: drawn.append(figure) or [])
    written = write_report(root)
    names = {study.folder.name for study in written.studies}
    assert "sound" in names
    # A hostile trial leaves the other method's row; only a hostile experiment's file costs the experiment.
    for index in range(count):
        name = f"bad-{index:03d}"
        assert name in names or any(problem.startswith(name) for problem in written.problems), name
    html = (root / "report.html").read_text()
    assert "<script" not in html
    assert "\x1b" not in html + "".join(map(terminal, written.studies)) + "".join(written.problems)
    assert 'href="javascript' not in html
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(trials(root)) >= count

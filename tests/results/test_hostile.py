"""Damaged and foreign files in a results folder: each costs its own row and a line, none the report."""

import json
import os
import random
import warnings

import pytest
from studies import entry, outcome, study, trial, write

from avsi.results import save_figure, trials, write_report
from avsi.results.figures import KINDS, draw
from avsi.results.store import ResultsError, read_bytes
from avsi.results.tables import comma_separated, markdown, terminal

FINETUNE, SI = entry("finetune"), entry("si")
TEXTS = [
    "[/red]", "[x](javascript:alert(1))", r"$\frac{$", "=cmd|' /C x'!A0", "\x1b[31mred", "<script>alert(1)</script>",
    "a|b\nc", "_hidden", "é" * 5000, "../../up", "a/b", "λ" * 300, "\u202eright to left", "\ud800", "\0", "&lt;", "`x",
]  # fmt: skip
ODD = [
    None, True, -1, 2, 0.5, 10**400, 1e400, "", [], [None], [[]], ["x"], {}, {"": {}}, [0.5, float("nan")], [True] * 3,
    [[0.5] * 3] * 2, {"accuracy": "x", "bwt": [], "tasks": {}}, {"call": [], "args": [{}], "kwargs": {"x": [[[]]]}},
    *TEXTS,
]  # fmt: skip
CONTENTS = [
    b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff\xfe\x00", b"\x80" * 100, b"[" * 100_000, b"[" * 900 + b"]" * 900,
    b'{"schema": 1}', b"NaN", b'{"schema": 1, "seed": 0, "accuracy": NaN}', b'{"schema": 1, "methods": 3}',
    b'{"schema": 1, "methods": [3, {}]}', b'{"schema": 1, "seed": ' + b"9" * 5000 + b"}", b"\xef\xbb\xbf{}",
]  # fmt: skip
TRIAL = {"schema": 1} | trial() | {"method": "si", "digest": "0123456789"}
KEYS = [
    *TRIAL, "status", "train_accuracy", "class_accuracy", "class_images", "validation_accuracy", "divergence",
    "description", "environment", "notes", "code", "started", "wall_time_s", "validation_error",
]  # fmt: skip
ABOUT = {"schema": 1, "name": "bad", "title": "Bad", "source": "", "protocol": "", "deviation": "", "command": ""}
ABOUT["methods"] = [FINETUNE, SI]


def attacks():
    """What stands in place of a trial's file or an experiment's: bytes, or one value of an odd type."""
    found = [(kind, content) for kind in ("trial", "experiment") for content in CONTENTS]
    odd = [("trial", TRIAL | {key: value}) for key in KEYS for value in ODD]
    odd += [("experiment", ABOUT | {key: value}) for key in ABOUT for value in ODD]
    odd += [("experiment", ABOUT | {"methods": [FINETUNE, SI | {key: value}]}) for key in SI for value in ODD]
    for value in ODD:
        parts = [{"description": {"model": value}}, {"environment": {"device": value}}, {"notes": [value]},
                 {"data": [{"name": value}]}, {"data": [{"fingerprint": value, "complete": False}]},
                 {"status": "diverged", "divergence": {"stable_strength": value}},
                 {"class_accuracy": value, "class_images": value}]  # fmt: skip
        odd += [("trial", TRIAL | part) for part in parts]
    sample = random.Random(0).sample(odd, 170)
    return [*found, *((kind, json.dumps(content).encode()) for kind, content in sample)]


def test_over_two_hundred_hostile_files_cost_their_own_rows_only(tmp_path, monkeypatch):
    monkeypatch.setattr("avsi.results.figures.KINDS", {})  # figures of hostile texts are drawn below
    found = attacks()
    assert len(found) > 200
    write(tmp_path, FINETUNE, SI, trials=[(FINETUNE, trial()), (SI, trial())], name="sound")
    for index, (kind, content) in enumerate(found):
        name = f"bad-{index:03d}"
        write(tmp_path, FINETUNE, SI, trials=[(FINETUNE, trial())], name=name)
        file = tmp_path / name / ("experiment.json" if kind == "experiment" else f"{SI['folder']}/seed-000.json")
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    written = write_report(tmp_path)
    studies = {study.folder.name: study for study in written.studies}
    named = {problem.partition("/")[0].partition(":")[0] for problem in written.problems}
    for index, (kind, _) in enumerate(found):
        name = f"bad-{index:03d}"
        assert name in named or name in studies
        if kind == "trial":  # the other method keeps its row
            assert studies[name].compared.index[0] == "finetune"
            assert name in named or len(studies[name].compared) == 2
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert 'href="javascript' not in page
    assert not any(mark in page + "".join(written.problems) for mark in "\x1b\u202e\0")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert len(trials(tmp_path)) > 100
    assert len(told) >= len(written.problems)


def test_hostile_texts_are_drawn_and_written_as_they_are(tmp_path):
    methods = [
        outcome(
            f"m{i}",
            trial(0, class_accuracy=[[0.5, 1.0]] * 3, class_images=[[1, 9]] * 3, notes=[text]),
            label=text.replace("\0", ""),
        )
        for i, text in enumerate(TEXTS[:12])
    ]
    sweep = [{text.replace("\0", ""): value, "huge": 10**400} for text in TEXTS[:4] for value in (1.0, 2.0)]
    methods += [
        outcome(f"m0,{i}", trial(validation_accuracy=0.5), candidate_of="m0", folder=f"m0-{i}", settings=settings)
        for i, settings in enumerate(sweep)
    ]
    found = study(*methods, title=r"$\frac{$ [/red] _x", source="=1+1")
    for kind in KINDS:
        if kind != "matrix":  # slow, and its labels are those of the others
            save_figure(draw(kind, found), tmp_path / kind)
    assert r"\frac{" in (tmp_path / "accuracy.svg").read_text()
    assert "hidden" in (tmp_path / "accuracy.svg").read_text()
    assert r"\[x\](javascript:alert(1))" in markdown(found)
    assert "\n=cmd" not in comma_separated(found)
    assert ",=cmd" not in comma_separated(found)
    assert "=cmd" in terminal(found)


def test_links_pipes_and_folders_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    write(secret, SI, trials=[(SI, trial())], name="other")
    (secret / "summary.md").write_text("SECRET")
    root = tmp_path / "results"
    write(root, FINETUNE, SI, trials=[(FINETUNE, trial())])
    (root / "tiny" / SI["folder"]).mkdir()
    (root / "tiny" / SI["folder"] / "seed-000.json").symlink_to(secret / "other" / SI["folder"] / "seed-000.json")
    os.mkfifo(root / "tiny" / SI["folder"] / "seed-001.json")
    (root / "tiny" / SI["folder"] / "seed-002.json").mkdir()
    (root / "tiny" / "other-0123456789").symlink_to(secret / "other" / SI["folder"])
    (root / "linked").symlink_to(secret / "other")
    (root / "analysis").mkdir()
    (root / "analysis" / "summary.md").symlink_to(secret / "summary.md")
    (root / "pipe").mkdir()
    os.mkfifo(root / "pipe" / "experiment.json")
    (root / "picture").mkdir()
    (root / "picture" / "summary.md").write_text("![a](<../../secret/summary.md>) ![b](<x.svg>) ![c](http://x/y.png)")
    (root / "picture" / "x.svg").symlink_to(secret / "summary.md")
    written = write_report(root)
    assert [m for s in written.studies for m in s.compared.index] == ["finetune"]
    for name in ("seed-000.json", "seed-001.json", "seed-002.json", "analysis/summary.md", "pipe/experiment.json"):
        assert any(name in problem for problem in written.problems), name
    page = (root / "report.html").read_text()
    assert "SECRET" not in page
    assert "U0VDUkVU" not in page  # in base 64
    assert "http://x" not in page
    (root / "tiny" / "summary.md").unlink()
    (root / "tiny" / "summary.md").symlink_to(secret / "summary.md")
    write_report(root)
    assert (secret / "summary.md").read_text() == "SECRET"
    assert not (root / "tiny" / "summary.md").is_symlink()


def test_files_that_are_too_large_or_that_have_impossible_names_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("avsi.results.store.MAX_BYTES", 10)
    (tmp_path / "x").write_bytes(b"0" * 11)
    with pytest.raises(ResultsError, match="too large"):
        read_bytes(tmp_path / "x")
    for name in ("a" * 5000, "a\0b", "none"):
        with pytest.raises(ResultsError, match="cannot read"):
            read_bytes(tmp_path / name)

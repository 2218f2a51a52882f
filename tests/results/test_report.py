import re
import sys
import threading
import warnings
from html.parser import HTMLParser

import pytest
from studies import PAPER, diverged, entry, trial, write

from avsi.results import figures, report, show, write_report
from avsi.results.__main__ import main
from avsi.results.page import _expression, render

FINETUNE, SI = entry("finetune", label="fine-tuning", reported=PAPER), entry("si", label="SI, c = 1")
JOINT = entry("joint", regime="joint")
FIGURES = {f"{kind}.{ending}" for kind in ("accuracy", "panels", "tasks", "matrix") for ending in ("png", "svg")}


@pytest.fixture(autouse=True)
def _quick_figures(monkeypatch, request):
    """Figures are drawn small, but for the test of them all."""
    if "whole" not in request.keywords:
        small = {"accuracy": figures.KINDS["accuracy"]}
        monkeypatch.setattr(figures, "KINDS", small)


@pytest.fixture
def root(tmp_path):
    """Two seeds of fine-tuning and SI, one of joint training."""
    trials = [(of, trial(seed)) for of in (FINETUNE, SI) for seed in range(2)]
    write(tmp_path, FINETUNE, SI, JOINT, trials=[*trials, (JOINT, trial(sequential=False))], command="python tiny.py")
    return tmp_path


def contents(folder):
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")]  # not locks
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


class Page(HTMLParser):
    """What the page of a results folder holds."""

    def __init__(self, folder):
        super().__init__()
        self.html = (folder / "report.html").read_text()
        self.tags, self.ids, self.links, self.sections, self.images, self.text = [], [], [], [], [], ""
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if "href" in attributes else []
        self.sections += [attributes["id"]] if tag == "section" else []
        self.images += [attributes] if tag == "img" else []

    def handle_data(self, data):
        self.text += data


@pytest.mark.whole
def test_a_report_is_written_of_all_finished_trials_and_again_from_the_files_alone(root, monkeypatch):
    written = write_report(root)
    files = {file.name for file in (root / "tiny").iterdir() if file.is_file()}
    assert files == FIGURES | {"summary.md", "summary.csv", "experiment.json"}
    assert written.page == root / "report.html"
    before = contents(root)
    for name in before:
        if "seed-" not in name and "experiment" not in name:
            (root / name).unlink()
    write_report(root)
    after = contents(root)
    made = re.compile(rb"Made on .* UTC")
    assert made.sub(b"", after.pop("report.html")) == made.sub(b"", before.pop("report.html"))
    assert after == before


def test_unknown_numbers_are_written_without_a_warning(root):
    """Of what pandas will refuse."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", PendingDeprecationWarning)
        warnings.simplefilter("error", DeprecationWarning)
        write_report(root)


def test_the_page_needs_nothing_else_and_says_when_and_how_it_was_made(root):
    write_report(root)
    page = Page(root)
    assert page.sections == ["tiny"]
    assert set(page.links) <= {f"#{name}" for name in page.ids}
    assert [image["src"][:26] for image in page.images] == ["data:image/svg+xml;base64,"]
    assert all(image["alt"] for image in page.images)
    assert re.search(r"Made on \d{4}-\d\d-\d\d \d\d:\d\d UTC with avsi \d", page.text)
    assert f"python -m avsi.results report {root}" in page.text
    assert "python tiny.py" in page.text
    assert "script" not in page.tags
    for title in ("All trials", "Configuration, data and environment", "Command"):
        assert title in page.text
    summary = (root / "tiny" / "summary.md").read_text()
    for word in ("90.00 ± 0.00", "One seed only, no standard error: joint."):
        assert word in summary
        assert word in page.text


def test_a_changed_protocol_has_files_of_its_own(root):
    write_report(root)
    before = contents(root / "tiny")
    changed = entry("si", folder="si-1111111111")
    write(root, changed, suffix="-1-epochs", deviation="1 epoch instead of 2", trials=[(changed, trial())])
    write_report(root, only="tiny-1-epochs")
    after = contents(root / "tiny")
    assert {name: after[name] for name in before} == before
    new = {name for name in after.keys() - before if "/" not in name}
    assert new == {"accuracy-1-epochs.png", "accuracy-1-epochs.svg", "summary-1-epochs.md", "summary-1-epochs.csv",
                   "experiment-1-epochs.json"}  # fmt: skip
    page = Page(root)
    assert page.sections == ["tiny-1-epochs", "tiny"]
    assert "Changed protocol: 1 epoch instead of 2." in page.text


def test_a_report_of_another_run_waits_and_has_the_trials_of_both(root, monkeypatch):
    real, begun, ended = report.page, [], []

    def another_run():
        write(root, FINETUNE, SI, JOINT, trials=[(JOINT, trial(1, sequential=False))])
        write_report(root)

    other = threading.Thread(target=another_run)

    def page(*arguments):
        begun.append(list(ended))
        if len(begun) == 1:
            other.start()
            other.join(0.5)  # it has to wait, however long this takes
        text = real(*arguments)
        ended.append(len(begun))
        return text

    monkeypatch.setattr(report, "page", page)
    write_report(root)
    other.join()
    assert begun == [[], [1]]
    assert "One seed only" not in (root / "report.html").read_text()


def test_other_experiments_files_are_written_only_when_they_are_not_those_of_their_trials(root):
    write_report(root)
    write(root, SI, trials=[(SI, trial())], name="other")
    figure = root / "tiny" / "accuracy.svg"
    figure.unlink()
    write_report(root, only="other")
    assert not figure.exists()
    changed = entry("si", folder="si-1111111111")
    write(root, changed, suffix="-1-epochs", trials=[(changed, trial())])
    write_report(root, only="tiny-1-epochs")  # the same experiment's, of another protocol
    assert (root / "tiny" / "accuracy-1-epochs.svg").exists()
    assert not figure.exists()
    (root / "tiny" / SI["folder"] / "seed-001.json").unlink()  # which leaves nothing that is newer
    write_report(root, only="other")
    assert figure.exists()


def test_a_damaged_summary_of_another_experiment_is_no_obstacle(root):
    write_report(root)
    (root / "tiny" / "summary.md").write_bytes(b"\xff")
    (root / "tiny" / "summary.csv").write_bytes(b"\xff")
    write(root, SI, trials=[(SI, trial())], name="other")
    assert write_report(root, only="other").problems == ()
    assert Page(root).sections == ["other", "tiny"]


def test_a_damaged_file_costs_its_row_and_the_command_names_it(root, capsys):
    file = root / "tiny" / SI["folder"] / "seed-001.json"
    file.write_text("{")
    with pytest.raises(SystemExit) as stop:
        main(["report", str(root)])
    assert stop.value.code == 1
    printed = capsys.readouterr()
    assert "left out: tiny/si-0123456789/seed-001.json is damaged" in printed.err
    assert "report.html" in printed.out
    page = Page(root)
    assert page.sections == ["tiny"]
    assert "seed-001.json is damaged" in page.text.partition("Left out")[2]


def test_folders_that_are_no_results_folder(root, capsys):
    (root / "empty").mkdir()
    (root / "file").write_text("")
    messages = {"none": "there is no folder", "empty": "no results", "tiny": "the folder of one", "file": "no folder"}
    for folder, message in messages.items():
        with pytest.raises(SystemExit) as stop:
            main(["report", str(root / folder)])
        assert stop.value.code == 2
        assert re.search(f"error: .*{message}", " ".join(capsys.readouterr().err.split()))


def test_the_command_ends_with_status_0_and_has_help(root, capsys):
    for arguments in (["report", str(root)], ["report", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
        assert "report" in capsys.readouterr().out


def test_tables_of_the_methods_asked_for_are_shown(root, capsys):
    written = write_report(root)
    show(written, "tiny", ["si"])
    text = capsys.readouterr().out
    assert re.search(r"SI, c = 1 +2 +90\.00 ± 0\.00", text)
    assert "fine-tuning" not in text
    assert "Report: " in text
    show(written)
    assert "SI, c = 1" not in capsys.readouterr().out


def test_a_terminal_that_knows_ascii_only_gets_ascii(root, monkeypatch, tmp_path):
    written = write_report(root)
    with (tmp_path / "out.txt").open("w", encoding="ascii") as out:
        monkeypatch.setattr(sys, "stdout", out)
        show(written, "tiny")
    assert "90.00 +- 0.00" in (tmp_path / "out.txt").read_text()


def test_where_every_trial_diverged_the_report_says_so(tmp_path):
    write(tmp_path, SI, trials=[(SI, diverged(0, 0.25)), (SI, diverged(1, 0.5))])
    write_report(tmp_path)
    assert "diverged (2 of 2), stable strength 0.25" in Page(tmp_path).text
    assert not (tmp_path / "tiny" / "accuracy.png").exists()


def test_analyses_are_sections_of_their_own(root):
    folder = root / "analysis"
    folder.mkdir()
    (folder / "summary.md").write_text("# An <analysis>\n\n| a | b |\n| --- | --- |\n| 1 | <b>2</b> |\n")
    (folder / "figure.svg").write_text("<svg/>")
    (folder / "figure.png").write_bytes(b"png")
    write_report(root)
    page = Page(root)
    assert page.sections == ["analysis", "tiny"]
    assert "An <analysis>" in page.text
    assert "<b>2</b>" in page.text
    assert [image["alt"] for image in page.images] == ["figure.svg", page.images[1]["alt"]]


def test_a_summary_of_trials_that_are_gone_is_not_shown(root):
    write_report(root)
    write(root, SI, trials=[(SI, trial())], name="other")
    for file in (root / "tiny").rglob("seed-*.json"):
        file.unlink()
    write_report(root)
    assert Page(root).sections == ["other"]


def test_markdown_is_rendered_without_html_and_foreign_images(tmp_path):
    html = render("# A *b*\n\n## C\n\n<img src=x> ![d](http://e/f.png) ![g](../h.svg)\n", tmp_path)
    assert "<h2>A <em>b</em></h2>" in html
    assert "<h3>C</h3>" in html
    assert "<img" not in html
    assert "d" in html


def test_descriptions_are_written_as_code():
    network = {"call": "avsi.models.MLP", "args": [784, [400, 400]], "kwargs": {"head": "avsi.models.DHPLinear"}}
    assert _expression(network) == "MLP(784, (400, 400), head=DHPLinear)"
    assert _expression({"epochs": 5, "at": 0.1, "name": "a b"}) == "epochs=5, at=0.1, name='a b'"

import json
import os
import re
import threading
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from urllib.parse import unquote

import pytest
from rich.console import Console
from studies import outcome, study, trial

from avsi.experiment import ExperimentError, report
from avsi.experiment.__main__ import main
from avsi.experiment.curves import POINTS, panel, panels, thin_out
from avsi.experiment.html_report import expression, render_markdown
from avsi.experiment.methods import with_dhp
from avsi.experiment.report import rebuild, show, write_report
from avsi.experiment.results import Results, write_text
from avsi.experiment.study import read_studies, write_study

FIGURES = {f"{kind}.{ending}" for kind in ("accuracy", "tasks", "matrix") for ending in ("png", "svg")}


@pytest.fixture
def results(experiment, tmp_path):
    """Two seeds of fine-tuning and SI, one of joint training."""
    folder = Results(tmp_path)
    for seed in range(2):
        finish(folder, experiment, "finetune", trial(seed, (0.9, 0.7, 0.8)))
        finish(folder, experiment, "si", trial(seed))
    finish(folder, experiment, "joint", trial(0, sequential=False))
    return folder


def finish(folder, experiment, name, result):
    method = experiment.method(name)
    described = {"description": experiment.describe(method), "digest": experiment.digest(method)}
    run = {"environment": {"python": "3.11", "device": "cpu"}, "started": "2026-01-01T00:00:00+00:00", "wall_time_s": 2}
    return folder.write(experiment, method, described | run | result)


def contents(folder):
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")]  # not locks
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_a_report_is_written_of_all_finished_trials(experiment, results):
    written = write_report(experiment, results)
    files = {file.name for file in (results.folder / "tiny").iterdir() if file.is_file()}
    assert files == FIGURES | {"summary.md", "summary.csv", "experiment.json"}
    assert {str(file.relative_to(results.folder)) for file in written.files} == {
        *(f"tiny/{name}" for name in files - {"experiment.json"}),
        "report.html",
    }
    text = (results.folder / "tiny" / "summary.md").read_text()
    assert "| fine-tuning | 80.00 ± 0.00 | 90.00 | -10.00 |" in text
    assert "One seed only, no standard error: joint." in text
    (found,) = written.studies
    assert [method.name for method in found.compared] == ["finetune", "si", "joint"]
    assert [len(method.trials) for method in found.compared] == [2, 2, 1]


def test_everything_is_rebuilt_from_the_files_alone_byte_for_byte(experiment, results):
    write_report(experiment, results)
    before = contents(results.folder)
    for name in before:
        if "seed-" not in name and "experiment" not in name:
            (results.folder / name).unlink()
    rebuild(results.folder)
    assert contents(results.folder) == before


def test_without_finished_trials_there_is_nothing_to_report(experiment, tmp_path):
    written = write_report(experiment, Results(tmp_path))
    assert (written.studies, written.files) == ((), ())
    assert list(contents(tmp_path)) == ["tiny/experiment.json"]
    with pytest.raises(ExperimentError, match="holds no results"):
        rebuild(tmp_path)


def test_a_changed_protocol_has_files_of_its_own(experiment, results):
    write_report(experiment, results)
    before = contents(results.folder / "tiny")
    changed = experiment.with_epochs(1)
    finish(results, changed, "si", trial(0, (0.5, 0.5, 0.5)))
    (found,) = write_report(changed, results).studies
    assert found.heading == "Tiny (1 epochs instead of 2)"
    after = contents(results.folder / "tiny")
    assert {name: after[name] for name in before} == before
    new = {name for name in after.keys() - before if "/" not in name}
    names = FIGURES | {"summary.md", "summary.csv", "experiment.json"}
    assert new == {name.replace(".", "-1-epochs.") for name in names}
    page = Page(results.folder)
    assert page.sections == ["tiny-1-epochs", "tiny"]
    assert "Changed protocol: 1 epochs instead of 2." in page.text
    assert len([source for source in page.sources if source.startswith("data:image/svg+xml")]) == 6
    assert "Not shown" not in page.text


def test_trials_of_older_configurations_are_told_of(experiment, results):
    older = replace(experiment, batch_size=8)
    finish(results, older, "si", trial())
    write_report(experiment, results)
    assert f"si-{older.digest(older.method('si'))}" in Page(results.folder).text.partition("Not shown")[2]


def test_a_report_of_another_run_waits_and_has_the_trials_of_both(experiment, results, monkeypatch):
    real, begun, ended = report.page, [], []

    def another_run():
        finish(results, experiment, "joint", trial(1, sequential=False))
        write_report(experiment, results)

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
    write_report(experiment, results)
    other.join()
    assert begun == [[], [1]]
    assert "One seed only" not in (results.folder / "tiny" / "summary.md").read_text()
    assert "One seed only" not in (results.folder / "report.html").read_text()


def test_figures_older_than_their_trials_are_drawn_anew_for_the_page(experiment, results):
    write_report(experiment, results)
    other = replace(experiment, name="other", title="Other")
    finish(results, other, "si", trial())
    write_report(other, results)
    table = results.folder / "tiny" / "summary.csv"
    os.utime(table, ns=(0, 0))
    (results.folder / "tiny" / "accuracy.svg").unlink()
    write_report(other, results)
    assert table.stat().st_mtime_ns > 0
    assert (results.folder / "tiny" / "accuracy.svg").exists()


DAMAGED = {
    "cut": '{"schema": 1, "seed"',
    "no object": "[]",
    "other schema": '{"schema": 0}',
    "incomplete": '{"schema": 1, "seed": 0}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("name", ["trial", "experiment"])
def test_a_damaged_file_is_named(experiment, results, name, content):
    path = write_study(experiment, results)
    path = path if name == "experiment" else results.path(experiment, experiment.method("si"), 1)
    path.write_text(content)
    with pytest.raises(ExperimentError, match="run its script again") as error:
        read_studies(results.folder / "tiny")
    assert str(path) in str(error.value)


def test_a_damaged_file_costs_no_other_experiment(experiment, results, capsys):
    other = replace(experiment, name="other", title="Other")
    file = finish(results, other, "si", trial())
    write_study(other, results)
    file.write_text(DAMAGED["cut"])
    problems = write_report(experiment, results).problems
    assert [str(file) in problem for problem in problems] == [True]
    with pytest.raises(SystemExit) as stop:
        main(["report", str(results.folder)])
    assert stop.value.code == 2
    assert str(file) in capsys.readouterr().err.replace("\n", "")
    page = Page(results.folder)
    assert page.sections == ["tiny"]
    assert "other/si-" in page.text.partition("Left out")[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accuracy": None}, "no numbers between 0 and 1"),
        ({"task_accuracy": [90.0, 80.0, 100.0]}, "no numbers between 0 and 1"),
        ({"task_accuracy": []}, "no numbers between 0 and 1"),
        ({"accuracy_matrix": [[0.5, 0.5]]}, "not one row and one column for each task"),
        ({"accuracy_matrix": None}, "no accuracy matrix"),
        ({"data": {}}, "no list of its data"),
        ({"task_accuracy": [0.5], "accuracy_matrix": [[0.5]]}, "different numbers of tasks"),
    ],
)
def test_numbers_that_cannot_be_are_refused(experiment, results, change, message):
    finish(results, experiment, "si", trial(7) | change)
    with pytest.raises(ExperimentError, match=message) as error:
        write_report(experiment, results)
    assert "seed-007.json" in str(error.value)


def test_trials_without_an_experiment_file_say_how_to_mend_it(results):
    with pytest.raises(ExperimentError, match=r"tiny holds trials but no experiment\.json.*run its script once"):
        read_studies(results.folder / "tiny")
    assert "run its script once" in rebuild(results.folder).problems[0]


def test_folders_that_are_no_results_folder(experiment, results, tmp_path, capsys):
    write_report(experiment, results)
    (tmp_path / "empty").mkdir()
    for folder, message in (("none", "there is no folder"), ("empty", "no results"), ("tiny", "the folder of one")):
        with pytest.raises(SystemExit) as stop:
            main(["report", str(tmp_path / folder)])
        assert stop.value.code == 2
        assert re.search("error: .*" + message, " ".join(capsys.readouterr().err.split()))


def test_the_command_names_what_it_wrote(experiment, results, capsys):
    write_study(experiment, results)
    main(["report", str(results.folder)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("summary.md")
    assert lines[-1].endswith("report.html")
    with pytest.raises(SystemExit) as stop:
        main(["report", "--help"])
    assert stop.value.code == 0
    assert "results folder" in " ".join(capsys.readouterr().out.split())


def test_tables_of_the_methods_asked_for_are_shown(experiment, results):
    written = write_report(experiment, results)

    def shown(*arguments):
        console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        show(written, *arguments[:1], console, *arguments[1:])
        return console.export_text()

    text = shown(["si"])
    assert re.search(r"SI, c = 1 +90\.00 ± 0\.00", text)
    assert "fine-tuning" not in text
    assert "Figures: " in text
    assert "report.html" in text
    quiet = shown(["si"], True)
    assert "SI, c = 1" not in quiet
    assert "summary.md" in quiet
    assert "SI" not in shown(["scratch"])


def test_candidates_share_folders_with_the_method_and_have_a_table_of_their_own(experiment, results):
    si = experiment.method("si")
    other = replace(experiment.method("avalanche_si"), name="si_2", label="SI, c = 2", candidate_of="si")
    grid = (replace(si, name="si_1", candidate_of="si"), other)
    chosen = replace(experiment, methods=(*experiment.methods, *grid))
    finish(results, chosen, "si_2", trial(0, validation_accuracy=0.5))
    finish(results, chosen, "si_1", trial(0, validation_accuracy=0.6))
    (found,) = write_report(chosen, results).studies
    assert len(found.trials) == 6
    text = (results.folder / "tiny" / "summary.md").read_text()
    assert "| si | SI, c = 1 | 60.00 | 90.00 | 1 | highest, compared |" in text
    assert "| si | SI, c = 2 | 50.00 | 90.00 | 1 |  |" in text
    assert text.count("SI, c = 2") == 1
    assert found.only(["si_2"]).methods == found.only(["si"]).methods


class Page(HTMLParser):
    """What the page of a results folder holds."""

    def __init__(self, folder):
        super().__init__()
        self.html = (folder / "report.html").read_text()
        self.tags, self.ids, self.links, self.sources, self.sections, self.text = [], [], [], [], [], ""
        self.images = []
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if "href" in attributes else []
        self.sources += [attributes["src"]] if "src" in attributes else []
        self.sections += [attributes["id"]] if tag == "section" else []
        self.images += [attributes] if tag == "img" else []

    def handle_endtag(self, tag):
        self.text += " "

    def handle_data(self, data):
        self.text += data


def test_the_page_needs_nothing_else_and_its_links_lead_somewhere(experiment, results):
    mas = replace(experiment.method("si"), name="mas+si#2")
    experiment = replace(experiment, methods=(*experiment.methods, mas))
    finish(results, experiment, "mas+si#2", trial())
    write_report(experiment, results)
    page = Page(results.folder)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert all(source.startswith("data:image/") for source in page.sources)
    assert "url(" not in page.html.partition("</style>")[0]
    assert all(image["alt"] for image in page.images)
    assert len(page.ids) == len(set(page.ids))
    anchors = [link for link in page.links if link.startswith("#")]
    files = [link for link in page.links if not link.startswith("#")]
    assert {anchor[1:] for anchor in anchors} == set(page.sections)
    assert len(files) == 6
    assert all((results.folder / unquote(file.partition("#")[0])).is_file() for file in files)
    assert str(results.folder) not in page.html


def test_whatever_the_files_hold_is_text_in_the_page(experiment, results):
    evil = '"><script>alert(1)</script>&amp;|'
    methods = (replace(experiment.method("si"), label=evil),)
    odd = replace(experiment, title=evil, source=evil, protocol=evil, methods=methods)
    finish(results, odd, "si", trial(0, notes=[evil], environment={evil: evil}, validation_error=[[0.5, 0.4]]))
    write_report(odd, results)
    page = Page(results.folder)
    assert "script" not in page.tags
    assert page.text.count(evil) > 8


def test_tables_figures_configuration_and_environment_are_in_the_page(experiment, results):
    write_report(experiment, results)
    text = " ".join(Page(results.folder).text.split())
    for part in (
        "Mean over tasks after the last task",
        "80.00 ± 0.00",
        "-10.00",
        "One seed only",
        "Final test accuracy on each task",
        "SynapticIntelligence(strength=1.0, damping=0.001)",
        "MLP(64, (16,), MultiHead)",
        "2026-01-01 00:00:00 UTC",
        "python 3.11",
        "mnist train 10 10 all",
    ):
        assert part in text, part  # fmt: skip


def test_analyses_and_further_figures_are_in_the_page(experiment, results):
    write_report(experiment, results)
    drawing = '<svg xmlns="http://www.w3.org/2000/svg"/>'
    write_text(results.folder / "quadratic" / "summary.md", "# Quadratic\n\n<b>x</b>\n\n| a |\n| --- |\n| 12.5 |\n")
    write_text(results.folder / "quadratic" / "quadratic.svg", drawing)
    write_text(results.folder / "quadratic" / "quadratic.png", "the same figure again")
    write_text(results.folder / "tiny" / "dynamics-dhp-000.svg", drawing)
    (results.folder / "notes").mkdir()
    assert rebuild(results.folder).problems == ()
    page = Page(results.folder)
    assert page.sections == ["tiny", "quadratic"]
    assert "12.5" in page.text
    assert "<b>x</b>" in page.text
    captions = [image["alt"] for image in page.images]
    assert captions[-2:] == ["dynamics-dhp-000.svg", "quadratic.svg"]
    assert len(captions) == 5


def test_markdown_of_analyses_loads_nothing():
    title, text = render_markdown("# T *x*\n\n## Part\n\n![curve](http://x/y.png) <script>1</script>\n", "name")
    assert title == "T *x*"
    assert "<h3>Part</h3>" in text
    assert "curve" in text
    assert "<img" not in text
    assert "<script" not in text
    assert render_markdown("Text", "name")[0] == "name"


def test_descriptions_read_as_code(experiment):
    dhp = with_dhp(experiment.method("si"), experiment.model)
    described = experiment.describe(dhp)
    assert expression(described["model"]) == "MLP(64, (16,), MultiHead)"
    assert expression(described["optimizer"]) == "Adam(lr=0.01)"
    assert expression(described["method"]["plugins"]) == "(DHPPlugin,)"
    assert expression({"epochs": 5, "validation": 0.1}) == "epochs=5, validation=0.1"
    assert expression([None, True, "a b"]) == "(none, True, 'a b')"


def numbers(svg):
    return [
        [tuple(map(float, point.split(","))) for point in line.split()] for line in re.findall(r'points="(.*?)"', svg)
    ]


def test_panels_place_points_between_the_ends_of_the_axes():
    shown = panel("y", "x", [[(1, 0), (2, 50), (3, 100)], [(3, 100)]], ["a", "b"], low=0, high=100)
    ((start, middle, end),) = numbers(shown.svg)
    assert middle == pytest.approx(((start[0] + end[0]) / 2, (start[1] + end[1]) / 2))
    assert start[0] < end[0]
    assert start[1] > end[1]  # y grows downwards
    assert f'cx="{end[0]}" cy="{end[1]}"' in shown.svg
    assert "a ends at 100" in shown.svg


def test_panels_show_what_a_trial_holds():
    assert [p.title for p in panels(trial())] == ["test accuracy on each task (%)"]
    assert panels(trial(sequential=False)) == []
    assert panels(trial(sequential=False, validation_error=[], hebbian_dynamics={})) == []
    record = {"step": [100, 200, 300], "eta": [0.1, None, 0.3], "hebb": [1.0, 1.0, 1.0], "alpha": [None] * 3}
    found = panels(trial(sequential=False, validation_error=[[0.5, 0.4]], hebbian_dynamics={"head": record}))
    assert [p.title for p in found] == ["validation error (%)", "eta", "‖Hebb‖"]
    assert [len(line) for p in found for line in numbers(p.svg)] == [2, 2, 3]
    _, _, flat = found
    assert len({y for _, y in numbers(flat.svg)[0]}) == 1


def test_a_task_is_drawn_from_when_it_is_learned():
    (accuracy,) = panels(trial())
    assert [len(line) for line in numbers(accuracy.svg)] == [3, 2]
    assert accuracy.svg.count("<circle") == 1
    assert accuracy.names == ("task 1", "task 2", "task 3")


def test_long_lines_lose_points_evenly_but_not_their_ends():
    line = [(float(x), 0.0) for x in range(10_000)]
    thin = thin_out(line)
    assert (thin[0], thin[-1], len(thin)) == (line[0], line[-1], POINTS)
    steps = {b[0] - a[0] for a, b in pairwise(thin)}
    assert max(steps) - min(steps) <= 1
    assert thin_out(line[:POINTS]) == line[:POINTS]


def test_study_files_say_what_trials_lack(experiment, results):
    content = json.loads(write_study(experiment, results).read_text())
    assert content["title"] == "Tiny"
    entry = content["methods"][0]
    assert entry["name"] == "finetune"
    assert entry["folder"] == f"finetune-{entry['digest']}"
    assert entry["reported"] == {"accuracy": 90.0, "bwt": -0.1, "tasks": [80.0, 85.0, 90.0, 95.0, 100.0]}


def test_headings_name_protocol_and_changes():
    assert (
        study(protocol="zenke", deviation="1 epochs instead of 2").heading
        == "Tiny, protocol zenke (1 epochs instead of 2)"
    )
    assert study(outcome("si")).compared == []

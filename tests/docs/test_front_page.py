"""The README's numbers are those of the committed results."""

import json
import re
import runpy
from pathlib import Path
from statistics import fmean

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def front_page():
    return runpy.run_path(str(ROOT / "docs" / "front_page.py"))


@pytest.fixture(scope="module")
def frame(front_page):
    return front_page["read"]()


def test_tables_are_those_of_the_committed_results(front_page, frame):
    for (page, name), make in front_page["TABLES"].items():
        shown = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- end -->", (ROOT / page).read_text(), re.DOTALL)[1]
        assert shown == make(frame), "run python docs/front_page.py"


def test_the_figure_is_that_of_the_committed_results(front_page, frame):
    drawn = Image.open(front_page["FIGURE"]).info["Description"]
    assert drawn == front_page["fingerprint"](front_page["curves"](frame)), "run python docs/front_page.py"


def test_the_sentence_about_avalanches_si(front_page, frame):
    """To the last digit: the same weights, seed by seed."""
    for experiment in ("split_mnist_zenke", "split_mnist_dhp"):
        own = front_page["values"](frame, experiment, "avalanche_si")
        plain = front_page["values"](frame, experiment, "finetune").loc[own.index]
        assert own.equals(plain)


def test_what_the_page_on_dhp_says_of_a_free_eta():
    text = (ROOT / "docs" / "methods" / "dhp.md").read_text()
    trials = {}
    for name in ("dhp", "dhp_free"):
        files = sorted((ROOT / "reproductions" / "results" / "plasticity").glob(f"{name}-*/seed-*.json"))
        trials[name] = [json.loads(file.read_text()) for file in files]
    assert "two seeds), η falls below 0 in task 3 and the norm of the traces passes 1,200 later, in task 4 or 5" in text
    assert len(trials["dhp"]) == len(trials["dhp_free"]) == 2
    largest = []
    for held, free in zip(*trials.values(), strict=True):
        assert abs(held["accuracy"] - free["accuracy"]) < 0.005
        (record,) = free["hebbian_dynamics"].values()
        task = [5 * place // len(record["step"]) + 1 for place in range(len(record["step"]))]
        assert task[next(place for place, eta in enumerate(record["eta"]) if eta < 0)] == 3
        largest.append(task[record["hebb"].index(max(record["hebb"]))])
        assert max(record["hebb"]) > 1200
    assert largest == [4, 5]


def test_avalanches_ewc_with_a_strength_of_its_own_stands_beside_the_shared_one():
    """Three seeds after the sweep's, whose trials held out a tenth of the training images."""
    files = (ROOT / "reproductions" / "results" / "split_mnist_dhp").glob("avalanche_ewc-*/seed-00[123].json")
    trials = [json.loads(file.read_text()) for file in files]
    swept = [t["accuracy"] for t in trials if t["description"]["method"]["strategy"]["kwargs"]["ewc_lambda"] == 40_000]
    assert len(swept) == 3
    assert f"(λ by sweep: {100 * fmean(swept):.2f}" in (ROOT / "README.md").read_text()

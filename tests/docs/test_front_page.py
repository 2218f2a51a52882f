"""The README's numbers are those of the committed results."""

import re
import runpy
from pathlib import Path

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

"""What the package says of itself agrees."""

import re
import tomllib
from pathlib import Path

import avsi

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_versions_agree():
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert PROJECT["project"]["version"] == avsi.__version__ == citation[1]
    assert f"## {avsi.__version__} " in (ROOT / "CHANGELOG.md").read_text()


def test_every_folder_with_code_is_a_package_of_the_wheel():
    homes = {"avsi": "avsi", "scenarios": "avsi.scenarios", "strategies": "avsi.strategies"}
    found = set()
    for top, package in homes.items():
        for init in (ROOT / top).rglob("__init__.py"):
            found.add(".".join([package, *init.parent.relative_to(ROOT / top).parts]))
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


def test_continuous_integration_runs_on_every_version_that_is_claimed():
    claimed = {c.rpartition(" ")[2] for c in PROJECT["project"]["classifiers"] if re.search(r":: 3\.\d+$", c)}
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    assert claimed <= set(re.findall(r'"(3\.\d+)"', workflow))
    assert PROJECT["project"]["requires-python"] == f">={min(claimed)}"

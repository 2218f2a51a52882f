"""Pages name what there is."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_reproduction_is_named():
    text = (ROOT / "docs" / "reproducing.md").read_text()
    assert [f.name for f in sorted((ROOT / "reproductions").glob("*.py")) if f"`{f.name}`" not in text] == []


def test_the_map_names_every_folder_and_module():
    text = (ROOT / "docs" / "map.md").read_text()
    parts = [
        *(ROOT / "avsi").iterdir(),
        *(ROOT / name for name in ("scenarios", "strategies", "reproductions", "perf", "docs", "tests")),
    ]
    names = [part.name for part in parts if not part.name.startswith("__") and part.name != "py.typed"]
    assert [name for name in names if name not in text] == []


def test_what_pages_import_has_a_reference():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "docs" / "tutorial.ipynb"]
    text = "".join(page.read_text() for page in pages)
    imported = set(re.findall(r"(?:from|import) (avsi\.[\w.]+)", text))
    assert imported - set(re.findall(r"automodule:: (\S+)", text)) == set()


def test_the_reference_lists_its_pages():
    folder = ROOT / "docs" / "reference"
    index = (folder / "index.md").read_text()
    pages = [page for page in folder.glob("*.md") if page.stem != "index"]
    assert [page.name for page in pages if f"`]({page.name})" not in index] == []

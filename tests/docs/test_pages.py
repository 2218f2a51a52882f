"""Pages name what there is."""

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

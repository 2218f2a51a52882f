"""Every Python block of the documentation runs, page by page, as a reader would paste it."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = sorted(
    page
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "perf" / "README.md"]
    if BLOCK.search(page.read_text())
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    module = ModuleType(f"page_{page.stem}")  # not __main__: what stands under that guard is for scripts
    monkeypatch.setitem(sys.modules, module.__name__, module)
    text = page.read_text()
    with torch.random.fork_rng():
        for block in BLOCK.finditer(text):
            line = text.count("\n", 0, block.start(1))
            code = compile("\n" * line + block[1], str(page), "exec")  # so that errors name the page's line
            exec(code, vars(module))


def test_no_block_hides_from_this_test():
    """Under another name or indented into a list."""
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        fences = re.findall(r"^ *(```+|~~~+) *\{?(py\w*|code-cell|doctest)\b.*$", page.read_text(), re.MULTILINE)
        assert len(fences) == len(BLOCK.findall(page.read_text())), page

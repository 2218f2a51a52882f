"""The documentation's Python, executed from top to bottom of each page."""

import re
from pathlib import Path

import pytest

GUIDES = Path(__file__).parents[2] / "docs" / "guides"


@pytest.mark.parametrize("name", ["save_and_resume.md"])
def test_guides_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (GUIDES / name).read_text()
    lines = "".join(
        block if code else re.sub(r"[^\n]", "", block)  # so that errors name lines of the page
        for code, block in split(text)
    )
    exec(compile(lines, name, "exec"), {"__name__": "guide"})


def split(text):
    """The page in pieces: whether each is Python, and its text."""
    start = 0
    for match in re.finditer(r"(?<=^```python\n).*?(?=^```)", text, re.DOTALL | re.MULTILINE):
        yield False, text[start : match.start()]
        yield True, match.group()
        start = match.end()
    yield False, text[start:]

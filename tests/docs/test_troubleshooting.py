"""The messages that the troubleshooting page explains are those that the code gives."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guides" / "troubleshooting.md").read_text()
MESSAGES = [
    m for m in re.findall(r"^### `(.*)`$", PAGE, re.MULTILINE) if not m.startswith(("No module", "has no attr"))
]
CODE = "\n".join(file.read_text() for folder in ("avsi", "scenarios") for file in sorted((ROOT / folder).rglob("*.py")))
JOINED = re.sub(r"[\"']\s*\n\s*f?[\"']", "", CODE)  # string literals that go on in the next line


@pytest.mark.parametrize("message", MESSAGES)
def test_the_code_has_the_message(message):
    assert message in JOINED

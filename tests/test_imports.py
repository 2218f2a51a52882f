"""What importing loads, and what the package shows."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import avsi


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", ["avsi", "avsi.importance", "avsi.consolidation", "avsi.hebbian"])
def test_plain_pytorch_loads_no_avalanche(module):
    unwanted = "avalanche", "torchvision", "matplotlib", "pandas", "tyro", "rich"
    done = run(f"import sys, {module}; print([n for n in {unwanted!r} if n in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_public_names_are_found_on_first_use_and_without_a_warning_of_avalanche():
    done = run(
        "from avsi import SIPlugin, OnlineEWCPlugin, MASPlugin, DHPPlugin, InMemoryBatches\n"
        "from avsi import fisher_diagonal, mas_importance\n"
        "import avsi; print(sorted(set(avsi.__all__) - set(dir(avsi))))"
    )
    assert done.stdout.strip() == "[]", done.stderr
    assert not done.stderr


def test_every_public_name_is_there():
    for name in avsi.__all__:
        assert getattr(avsi, name) is not None
    with pytest.raises(AttributeError, match="module 'avsi' has no attribute 'SIPlugn'"):
        avsi.SIPlugn  # noqa: B018
    with pytest.raises(ImportError, match="SIPlugn"):
        from avsi import SIPlugn  # noqa: F401


ROOT = Path(__file__).parents[1]
MAP = re.findall(r"^      (\w+)(?:/|\.py) ", (ROOT / "docs" / "map.md").read_text(), flags=re.MULTILINE)
LOWEST_FIRST = [*MAP[: MAP.index("experiment")], "scenarios", "strategies", *MAP[MAP.index("experiment") :]]
LAZY = {("experiment/__init__.py", "launch")}  # ``avsi.experiment.main`` is found on first use


def imported_parts(file):
    """Names x of ``import avsi.x`` and ``from avsi.x import``, within functions too."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name.split(".")[1] for name in names if name.startswith("avsi.")} & set(LOWEST_FIRST)


def test_dependencies_point_one_way_as_the_map_says():
    files = [(file, file.relative_to(ROOT / "avsi")) for file in (ROOT / "avsi").rglob("*.py")]
    files += [
        (file, file.relative_to(ROOT)) for part in ("scenarios", "strategies") for file in (ROOT / part).glob("*.py")
    ]
    assert len(files) > 80
    wrong = [
        f"{name} imports {part}"
        for file, name in files
        if (own := name.parts[0].removesuffix(".py")) != "__init__"
        for part in imported_parts(file)
        if LOWEST_FIRST.index(part) > LOWEST_FIRST.index(own) and (name.as_posix(), part) not in LAZY
    ]
    assert wrong == []

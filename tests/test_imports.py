"""What importing loads, and what the package shows."""

import subprocess
import sys

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

"""Check an installed wheel: python .ci/check_wheel.py WHEEL REPOSITORY, run from another folder, without extras.

The repository is looked at for its list of files alone; it must be a fresh checkout.
"""

import importlib
import sys
import zipfile
from pathlib import Path

PACKAGES = {"avsi": "avsi", "scenarios": "avsi/scenarios", "strategies": "avsi/strategies"}
"""Folder in the repository -> folder in the wheel."""


def check_files(wheel: str, repository: str) -> None:
    """Every file of the packages is in the wheel, where it belongs, and nothing else is."""
    expected = set()
    for folder, home in PACKAGES.items():
        files = [path for path in (Path(repository) / folder).rglob("*") if path.is_file()]
        names = (path.relative_to(Path(repository) / folder).as_posix() for path in files)
        expected |= {f"{home}/{name}" for name in names if "__pycache__" not in name}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == expected, f"only in the wheel or only in the repository: {sorted(packed ^ expected)}"
    assert "avsi/py.typed" in packed


def check_plain_torch() -> None:
    """An importance, in plain PyTorch, which loads no Avalanche."""
    import torch

    from avsi.importance import fisher_diagonal

    model = torch.nn.Linear(2, 2, bias=False)
    torch.nn.init.zeros_(model.weight)
    fisher = fisher_diagonal(model, [(torch.tensor([[2.0, 4.0]]), torch.tensor([0]))])
    assert torch.equal(fisher["weight"], torch.tensor([[1.0, 4.0], [1.0, 4.0]]))
    assert "avalanche" not in sys.modules


def check_avalanche() -> None:
    """Synaptic Intelligence in a script of Avalanche's, on digits, which need no download."""
    import torch
    from avalanche.training import Naive

    from avsi import SIPlugin
    from avsi.models import MLP, MultiHead
    from avsi.scenarios import split_digits

    torch.manual_seed(0)
    model = MLP(64, (32,), head=MultiHead)
    strategy = Naive(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=1e-2),
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=64,
        train_epochs=3,
        plugins=[plugin := SIPlugin(strength=1.0, damping=1e-3)],
        evaluator=None,
    )
    for experience in split_digits().train_stream:
        strategy.train(experience)
    assert plugin.experiences_seen == 5
    assert sum(omega.sum() for omega in plugin.importance.values()) > 0


if __name__ == "__main__":
    check_files(*sys.argv[1:])
    check_plain_torch()
    check_avalanche()
    for name in ("avsi.strategies", "avsi.scenarios", "avsi.models", "avsi.metrics"):
        importlib.import_module(name)
    site = Path(importlib.import_module("avsi").__file__)
    assert "site-packages" in site.parts, site

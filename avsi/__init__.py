"""Synaptic consolidation for Avalanche: importances and penalties as the papers define them."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avsi.consolidation import MASPlugin, OnlineEWCPlugin, SIPlugin
    from avsi.hebbian_plugin import DHPPlugin
    from avsi.importance import fisher_diagonal, mas_importance
    from avsi.plugins.batches import InMemoryBatches

__version__ = "0.1.0"

__all__ = [
    "DHPPlugin",
    "InMemoryBatches",
    "MASPlugin",
    "OnlineEWCPlugin",
    "SIPlugin",
    "__version__",
    "fisher_diagonal",
    "mas_importance",
]

HOMES = {
    "DHPPlugin": "avsi.hebbian_plugin",
    "InMemoryBatches": "avsi.plugins.batches",
    "MASPlugin": "avsi.consolidation",
    "OnlineEWCPlugin": "avsi.consolidation",
    "SIPlugin": "avsi.consolidation",
    "fisher_diagonal": "avsi.importance",
    "mas_importance": "avsi.importance",
}

# Avalanche imports a quadratic-programming front end that warns when no solver is installed; only GEM needs one.
warnings.filterwarnings("ignore", message="no QP solver found")


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

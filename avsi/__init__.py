"""Synaptic consolidation for PyTorch and Avalanche: importances and penalties as the papers define them.

Names are looked up on first use: ``avsi.importance``, ``avsi.consolidation`` and ``avsi.hebbian`` load no Avalanche.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avsi.importance import fisher_diagonal, mas_importance
    from avsi.plugins import DHPPlugin, DivergencePlugin, MASPlugin, OnlineEWCPlugin, SIPlugin
    from avsi.plugins.batches import InMemoryBatches

__version__ = "0.1.0"

__all__ = [
    "DHPPlugin",
    "DivergencePlugin",
    "InMemoryBatches",
    "MASPlugin",
    "OnlineEWCPlugin",
    "SIPlugin",
    "__version__",
    "fisher_diagonal",
    "mas_importance",
]

_HOMES = {
    "DHPPlugin": "avsi.plugins.hebbian",
    "DivergencePlugin": "avsi.plugins.divergence",
    "InMemoryBatches": "avsi.plugins.batches",
    "MASPlugin": "avsi.plugins.mas",
    "OnlineEWCPlugin": "avsi.plugins.online_ewc",
    "SIPlugin": "avsi.plugins.synaptic_intelligence",
    "fisher_diagonal": "avsi.importance",
    "mas_importance": "avsi.importance",
}

# Avalanche imports a quadratic-programming front end that warns when no solver is installed; only GEM needs one.
warnings.filterwarnings("ignore", message="no QP solver found", module="qpsolvers")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'avsi' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

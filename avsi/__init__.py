"""Synaptic consolidation for Avalanche: importances and penalties as the papers define them."""

import warnings

with warnings.catch_warnings():
    # Avalanche imports a quadratic-programming front end that warns when no solver is installed; only GEM needs one.
    warnings.filterwarnings("ignore", message="no QP solver found")
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

"""avsi in Avalanche: plugins, each a thin adapter over plain PyTorch."""

from avsi.plugins.batches import InMemoryBatches
from avsi.plugins.consolidation import ConsolidationPlugin
from avsi.plugins.divergence import DivergencePlugin
from avsi.plugins.early_stopping import EarlyStopping
from avsi.plugins.evaluation import EvaluationPlugin
from avsi.plugins.hebbian import DHPPlugin
from avsi.plugins.mas import MASPlugin
from avsi.plugins.online_ewc import OnlineEWCPlugin
from avsi.plugins.stop_after import StopAfter
from avsi.plugins.synaptic_intelligence import SIPlugin

__all__ = [
    "ConsolidationPlugin",
    "DHPPlugin",
    "DivergencePlugin",
    "EarlyStopping",
    "EvaluationPlugin",
    "InMemoryBatches",
    "MASPlugin",
    "OnlineEWCPlugin",
    "SIPlugin",
    "StopAfter",
]

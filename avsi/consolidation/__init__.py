"""Synaptic Intelligence, Online EWC and MAS for any PyTorch training loop: one penalty, one file per importance."""

from avsi.consolidation.divergence import DivergenceError
from avsi.consolidation.mas import MASPenalty
from avsi.consolidation.online_ewc import OnlineEWCPenalty
from avsi.consolidation.penalty import QuadraticPenalty
from avsi.consolidation.stability import StabilityWarning, largest_stable_strength
from avsi.consolidation.synaptic_intelligence import SIPenalty

__all__ = [
    "DivergenceError",
    "MASPenalty",
    "OnlineEWCPenalty",
    "QuadraticPenalty",
    "SIPenalty",
    "StabilityWarning",
    "largest_stable_strength",
]

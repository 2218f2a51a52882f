"""Consolidation plugins: one quadratic penalty, one file per way to measure importance."""

from avsi.consolidation.mas import MASPlugin
from avsi.consolidation.online_ewc import OnlineEWCPlugin
from avsi.consolidation.penalty import ConsolidationPlugin
from avsi.consolidation.synaptic_intelligence import SIPlugin

__all__ = ["ConsolidationPlugin", "MASPlugin", "OnlineEWCPlugin", "SIPlugin"]

"""Consolidation plugins: one quadratic penalty, one file per way to measure importance."""

from avsi.consolidation.penalty import ConsolidationPlugin
from avsi.consolidation.synaptic_intelligence import SIPlugin

__all__ = ["ConsolidationPlugin", "SIPlugin"]

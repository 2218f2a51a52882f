"""Ready-made strategies, one per method; importable as ``avsi.strategies``."""

from avsi.strategies.synaptic_intelligence import SynapticIntelligence

__all__ = ["SynapticIntelligence"]

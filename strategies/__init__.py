"""Ready-made strategies, one per method; importable as ``avsi.strategies``."""

from avsi.strategies.dhp import DHP
from avsi.strategies.mas import MAS
from avsi.strategies.online_ewc import OnlineEWC
from avsi.strategies.synaptic_intelligence import SynapticIntelligence

__all__ = ["DHP", "MAS", "OnlineEWC", "SynapticIntelligence"]

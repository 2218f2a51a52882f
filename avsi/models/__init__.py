"""Models: output layers for one or many tasks, slow or plastic, and the papers' networks."""

from avsi.hebbian import DHPLinear
from avsi.models.cnn import SplitCIFARNet, VisionMixtureNet
from avsi.models.growing_head import GrowingHead
from avsi.models.headed import HeadedModel
from avsi.models.initialisation import glorot_linear, glorot_uniform, zero_linear
from avsi.models.matched import MatchedLinear
from avsi.models.mlp import MLP
from avsi.models.multi_head import MultiHead

__all__ = [
    "MLP",
    "DHPLinear",
    "GrowingHead",
    "HeadedModel",
    "MatchedLinear",
    "MultiHead",
    "SplitCIFARNet",
    "VisionMixtureNet",
    "glorot_linear",
    "glorot_uniform",
    "zero_linear",
]

"""Models: a multi-head output layer and the papers' networks."""

from avsi.models.cnn import SplitCIFARNet
from avsi.models.headed import HeadedModel
from avsi.models.initialisation import glorot_uniform, zero_linear
from avsi.models.mlp import MLP
from avsi.models.multi_head import MultiHead

__all__ = ["MLP", "HeadedModel", "MultiHead", "SplitCIFARNet", "glorot_uniform", "zero_linear"]

"""Synaptic Intelligence as an Avalanche plugin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from avsi.consolidation.arguments import Strength
from avsi.consolidation.penalty import PenaltyStep
from avsi.consolidation.synaptic_intelligence import SIPenalty
from avsi.plugins.consolidation import ConsolidationPlugin


class SIPlugin(ConsolidationPlugin):
    r"""Synaptic Intelligence: importance is a parameter's share in the loss's decrease along the training path.

    What it computes is said at :class:`avsi.consolidation.SIPenalty`, and how it enters at
    :class:`ConsolidationPlugin`. The task loss is ``strategy.loss`` as it is back-propagated. Penalties of avsi's
    plugins never enter it; a term that another plugin adds to ``strategy.loss`` (distillation, Avalanche's own EWC) is
    part of it.

    Args:
        strength: c of the paper, at least 0; or one value per experience, the last one repeated.
        damping: xi > 0, which bounds Omega where a parameter hardly moved; in units of squared parameters.
        exclude: Glob patterns of parameter names to leave out.
        penalty: ``"explicit"`` or ``"proximal"``, see :class:`avsi.consolidation.QuadraticPenalty`.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a value has the wrong type.

    Examples:
        >>> import torch
        >>> from avalanche.training import Naive
        >>> from avsi.models import MLP, MultiHead
        >>> from avsi.scenarios import split_digits
        >>> model, si = MLP(64, (16,), MultiHead), SIPlugin(strength=1.0, damping=1e-3)
        >>> strategy = Naive(
        ...     model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), train_mb_size=32, plugins=[si],
        ...     evaluator=None,
        ... )
        >>> for experience in split_digits().train_stream[:2]:
        ...     metrics = strategy.train(experience)
        >>> si.experiences_seen, si.importance["features.1.weight"].shape
        (2, torch.Size([16, 64]))
    """

    core: SIPenalty

    def __init__(
        self,
        strength: Strength,
        *,
        damping: float = 0.1,
        exclude: Iterable[str] = (),
        penalty: PenaltyStep = "explicit",
    ) -> None:
        super().__init__(SIPenalty(None, strength, damping=damping, exclude=exclude, penalty=penalty))

    @property
    def damping(self) -> float:
        """The paper's xi."""
        return self.core.damping

    @property
    def path_integral(self) -> dict[str, Tensor]:
        """The omega of the running experience: parameter name -> tensor of the parameter's shape."""
        return self.core.path_integral

    def batches(self, strategy: Any) -> None:
        """Read no data: the path integral is all.

        Args:
            strategy: The strategy.
        """

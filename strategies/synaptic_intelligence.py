"""Synaptic Intelligence as a strategy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

from avsi.consolidation.arguments import Strength
from avsi.consolidation.penalty import PenaltyStep
from avsi.plugins import SIPlugin
from avsi.strategies.template import MethodTemplate, Template, with_own


class SynapticIntelligence(MethodTemplate):
    """Fine-tuning with Synaptic Intelligence (Zenke et al. 2017); the plugin is ``strategy.si``.

    Args:
        strength: c of the paper, see :class:`avsi.SIPlugin`.
        damping: xi of the paper.
        exclude: Glob patterns of parameter names to leave out.
        penalty: ``"explicit"`` or ``"proximal"``, see :class:`avsi.consolidation.QuadraticPenalty`.
        **template: ``model``, ``optimizer``, ``train_mb_size``, ``train_epochs`` and what else every strategy takes,
            see :class:`~avsi.strategies.template.MethodTemplate`.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a value has the wrong type.

    Examples:
        >>> from torch.optim import Adam
        >>> from avsi.models import MLP, MultiHead
        >>> from avsi.scenarios import split_digits
        >>> benchmark, model = split_digits(), MLP(64, (16,), MultiHead)
        >>> strategy = SynapticIntelligence(
        ...     model=model, optimizer=Adam(model.parameters(), fused=True), strength=1.0, damping=1e-3,
        ...     train_mb_size=32, evaluator=None,
        ... )
        >>> for experience in benchmark.train_stream[:2]:
        ...     metrics = strategy.train(experience, reset_optimizer_state=True)
        >>> strategy.si.experiences_seen
        2
    """

    def __init__(
        self,
        *,
        strength: Strength,
        damping: float = 0.1,
        exclude: Iterable[str] = (),
        penalty: PenaltyStep = "explicit",
        **template: Unpack[Template],
    ) -> None:
        self.si = SIPlugin(strength, damping=damping, exclude=exclude, penalty=penalty)
        super().__init__(**with_own(self.si, template))

"""Synaptic Intelligence as a strategy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

from avsi.consolidation.arguments import Strength
from avsi.consolidation.penalty import PenaltyStep
from avsi.plugins import SIPlugin
from avsi.strategies.template import MethodTemplate, Template


class SynapticIntelligence(MethodTemplate):
    """Fine-tuning with Synaptic Intelligence (Zenke et al. 2017); the plugin is ``strategy.si``.

    Args:
        strength: c of the paper, see :class:`avsi.SIPlugin`.
        damping: xi of the paper.
        exclude: Glob patterns of parameter names to leave out.
        penalty: ``"explicit"`` or ``"proximal"``, see :class:`avsi.consolidation.QuadraticPenalty`.
        **template: ``model``, ``optimizer``, ``train_mb_size``, ``train_epochs`` and what else every strategy takes,
            see :class:`~avsi.strategies.template.MethodTemplate`.
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
        super().__init__(own=self.si, **template)

"""Differentiable Hebbian plasticity as a strategy."""

from __future__ import annotations

from typing import Unpack

from avsi.plugins import DHPPlugin
from avsi.strategies.template import MethodTemplate, Template


class DHP(MethodTemplate):
    """Fine-tuning of a model with Hebbian traces in its head ("DHP softmax"); the plugin is ``strategy.dhp``.

    With a consolidation plugin among ``plugins``, an ``avsi.SIPlugin`` say, it is the paper's DHP + SI: only slow
    weights are consolidated. The model has one or more :class:`avsi.models.DHPLinear`.

    Args:
        **template: ``model``, ``optimizer``, ``train_mb_size``, ``train_epochs`` and what else every strategy takes,
            see :class:`~avsi.strategies.template.MethodTemplate`.
    """

    def __init__(self, **template: Unpack[Template]) -> None:
        self.dhp = DHPPlugin()
        super().__init__(own=self.dhp, **template)

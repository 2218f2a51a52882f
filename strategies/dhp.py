"""Differentiable Hebbian plasticity as a strategy."""

from __future__ import annotations

from typing import Unpack

from avsi.plugins import DHPPlugin
from avsi.strategies.template import MethodTemplate, Template, with_own


class DHP(MethodTemplate):
    """Fine-tuning of a model with Hebbian traces in its head ("DHP softmax"); the plugin is ``strategy.dhp``.

    With a consolidation plugin among ``plugins``, an ``avsi.SIPlugin`` say, it is the paper's DHP + SI: only slow
    weights are consolidated. The model has one or more :class:`avsi.models.DHPLinear`.

    Args:
        **template: ``model``, ``optimizer``, ``train_mb_size``, ``train_epochs`` and what else every strategy takes,
            see :class:`~avsi.strategies.template.MethodTemplate`.

    Raises:
        ValueError: If a number of samples or epochs is no positive integer.

    Examples:
        >>> from functools import partial
        >>> from torch.optim import SGD
        >>> from avsi import SIPlugin
        >>> from avsi.models import MLP, DHPLinear, MultiHead
        >>> from avsi.scenarios import split_digits
        >>> model, si = MLP(64, (16,), partial(MultiHead, head=DHPLinear)), SIPlugin(1.0)
        >>> strategy = DHP(
        ...     model=model, optimizer=SGD(model.parameters(), lr=0.1, fused=True), train_mb_size=32, plugins=[si],
        ...     evaluator=None,
        ... )
        >>> metrics = strategy.train(split_digits().train_stream[0])
        >>> sorted(si.importance)  # no alpha, no eta
        ['features.1.bias', 'features.1.weight', 'head.heads.0.weight']
    """

    def __init__(self, **template: Unpack[Template]) -> None:
        self.dhp = DHPPlugin()
        super().__init__(**with_own(self.dhp, template))

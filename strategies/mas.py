"""Memory Aware Synapses as a strategy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

from avsi.consolidation.arguments import Strength
from avsi.consolidation.penalty import PenaltyStep
from avsi.plugins import MASPlugin
from avsi.strategies.template import MethodTemplate, Template, with_own


class MAS(MethodTemplate):
    """Fine-tuning with Memory Aware Synapses (Aljundi et al. 2018), exact per sample; the plugin is ``strategy.mas``.

    Args:
        strength: lambda, see :class:`avsi.MASPlugin`.
        decay: How much of the old importance stays, in [0, 1].
        exclude: Glob patterns of parameter names to leave out.
        penalty: ``"explicit"`` or ``"proximal"``, see :class:`avsi.consolidation.QuadraticPenalty`.
        **template: ``model``, ``optimizer``, ``train_mb_size``, ``train_epochs`` and what else every strategy takes,
            see :class:`~avsi.strategies.template.MethodTemplate`.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a value has the wrong type.

    Examples:
        >>> from torch.optim import SGD
        >>> from avsi.metrics import accuracy_row, evaluation_metrics
        >>> from avsi.models import MLP, MultiHead
        >>> from avsi.plugins import EvaluationPlugin
        >>> from avsi.scenarios import split_digits
        >>> benchmark, model = split_digits(), MLP(64, (16,), MultiHead)
        >>> strategy = MAS(
        ...     model=model, optimizer=SGD(model.parameters(), lr=0.1, fused=True), strength=0.1, train_mb_size=32,
        ...     eval_mb_size=100, evaluator=EvaluationPlugin(*evaluation_metrics(), loggers=[]),
        ... )
        >>> metrics = strategy.train(benchmark.train_stream[0])
        >>> len(accuracy_row(strategy.eval(benchmark.test_stream), benchmark.test_stream))
        5
    """

    def __init__(
        self,
        *,
        strength: Strength,
        decay: float = 1.0,
        exclude: Iterable[str] = (),
        penalty: PenaltyStep = "explicit",
        **template: Unpack[Template],
    ) -> None:
        self.mas = MASPlugin(strength, decay=decay, exclude=exclude, penalty=penalty)
        super().__init__(**with_own(self.mas, template))

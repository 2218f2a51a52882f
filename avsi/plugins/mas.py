"""Memory Aware Synapses as an Avalanche plugin."""

from __future__ import annotations

from collections.abc import Iterable

from avsi.consolidation.arguments import Strength
from avsi.consolidation.mas import MASPenalty
from avsi.consolidation.penalty import PenaltyStep
from avsi.plugins.consolidation import ConsolidationPlugin


class MASPlugin(ConsolidationPlugin):
    r"""Memory Aware Synapses: importance is the sensitivity of the output's squared norm, exact per sample.

    What it computes is said at :class:`avsi.consolidation.MASPenalty`, and how it enters at
    :class:`ConsolidationPlugin`.

    Args:
        strength: lambda, at least 0; or one value per experience, the last one repeated.
        decay: How much of the old importance stays, in [0, 1]; 1 sums, as in the paper.
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
        >>> model = MLP(64, (16,), MultiHead)
        >>> mas = MASPlugin(strength=0.1, exclude=["head.*"])  # heads of other tasks are not trained anyway
        >>> strategy = Naive(
        ...     model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), train_mb_size=32, plugins=[mas],
        ...     evaluator=None,
        ... )
        >>> metrics = strategy.train(split_digits().train_stream[0])
        >>> sorted(mas.importance)
        ['features.1.bias', 'features.1.weight']
    """

    core: MASPenalty
    about = "output sensitivity"
    needs_logits = True

    def __init__(
        self,
        strength: Strength,
        *,
        decay: float = 1.0,
        exclude: Iterable[str] = (),
        penalty: PenaltyStep = "explicit",
    ) -> None:
        super().__init__(MASPenalty(None, strength, decay=decay, exclude=exclude, penalty=penalty))

"""Memory Aware Synapses (Aljundi et al., ECCV 2018)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from avsi._arguments import check_number
from avsi.consolidation.arguments import Strength
from avsi.consolidation.penalty import PenaltyStep, QuadraticPenalty
from avsi.consolidation.ranks import mean_over_ranks
from avsi.importance import mas_importance


class MASPenalty(QuadraticPenalty):
    r"""Memory Aware Synapses: importance is the sensitivity of the output's squared norm, exact per sample.

    At the end of a task, over the data given and with the model in evaluation mode, labels unused (see
    :func:`avsi.mas_importance`)::

        Omega_k <- decay * Omega_k + mean_n | d ||f(x_n)||_2^2 / d theta_k |,   anchor_k <- theta_k

    a sum over tasks by default, as in the paper. f(x) are the logits, in a multi-head model those of the task's own
    head. See :class:`QuadraticPenalty` for the penalty.

    Args:
        model: The model.
        strength: lambda, at least 0; or one value per task, the last one repeated.
        decay: How much of the old importance stays, in [0, 1].
        exclude: Glob patterns of parameter names to leave out.
        penalty: ``"explicit"`` or ``"proximal"``.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a value has the wrong type.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.ones_(model.weight)  # f = 3, and M = |2 f x|
        >>> penalty = MASPenalty(model, strength=0.1)
        >>> penalty.consolidate([(torch.tensor([[1.0, 2.0]]), None)])
        >>> penalty.importance["weight"]
        tensor([[ 6., 12.]])
    """

    def __init__(
        self,
        model: nn.Module | None,
        strength: Strength,
        *,
        decay: float = 1.0,
        exclude: Iterable[str] = (),
        penalty: PenaltyStep = "explicit",
    ) -> None:
        self.decay = check_number("decay", decay, "in [0, 1]", lambda value: 0 <= value <= 1)
        super().__init__(model, strength, exclude=exclude, penalty=penalty)

    def new_importance(
        self, parameters: Mapping[str, nn.Parameter], batches: Iterable[Any] | None
    ) -> dict[str, Tensor]:
        """Add the sensitivities of the task that just ended.

        Args:
            parameters: The penalised parameters by name.
            batches: The task's data.

        Returns:
            The new Omega.
        """
        sensitivity = mean_over_ranks(mas_importance, self.model, batches, parameters=parameters)
        return {name: self.decay * self.importance[name] + added for name, added in sensitivity.items()}

"""Memory Aware Synapses (Aljundi et al., ECCV 2018)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from avsi.consolidation.evaluation_pass import Track, evaluation_batches, show_if_long, task_experiences
from avsi.consolidation.penalty import ConsolidationPlugin, Strength
from avsi.importance import mas_importance


class MASPlugin(ConsolidationPlugin):
    r"""Memory Aware Synapses: importance is the sensitivity of the output's squared norm, exact per sample.

    At the end of an experience, over its training data with evaluation transforms and the model in evaluation mode,
    labels unused (see :func:`avsi.mas_importance`)::

        Omega_k <- Omega_k + mean_n | d ||f(x_n)||_2^2 / d theta_k |,   anchor_k <- theta_k

    a sum over tasks. f(x) are the logits, in a multi-head model those of the task's own head. See
    :class:`ConsolidationPlugin` for the penalty.

    Args:
        strength: lambda, at least 0; or one value per experience, the last one repeated.
        exclude: Glob patterns of parameter names to leave out.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a value has the wrong type.
    """

    def __init__(self, strength: Strength, *, exclude: Iterable[str] = ()) -> None:
        super().__init__(strength, exclude=exclude)
        self.track: Track = show_if_long
        """Shows the progress of the pass over the data."""

    def new_importance(self, strategy: Any, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        """Add the sensitivities of the experience that just ended.

        Returns:
            The new Omega.
        """
        batches = evaluation_batches(strategy, task_experiences(strategy), self.track, "output sensitivity")
        sensitivity = mas_importance(strategy.model, batches, parameters=parameters)
        return {name: self.importance[name] + added for name, added in sensitivity.items()}

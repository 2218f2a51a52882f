"""Online Elastic Weight Consolidation (Schwarz et al., "Progress & Compress", ICML 2018)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from torch import Tensor, nn

from avsi.consolidation.evaluation_pass import Track, evaluation_batches, show_if_long, task_experiences
from avsi.consolidation.penalty import ConsolidationPlugin, Strength
from avsi.importance import fisher_diagonal
from avsi.importance.estimators import Labels


class OnlineEWCPlugin(ConsolidationPlugin):
    r"""Online EWC: importance is the diagonal of the Fisher information, exact per sample.

    At the end of an experience, over its training data with evaluation transforms and the model in evaluation mode
    (see :func:`avsi.fisher_diagonal`)::

        Omega_k <- gamma * Omega_k + mean_n (d log p(y_n|x_n) / d theta_k)^2,   anchor_k <- theta_k

    Only the task's own outputs count in a multi-head model. See :class:`ConsolidationPlugin` for the penalty, which has
    no factor 1/2: a lambda that multiplies lambda/2 in another paper is half as large here.

    Args:
        strength: lambda, at least 0; or one value per experience, the last one repeated.
        gamma: How much of the old importance stays, in [0, 1]. The papers that report strengths state none; 1 sums.
        labels: ``"empirical"``: the data's labels; ``"sampled"``: one label drawn from the model's output;
            ``"exact"``: the expectation over all the model's outputs.
        exclude: Glob patterns of parameter names to leave out.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a value has the wrong type.
    """

    def __init__(
        self,
        strength: Strength,
        *,
        gamma: float = 1.0,
        labels: Labels = "empirical",
        exclude: Iterable[str] = (),
    ) -> None:
        super().__init__(strength, exclude=exclude)
        if isinstance(gamma, bool) or not isinstance(gamma, int | float):
            raise TypeError(f"gamma must be a number, got {gamma!r}")
        if not math.isfinite(gamma) or not 0 <= gamma <= 1:
            raise ValueError(f"gamma must be in [0, 1], got {gamma!r}")
        if labels not in get_args(Labels):
            raise ValueError(f"labels must be one of {', '.join(get_args(Labels))}, got {labels!r}")
        self.gamma = float(gamma)
        self.labels: Labels = labels
        self.track: Track = show_if_long
        """Shows the progress of the pass over the data."""

    def new_importance(self, strategy: Any, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        """Decay Omega and add the Fisher information of the experience that just ended.

        Returns:
            The new Omega.
        """
        batches = evaluation_batches(strategy, task_experiences(strategy), self.track, "Fisher information")
        # Sampled labels differ from task to task, and are the same in a run that was resumed.
        seed = self.experiences_seen
        fisher = fisher_diagonal(strategy.model, batches, labels=self.labels, parameters=parameters, seed=seed)
        return {name: self.gamma * self.importance[name] + added for name, added in fisher.items()}

"""Online EWC as an Avalanche plugin."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from avalanche.training import SCR

from avsi.consolidation.arguments import Strength
from avsi.consolidation.online_ewc import Mode, OnlineEWCPenalty
from avsi.consolidation.penalty import PenaltyStep
from avsi.importance.estimators import LABELS_OF_THE_DATA, Labels
from avsi.importance.samples import check_classes, check_labels
from avsi.importance.state import kept_random_states
from avsi.plugins.consolidation import ConsolidationPlugin
from avsi.plugins.evaluation_pass import evaluation_batches, task_experiences


class OnlineEWCPlugin(ConsolidationPlugin):
    r"""Online EWC: importance is the diagonal of the Fisher information, exact per sample.

    What it computes is said at :class:`avsi.consolidation.OnlineEWCPenalty`, and how it enters at
    :class:`ConsolidationPlugin`. The penalty has no factor 1/2: a lambda that multiplies lambda/2 in another paper is
    half as large here.

    Args:
        strength: lambda, at least 0; or one value per experience, the last one repeated.
        gamma: How much of the old importance stays, in [0, 1]. The papers that report strengths state none; 1 sums.
        labels: Which labels the Fisher information is taken over, see :func:`avsi.fisher_diagonal`.
        mode: ``"online"``, or ``"separate"`` for a quadratic term per experience, each about its own parameters.
        max_samples: Measure on so many of an experience's samples, drawn at random; None: on all.
        seed: Seed of ``labels="sampled"`` and ``max_samples``; default: that of torch's random numbers when it is made.
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
        >>> ewc = OnlineEWCPlugin(strength=100.0, labels="exact", max_samples=50)  # on 50 samples a task
        >>> strategy = Naive(
        ...     model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), train_mb_size=32, plugins=[ewc],
        ...     evaluator=None,
        ... )
        >>> metrics = strategy.train(split_digits().train_stream[0])
        >>> ewc.importance["head.heads.0.weight"].shape
        torch.Size([2, 16])
    """

    core: OnlineEWCPenalty
    about = "Fisher information"
    needs_logits = True

    def __init__(
        self,
        strength: Strength,
        *,
        gamma: float = 1.0,
        labels: Labels = "empirical",
        mode: Mode = "online",
        max_samples: int | None = None,
        seed: int | None = None,
        exclude: Iterable[str] = (),
        penalty: PenaltyStep = "explicit",
    ) -> None:
        super().__init__(
            OnlineEWCPenalty(
                None,
                strength,
                gamma=gamma,
                labels=labels,
                mode=mode,
                max_samples=max_samples,
                seed=seed,
                exclude=exclude,
                penalty=penalty,
            )
        )

    @property
    def gamma(self) -> float:
        """How much of the old importance stays."""
        return self.core.gamma

    @property
    def labels(self) -> Labels:
        """Which labels the Fisher information is taken over."""
        return self.core.labels

    def after_train_dataset_adaptation(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse what has no Fisher information, see :class:`ConsolidationPlugin`.

        Raises:
            TypeError: If the strategy trains embeddings, not a classifier.
        """
        super().after_train_dataset_adaptation(strategy, *args, **kwargs)
        if isinstance(strategy, SCR):
            raise TypeError(
                "OnlineEWCPlugin cannot work with SCR, whose contrastive loss trains embeddings: these are no logits, "
                "so there is no likelihood of the labels to take Fisher information of; use MASPlugin or SIPlugin"
            )

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse labels that are no class indices, where the data's are needed, see :class:`ConsolidationPlugin`."""
        super().before_training_exp(strategy, *args, **kwargs)
        if self.labels in LABELS_OF_THE_DATA:
            with kept_random_states():  # which transforms may draw from
                first = islice(evaluation_batches(strategy, task_experiences(strategy), lambda all_, *_: all_), 1)
                for _, y, *_ in first:
                    check_labels(y, len(y), self.labels)

    def after_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse the outputs of a single class, which have no Fisher information, before the first step."""
        super().after_forward(strategy, *args, **kwargs)
        if self.labels != "gaussian" and self._iterations == 1:
            check_classes(strategy.mb_output, f"in experience {self.experiences_seen}")

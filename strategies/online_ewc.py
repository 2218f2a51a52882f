"""Online Elastic Weight Consolidation as a strategy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

from avsi.consolidation.arguments import Strength
from avsi.consolidation.online_ewc import Mode
from avsi.consolidation.penalty import PenaltyStep
from avsi.importance.estimators import Labels
from avsi.plugins import OnlineEWCPlugin
from avsi.strategies.template import MethodTemplate, Template, with_own


class OnlineEWC(MethodTemplate):
    """Fine-tuning with Online EWC (Schwarz et al. 2018), exact per sample; the plugin is ``strategy.online_ewc``.

    Args:
        strength: lambda, see :class:`avsi.OnlineEWCPlugin`.
        gamma: How much of the old importance stays.
        labels: Which labels the Fisher information is taken over.
        mode: ``"online"``, or ``"separate"`` for a quadratic term per experience.
        max_samples: Measure it on so many of an experience's samples, drawn at random; None: on all.
        seed: Seed of what is drawn.
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
        >>> strategy = OnlineEWC(
        ...     model=model, optimizer=Adam(model.parameters(), fused=True), strength=100.0, labels="exact",
        ...     train_mb_size=32, evaluator=None,
        ... )
        >>> for experience in benchmark.train_stream[:2]:
        ...     metrics = strategy.train(experience)
        >>> strategy.online_ewc.importance["features.1.weight"].shape
        torch.Size([16, 64])
    """

    def __init__(
        self,
        *,
        strength: Strength,
        gamma: float = 1.0,
        labels: Labels = "empirical",
        mode: Mode = "online",
        max_samples: int | None = None,
        seed: int | None = None,
        exclude: Iterable[str] = (),
        penalty: PenaltyStep = "explicit",
        **template: Unpack[Template],
    ) -> None:
        self.online_ewc = OnlineEWCPlugin(
            strength,
            gamma=gamma,
            labels=labels,
            mode=mode,
            max_samples=max_samples,
            seed=seed,
            exclude=exclude,
            penalty=penalty,
        )
        super().__init__(**with_own(self.online_ewc, template))

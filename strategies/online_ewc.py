"""Online Elastic Weight Consolidation as a strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import nn, optim

from avsi.consolidation.arguments import Strength
from avsi.consolidation.online_ewc import Mode
from avsi.consolidation.penalty import PenaltyStep
from avsi.importance.estimators import Labels
from avsi.plugins import OnlineEWCPlugin
from avsi.plugins.evaluation import default_evaluator
from avsi.strategies.template import MethodTemplate


class OnlineEWC(MethodTemplate):
    """Fine-tuning with Online EWC (Schwarz et al. 2018), exact per sample; the plugin is ``strategy.online_ewc``.

    Args:
        model: The model.
        optimizer: Any first-order optimizer of ``torch.optim``.
        criterion: Task loss, the mean over the batch. Default: cross entropy.
        strength: lambda, see :class:`avsi.OnlineEWCPlugin`.
        gamma: How much of the old importance stays.
        labels: Which labels the Fisher information is taken over.
        mode: ``"online"``, or ``"separate"`` for a quadratic term per experience.
        max_samples: Measure it on so many of an experience's samples, drawn at random; None: on all.
        seed: Seed of what is drawn.
        exclude: Glob patterns of parameter names to leave out.
        penalty: ``"explicit"`` or ``"proximal"``, see :class:`avsi.consolidation.QuadraticPenalty`.
        train_mb_size: Samples per training batch.
        train_epochs: Epochs per experience.
        eval_mb_size: Samples per batch in evaluation. Default: as in training.
        device: Where to train.
        plugins: Further plugins.
        evaluator: Metrics and loggers, or a function that makes them. Default: Avalanche's.
        eval_every: Evaluate in training after so many epochs or iterations; 0 after each experience, -1 never.
        peval_mode: What ``eval_every`` counts: ``"epoch"`` or ``"iteration"``.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a value has the wrong type.

    Examples:
        >>> from torch.optim import Adam
        >>> from avsi.models import MLP, MultiHead
        >>> from avsi.scenarios import split_digits
        >>> benchmark, model = split_digits(), MLP(64, (16,), MultiHead)
        >>> strategy = OnlineEWC(
        ...     model=model, optimizer=Adam(model.parameters()), strength=100.0, labels="exact", train_mb_size=32,
        ...     evaluator=None,
        ... )
        >>> for experience in benchmark.train_stream[:2]:
        ...     metrics = strategy.train(experience)
        >>> strategy.online_ewc.importance["features.1.weight"].shape
        torch.Size([16, 64])
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: optim.Optimizer,
        criterion: Callable[..., Any] | None = None,
        strength: Strength,
        gamma: float = 1.0,
        labels: Labels = "empirical",
        mode: Mode = "online",
        max_samples: int | None = None,
        seed: int | None = None,
        exclude: Iterable[str] = (),
        penalty: PenaltyStep = "explicit",
        train_mb_size: int = 1,
        train_epochs: int = 1,
        eval_mb_size: int | None = None,
        device: str | torch.device = "cpu",
        plugins: Sequence[Any] | None = None,
        evaluator: Any = default_evaluator,
        eval_every: int = -1,
        peval_mode: Literal["epoch", "iteration"] = "epoch",
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
        super().__init__(
            own=self.online_ewc,
            model=model,
            optimizer=optimizer,
            criterion=criterion,
            train_mb_size=train_mb_size,
            train_epochs=train_epochs,
            eval_mb_size=eval_mb_size,
            device=device,
            plugins=plugins,
            evaluator=evaluator,
            eval_every=eval_every,
            peval_mode=peval_mode,
        )

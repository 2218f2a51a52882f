"""Synaptic Intelligence as a strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import nn, optim

from avsi.consolidation.arguments import Strength
from avsi.consolidation.penalty import PenaltyStep
from avsi.plugins import SIPlugin
from avsi.plugins.evaluation import default_evaluator
from avsi.strategies.template import MethodTemplate


class SynapticIntelligence(MethodTemplate):
    """Fine-tuning with Synaptic Intelligence (Zenke et al. 2017); the plugin is ``strategy.si``.

    Args:
        model: The model.
        optimizer: Any first-order optimizer of ``torch.optim``.
        criterion: Task loss, the mean over the batch. Default: cross entropy.
        strength: c of the paper, see :class:`avsi.SIPlugin`.
        damping: xi of the paper.
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
        >>> strategy = SynapticIntelligence(
        ...     model=model, optimizer=Adam(model.parameters()), strength=1.0, damping=1e-3, train_mb_size=32,
        ...     evaluator=None,
        ... )
        >>> for experience in benchmark.train_stream[:2]:
        ...     metrics = strategy.train(experience, reset_optimizer_state=True)
        >>> strategy.si.experiences_seen
        2
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: optim.Optimizer,
        criterion: Callable[..., Any] | None = None,
        strength: Strength,
        damping: float = 0.1,
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
        self.si = SIPlugin(strength, damping=damping, exclude=exclude, penalty=penalty)
        super().__init__(
            own=self.si,
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

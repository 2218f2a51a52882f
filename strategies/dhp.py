"""Differentiable Hebbian plasticity as a strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn, optim

from avsi.plugins import DHPPlugin
from avsi.plugins.evaluation import default_evaluator
from avsi.strategies.template import MethodTemplate


class DHP(MethodTemplate):
    """Fine-tuning of a model with Hebbian traces in its head ("DHP softmax"); the plugin is ``strategy.dhp``.

    With a consolidation plugin among ``plugins``, an ``avsi.SIPlugin`` say, it is the paper's DHP + SI: only slow
    weights are consolidated.

    Args:
        model: A model with one or more :class:`avsi.models.DHPLinear`.
        optimizer: Any optimizer of ``torch.optim`` that evaluates the loss once per step.
        criterion: Task loss. Default: cross entropy.
        train_mb_size: Samples per training batch.
        train_epochs: Epochs per experience.
        eval_mb_size: Samples per batch in evaluation. Default: as in training.
        device: Where to train.
        plugins: Further plugins.
        evaluator: Metrics and loggers, or a function that makes them. Default: Avalanche's.
        eval_every: Evaluate in training after so many epochs or iterations; 0 after each experience, -1 never.
        peval_mode: What ``eval_every`` counts: ``"epoch"`` or ``"iteration"``.

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
        ...     model=model, optimizer=SGD(model.parameters(), lr=0.1), train_mb_size=32, plugins=[si],
        ...     evaluator=None,
        ... )
        >>> metrics = strategy.train(split_digits().train_stream[0])
        >>> sorted(si.importance)  # no alpha, no eta
        ['features.1.bias', 'features.1.weight', 'head.heads.0.weight']
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: optim.Optimizer,
        criterion: Callable[..., Any] | None = None,
        train_mb_size: int = 1,
        train_epochs: int = 1,
        eval_mb_size: int | None = None,
        device: str | torch.device = "cpu",
        plugins: Sequence[Any] | None = None,
        evaluator: Any = default_evaluator,
        eval_every: int = -1,
        peval_mode: Literal["epoch", "iteration"] = "epoch",
    ) -> None:
        self.dhp = DHPPlugin()
        super().__init__(
            own=self.dhp,
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

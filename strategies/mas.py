"""Memory Aware Synapses as a strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import nn, optim

from avsi.consolidation.arguments import Strength
from avsi.consolidation.penalty import PenaltyStep
from avsi.plugins import MASPlugin
from avsi.plugins.evaluation import default_evaluator
from avsi.strategies.template import MethodTemplate


class MAS(MethodTemplate):
    """Fine-tuning with Memory Aware Synapses (Aljundi et al. 2018), exact per sample; the plugin is ``strategy.mas``.

    Args:
        model: The model.
        optimizer: Any first-order optimizer of ``torch.optim``.
        criterion: Task loss, the mean over the batch. Default: cross entropy.
        strength: lambda, see :class:`avsi.MASPlugin`.
        decay: How much of the old importance stays, in [0, 1].
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
        >>> from torch.optim import SGD
        >>> from avsi.metrics import accuracy_row, evaluation_metrics
        >>> from avsi.models import MLP, MultiHead
        >>> from avsi.plugins import EvaluationPlugin
        >>> from avsi.scenarios import split_digits
        >>> benchmark, model = split_digits(), MLP(64, (16,), MultiHead)
        >>> strategy = MAS(
        ...     model=model, optimizer=SGD(model.parameters(), lr=0.1), strength=0.1, train_mb_size=32,
        ...     eval_mb_size=100, evaluator=EvaluationPlugin(*evaluation_metrics(), loggers=[]),
        ... )
        >>> metrics = strategy.train(benchmark.train_stream[0])
        >>> len(accuracy_row(strategy.eval(benchmark.test_stream), benchmark.test_stream))
        5
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: optim.Optimizer,
        criterion: Callable[..., Any] | None = None,
        strength: Strength,
        decay: float = 1.0,
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
        self.mas = MASPlugin(strength, decay=decay, exclude=exclude, penalty=penalty)
        super().__init__(
            own=self.mas,
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

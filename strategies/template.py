"""What the ready-made strategies share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Required, TypedDict

import torch
from avalanche.training.plugins import SupervisedPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import nn, optim

from avsi._arguments import check_count
from avsi.plugins.batches import InMemoryBatches
from avsi.plugins.evaluation import default_evaluator


class Template(TypedDict, total=False):
    """What every strategy takes beside its method's own arguments; see `MethodTemplate`."""

    model: Required[nn.Module]
    optimizer: Required[optim.Optimizer]
    criterion: Callable[..., Any] | None
    train_mb_size: int
    train_epochs: int
    eval_mb_size: int | None
    device: str | torch.device
    plugins: Sequence[Any] | None
    evaluator: Any
    eval_every: int
    peval_mode: Literal["epoch", "iteration"]


def with_own(plugin: SupervisedPlugin, template: Template) -> Template:
    """Put a method's own plugin before those that it is given."""
    return {**template, "plugins": [plugin, *(template.get("plugins") or ())]}


class MethodTemplate(SupervisedTemplate):
    """Avalanche's ``SupervisedTemplate`` with the arguments and defaults that every strategy here has.

    Image data sets of avsi's scenarios are read in whole batches (:class:`avsi.InMemoryBatches`, last of the plugins
    unless there is one), and metrics are called only where they listen; results are those of ``SupervisedTemplate``,
    bit for bit. To do without, use the plugin with Avalanche's ``Naive``.

    Args:
        model: The model.
        optimizer: Any first-order optimizer of ``torch.optim`` that evaluates the loss once per step.
        criterion: Task loss, the mean over the batch. Default: cross entropy.
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
        counts = {
            "train_mb_size": train_mb_size,
            "train_epochs": train_epochs,
            "eval_mb_size": train_mb_size if eval_mb_size is None else eval_mb_size,
        }
        for name, count in counts.items():
            counts[name] = check_count(name, count)
        plugins = list(plugins or ())
        if not any(isinstance(plugin, InMemoryBatches) for plugin in plugins):
            plugins.append(InMemoryBatches())
        super().__init__(
            model=model,
            optimizer=optimizer,
            criterion=nn.CrossEntropyLoss() if criterion is None else criterion,
            **counts,
            device=device,
            plugins=plugins,
            evaluator=evaluator,
            eval_every=eval_every,
            peval_mode=peval_mode,
        )

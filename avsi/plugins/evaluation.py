"""Avalanche's evaluator, without the cost of callbacks that nobody listens to."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from avalanche.core import BasePlugin, BaseSGDPlugin
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.training import plugins
from avalanche.training.plugins.evaluation import default_loggers

ITERATION = (
    "before_training_iteration",
    "before_forward",
    "after_forward",
    "before_backward",
    "after_backward",
    "before_update",
    "after_update",
    "after_training_iteration",
    "before_eval_iteration",
    "before_eval_forward",
    "after_eval_forward",
    "after_eval_iteration",
)
"""The callbacks that come with every batch."""
EMPTY = {
    callback: {vars(base)[callback] for base in (PluginMetric, BasePlugin, BaseSGDPlugin) if callback in vars(base)}
    for callback in ITERATION
}
"""The functions of base classes that do nothing, by callback."""


class EvaluationPlugin(plugins.EvaluationPlugin):
    """Avalanche's ``EvaluationPlugin``, which in every batch calls only what its metrics and loggers define.

    Avalanche's calls each metric and logger in each of eight callbacks per training step, and before that copies the
    strategy's experience, though metrics over epochs or experiences listen to two of them. Values are the same. Loggers
    are not told, in a callback that nobody listens to, that there is nothing to log. Who listens is looked up again
    whenever metrics or loggers are added or removed.

    Takes the arguments of Avalanche's.

    Examples:
        >>> import torch
        >>> from avalanche.training import Naive
        >>> from avsi.metrics import accuracy_row, evaluation_metrics
        >>> from avsi.models import MLP, MultiHead
        >>> from avsi.scenarios import split_digits
        >>> model, stream = MLP(64, (16,), MultiHead), split_digits().test_stream
        >>> strategy = Naive(
        ...     model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), eval_mb_size=100,
        ...     evaluator=EvaluationPlugin(*evaluation_metrics(), loggers=[]),
        ... )
        >>> len(accuracy_row(strategy.eval(stream), stream))
        5
    """

    def _is_heard(self, callback: str) -> bool:
        known = self.__dict__.setdefault("_heard", {})
        metrics, loggers, heard = known.get(callback, ((), (), False))
        if metrics != self.metrics or loggers != self.loggers:
            heard = any(_listens(listener, callback) for listener in [*self.metrics, *self.loggers])
            known[callback] = list(self.metrics), list(self.loggers), heard
        return heard


def default_evaluator() -> EvaluationPlugin:
    """Make the evaluator that Avalanche's strategies have by default.

    Returns:
        Accuracy and loss per epoch, experience and stream, shown by the interactive logger.
    """
    kinds = {"epoch": True, "experience": True, "stream": True}
    return EvaluationPlugin(accuracy_metrics(**kinds), loss_metrics(**kinds), loggers=default_loggers)


def silent_evaluator(*metrics: Any, loggers: Sequence[Any] = (), **options: Any) -> EvaluationPlugin:
    """Make an evaluator without Avalanche's warning that nothing is logged.

    Args:
        *metrics: Avalanche's metrics.
        loggers: Its loggers, mostly none.
        **options: Further arguments of Avalanche's ``EvaluationPlugin``.

    Returns:
        The evaluator.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No loggers specified")
        return EvaluationPlugin(*metrics, loggers=list(loggers), **options)


def _sparing(callback: str) -> Callable[..., Any]:
    def call(self: EvaluationPlugin, strategy: Any, **_: Any) -> None:
        # Values that others have published wait to be logged.
        if self._metric_values or self._is_heard(callback):
            self._update_metrics_and_loggers(strategy, callback)

    call.__name__ = callback
    call.__doc__ = "Pass the callback on, if anyone listens."
    return call


def _listens(listener: Any, callback: str) -> bool:
    # Whether a metric or a logger does anything in a callback; Avalanche calls whatever has it.
    defined = getattr(type(listener), callback, None)
    if defined is None or callback in getattr(listener, "__dict__", ()):
        return hasattr(listener, callback)
    return defined not in EMPTY[callback]


for _callback in ITERATION:
    setattr(EvaluationPlugin, _callback, _sparing(_callback))

"""Avalanche's evaluator, without the cost of callbacks that nobody listens to."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from avalanche.core import BasePlugin, BaseSGDPlugin, SupervisedPlugin
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
EMPTY = (PluginMetric, BasePlugin, BaseSGDPlugin, SupervisedPlugin)
"""Classes whose callbacks do nothing."""


class EvaluationPlugin(plugins.EvaluationPlugin):
    """Avalanche's ``EvaluationPlugin``, which in every batch calls only what its metrics and loggers define.

    Avalanche's calls each metric and logger in each of eight callbacks per training step, and before that copies the
    strategy's experience, though metrics over epochs or experiences listen to one of them. Values are the same.

    Takes the arguments of Avalanche's.
    """


def default_evaluator() -> EvaluationPlugin:
    """Make the evaluator that Avalanche's strategies have by default.

    Returns:
        Accuracy and loss per epoch, experience and stream, shown by the interactive logger.
    """
    kinds = {"epoch": True, "experience": True, "stream": True}
    return EvaluationPlugin(accuracy_metrics(**kinds), loss_metrics(**kinds), loggers=default_loggers)


def _sparing(callback: str) -> Callable[..., Any]:
    def call(self: EvaluationPlugin, strategy: Any, **_: Any) -> None:
        listeners = [*self.metrics, *self.loggers]
        heard = any(callback in vars(listener) or _defines(listener.__class__, callback) for listener in listeners)
        if heard or self._metric_values:  # values that others have published wait to be logged
            self._update_metrics_and_loggers(strategy, callback)

    call.__name__ = callback
    call.__doc__ = "Pass the callback on, if anyone listens."
    return call


@cache
def _defines(listener: Any, callback: str) -> bool:
    # Whether a metric's or a logger's class does anything in a callback.
    owner = next((cls for cls in listener.__mro__ if callback in vars(cls)), None)
    return owner is not None and owner not in EMPTY


for _callback in ITERATION:
    setattr(EvaluationPlugin, _callback, _sparing(_callback))

"""Where the time of a whole run goes, by hand and with avsi."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from avalanche.training.templates import SupervisedTemplate

from avsi import MASPlugin, OnlineEWCPlugin, SIPlugin
from avsi.experiment import running
from avsi.experiment.trainer import Trainer
from avsi.plugins.batches import InMemoryLoader
from avsi.plugins.evaluation import ITERATION, EvaluationPlugin
from perf import floors, rounds
from perf.floors import Loop

LOOP_PARTS = {
    "__init__": "building",
    "forward": "forward",
    "backward": "backward",
    "step": "optimizer",
    "evaluate": "evaluation",
}
WHOLE = {"evaluation", "consolidation", "files", "building"}
"""Parts that are not taken apart further."""
PARTS = ("building", "data", "forward", "backward", "optimizer", "method", "metrics", "consolidation", "evaluation",
         "files", "rest")  # fmt: skip


@dataclass
class Parts:
    """Seconds by part; what runs within a part and is one itself counts there alone.

    Attributes:
        seconds: The sums.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    _within: list[tuple[str, float]] = field(default_factory=list)

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose time is counted."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._within and self._within[-1][0] in WHOLE:
                return function(*args, **kwargs)
            start = rounds.clock()
            self._within.append((part, 0.0))
            try:
                return function(*args, **kwargs)
            finally:
                spent = rounds.clock() - start
                _, inner = self._within.pop()
                self.seconds[part] = self.seconds.get(part, 0.0) + spent - inner
                if self._within:
                    outer, before = self._within[-1]
                    self._within[-1] = outer, before + spent

        return call

    def iterated(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that gives an iterator, whose steps are counted."""

        def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
            iterator, end = iter(function(*args, **kwargs)), object()
            step = self.timed(part, lambda: next(iterator, end))
            while (item := step()) is not end:
                yield item

        return call

    def watch(self, stack: ExitStack, owner: Any, name: str, part: str, *, iterates: bool = False) -> None:
        """Count a method's time until the stack closes."""
        wrap = self.iterated if iterates else self.timed
        stack.enter_context(patch.object(owner, name, wrap(part, getattr(owner, name))))


def seconds_by_part(run: Callable[[], object], watch: Callable[[Parts, ExitStack], None]) -> dict[str, float]:
    """Run once, and count.

    Args:
        run: The run.
        watch: Says what of it is a part.

    Returns:
        Seconds by part.
    """
    parts = Parts()
    with ExitStack() as stack:
        watch(parts, stack)
        start = rounds.clock()
        run()
        whole = rounds.clock() - start
    parts.seconds["rest"] = whole - sum(parts.seconds.values())
    return {part: parts.seconds.get(part, 0.0) for part in PARTS}


def watch_loop(parts: Parts, stack: ExitStack, *, method: str) -> None:
    """Count the parts of the loop by hand."""
    for name, part in LOOP_PARTS.items():
        parts.watch(stack, Loop, name, part)
    parts.watch(stack, Loop, "deliver", "data", iterates=True)
    for name, part in (("before_step", "method"), ("after_step", "method"), ("consolidate", "consolidation")):
        parts.watch(stack, floors.METHODS[method], name, part)


def watch_trial(parts: Parts, stack: ExitStack) -> None:
    """Count the parts of a trial."""
    for name, part in (("forward", "forward"), ("criterion", "forward"), ("backward", "backward"),
                       ("optimizer_step", "optimizer"), ("eval", "evaluation")):  # fmt: skip
        parts.watch(stack, SupervisedTemplate, name, part)
    for plugin in (SIPlugin, OnlineEWCPlugin, MASPlugin):
        for name in ("after_backward", "before_update", "after_update"):
            parts.watch(stack, plugin, name, "method")
        parts.watch(stack, plugin, "after_training_exp", "consolidation")
    for name in ITERATION:
        parts.watch(stack, EvaluationPlugin, name, "metrics")
    parts.watch(stack, InMemoryLoader, "__iter__", "data", iterates=True)
    parts.watch(stack, Trainer, "measure", "evaluation")
    parts.watch(stack, Trainer, "keep", "files")
    for name in ("make_benchmark", "describe_data", "describe_environment"):
        parts.watch(stack, running, name, "building")


def show(found: dict[str, dict[str, float]]) -> None:
    """Print where the time goes."""
    print(f"{'':10}" + "".join(f"{part:>15}" for part in PARTS))
    for name, seconds in found.items():
        print(f"{name:10}" + "".join(f"{seconds[part]:15.3f}" for part in PARTS), flush=True)

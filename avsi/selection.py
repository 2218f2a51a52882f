"""Choosing learning rate and strength task by task, without the data of other tasks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from avalanche.training.plugins import LRSchedulerPlugin

from avsi._arguments import check_count
from avsi._generators import set_states, states_of
from avsi.consolidation import StabilityWarning
from avsi.consolidation.arguments import check_strengths
from avsi.experiment.strategy_state import NotKeptError, random_states, restore_random_states
from avsi.plugins import ConsolidationPlugin
from avsi.plugins.divergence import what_broke
from avsi.plugins.early_stopping import validation_error
from avsi.snapshot import Snapshot


@dataclass(frozen=True)
class Attempt:
    """A training on the task that was undone afterwards.

    Attributes:
        learning_rate: The learning rate.
        strength: The strength; 0 in the search for the learning rate.
        accuracy: Accuracy on the task's validation data, in [0, 1]; None where training diverged.
    """

    learning_rate: float
    strength: float
    accuracy: float | None


@dataclass(frozen=True)
class Choice:
    """What was chosen for a task.

    Attributes:
        learning_rate: The learning rate that learns the task best without a penalty.
        strength: The largest strength tried that keeps the accuracy within the margin.
        accuracy: Accuracy on the task's validation data with both, in [0, 1].
        plasticity: The same without a penalty: A* of the survey.
        attempts: All trainings, in their order.
    """

    learning_rate: float
    strength: float
    accuracy: float
    plasticity: float
    attempts: tuple[Attempt, ...]


def assign_strength(strategy: Any, strength: float) -> None:
    """Set the strength of a strategy's consolidation plugin, from the coming experience on.

    Where it was given strengths for experiences after that, these stay.

    Args:
        strategy: The Avalanche strategy.
        strength: The strength.
    """
    core = _plugin(strategy).core
    earlier, later = core.strengths[: core.experiences_seen], core.strengths[core.experiences_seen + 1 :]
    core.strengths = (*earlier, *check_strengths(strength), *later) if later else check_strengths(strength)


def _plugin(strategy: Any) -> ConsolidationPlugin:
    plugins = [plugin for plugin in strategy.plugins if isinstance(plugin, ConsolidationPlugin)]
    if len(plugins) != 1:
        raise ValueError(
            f"{type(strategy).__name__} has {len(plugins)} consolidation plugins of avsi, and the strength of one is "
            "chosen; pass strength= and assign=, a function that takes the strategy and a strength and sets it"
        )
    return plugins[0]


def choose_strength(
    strategy: Any,
    experience: Any,
    validation: Any,
    *,
    learning_rates: Iterable[float],
    strength: float | None = None,
    margin: float = 0.2,
    decay: float = 0.5,
    attempts: int = 30,
    assign: Callable[[Any, float], None] = assign_strength,
    **train: Any,
) -> Choice:
    """Choose the learning rate and the strength for the coming experience, from its own data alone.

    The continual hyper-parameter framework of De Lange et al. (2021), "A continual learning survey: defying forgetting
    in classification tasks", section 4:

    1. *Maximal plasticity search*: train on the experience with each learning rate and strength 0. The best accuracy
       on validation data is A*.
    2. *Stability decay*: with that learning rate, train with the strength; while the accuracy is below
       ``(1 - margin) * A*``, multiply the strength by ``decay`` and train again.

    Every training begins with the strategy as it is now, random states included, and is undone afterwards. Then the
    strategy has what was chosen and is otherwise as before, bit for bit: ``strategy.train(experience)`` repeats the
    training that was accepted. Nothing is logged and no metric is told of the attempts.

    As in the authors' code, the next experience begins with the strength that this one ended with; begin with a large
    one. At the first experience, where there is nothing to remember, any strength passes.

    Args:
        strategy: Any Avalanche strategy, between two experiences, but those that hold an iterator under way, as
            A-GEM does after its first experience.
        experience: What is to be learned.
        validation: An experience with validation data of the same task, such as that of a benchmark's
            ``valid_stream``.
        learning_rates: The learning rates to try, for all parameter groups.
        strength: The strength to begin with; default: the one that the consolidation plugin has.
        margin: By how much, as a share of A*, the accuracy may fall; 0.2 in the survey.
        decay: Multiplies the strength where it fell by more; 0.5 in the survey.
        attempts: How many strengths are tried at most.
        assign: Sets a strength; default: that of avsi's consolidation plugin. With it, any hyper-parameter of any
            strategy can be chosen whose value 0 means no penalty, such as LwF's ``alpha``.
        **train: Further arguments of ``strategy.train``, such as ``reset_optimizer_state``.

    Returns:
        The choice, with all attempts.

    Raises:
        RuntimeError: If training diverges at every learning rate, or no strength tried is weak enough.
        ValueError: If an argument is out of range, the strategy has an ``LRSchedulerPlugin`` or holds an iterator
            under way, or it is on a device whose random states are not known.
        TypeError: If ``validation`` is no experience, or the number of attempts is not whole.

    Examples:
        >>> from avsi.models import MLP, MultiHead
        >>> from avsi.scenarios import split_digits
        >>> from avsi.strategies import SynapticIntelligence
        >>> from torch.optim import SGD
        >>> benchmark = split_digits(validation=0.2)
        >>> model = MLP(64, (32,), MultiHead)
        >>> strategy = SynapticIntelligence(
        ...     model=model, optimizer=SGD(model.parameters(), lr=0.1), strength=1000.0, train_mb_size=32,
        ...     train_epochs=3, evaluator=None,
        ... )
        >>> for experience, validation in zip(benchmark.train_stream[:2], benchmark.valid_stream):
        ...     choice = choose_strength(strategy, experience, validation, learning_rates=(0.1, 0.01))
        ...     metrics = strategy.train(experience)
        >>> choice.accuracy >= 0.8 * choice.plasticity
        True
        >>> choice.strength in {1000.0 * 0.5**halved for halved in range(30)}
        True
    """
    first = _plugin(strategy).strength if strength is None else float(strength)
    rates = [float(rate) for rate in learning_rates]
    attempts = check_count("attempts", attempts)
    _check(rates, first, margin, decay)
    if not hasattr(validation, "dataset"):
        raise TypeError(f"validation must be one experience, such as benchmark.valid_stream[0], got {validation!r:.80}")
    if "eval_streams" in train:
        raise TypeError("choose_strength evaluates on the validation data alone; leave out eval_streams")
    if any(isinstance(plugin, LRSchedulerPlugin) for plugin in strategy.plugins):
        raise ValueError(
            "the scheduler of an LRSchedulerPlugin goes by learning rates of its own, whichever is tried; use "
            "avsi.plugins.schedule.Schedule, whose scheduler begins with the one that it finds"
        )
    tried: list[Attempt] = []
    device = str(strategy.device)
    try:
        random = random_states(device)
    except NotKeptError:
        raise ValueError(f"choose_strength works on cpu and cuda, got {device}; move the strategy") from None
    snapshot = Snapshot(strategy, leave=[strategy.evaluator])
    data = [experience, validation]  # a snapshot leaves data alone; their transforms may draw random numbers
    generators = states_of(data)

    def attempt(learning_rate: float, strength: float) -> float | None:
        accuracy = None
        try:
            _prepare(strategy, learning_rate, strength, assign)
            strategy.plugins = [plugin for plugin in strategy.plugins if plugin is not strategy.evaluator]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", StabilityWarning)  # it is what is found out here
                strategy.train(experience, eval_streams=[], **train)
            if not what_broke(strategy.model):
                accuracy = 1.0 - validation_error(strategy, [validation])
        except FloatingPointError:
            pass
        finally:
            snapshot.restore()
            restore_random_states(random, device)
            set_states(data, generators)
        tried.append(Attempt(learning_rate, strength, accuracy))
        return accuracy

    plasticity = {rate: attempt(rate, 0.0) for rate in rates}
    learned = {rate: accuracy for rate, accuracy in plasticity.items() if accuracy is not None}
    if not learned:
        raise RuntimeError(f"training diverges at every learning rate of {list(plasticity)}; give smaller ones")
    best = max(learned, key=learned.__getitem__)
    for exponent in range(attempts):
        chosen = first * decay**exponent
        accuracy = attempt(best, chosen)
        if accuracy is not None and accuracy >= (1 - margin) * learned[best]:
            _prepare(strategy, best, chosen, assign)
            return Choice(best, chosen, accuracy, learned[best], tuple(tried))
    raise RuntimeError(
        f"with every strength from {first:g} to {chosen:g} the accuracy on the new task is below {1 - margin:g} of the "
        f"{learned[best]:.3f} without a penalty; begin with a smaller strength, or allow more attempts"
    )


def _prepare(strategy: Any, learning_rate: float, strength: float, assign: Callable[[Any, float], None]) -> None:
    for group in strategy.optimizer.param_groups:
        group["lr"] = learning_rate
    assign(strategy, strength)


def _check(learning_rates: Sequence[float], strength: float, margin: float, decay: float) -> None:
    if not learning_rates or not all(math.isfinite(rate) and rate > 0 for rate in learning_rates):
        raise ValueError(f"learning_rates must be one or more numbers greater than 0, got {learning_rates!r}")
    if not math.isfinite(strength) or strength < 0:
        raise ValueError(f"strength must be finite and at least 0, got {strength!r}")
    if not 0 <= margin < 1:
        raise ValueError(f"margin must be in [0, 1), got {margin!r}")
    if not 0 < decay < 1:
        raise ValueError(f"decay must be in (0, 1), got {decay!r}")

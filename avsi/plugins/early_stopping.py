"""Early stopping on validation error, as in appendix A.1 of the DHP paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from avalanche.evaluation.metrics import Accuracy
from avalanche.models import avalanche_forward
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor, nn

from avsi._arguments import check_count
from avsi.consolidation.parameters import fit
from avsi.importance.state import evaluating
from avsi.plugins.consolidation import ConsolidationPlugin
from avsi.plugins.evaluation_pass import Track, evaluation_batches, show_if_long, task_experiences


class EarlyStopping(SupervisedPlugin):
    """Stops training on a task once its validation error no longer improves, and goes back to the best epoch.

    The DHP paper (appendix A.1) goes back to the lowest test error; here test data decide nothing. It also stops when
    the error "increases for more than 5 epochs", which is a weaker condition than the one it names first.

    Weights and buffers (Hebbian traces among them) become those of the epoch with the lowest validation error, the
    first of several, also where training ends with the last epoch, or a plugin stops it in the middle of one. The
    running state of consolidation plugins goes back with them: the path integral of Synaptic Intelligence is that of
    the path to the restored weights.

    Avalanche's own ``EarlyStoppingPlugin`` knows no least number of epochs, does not go back when training ends with
    the last epoch, and has the validation stream evaluated by the strategy's evaluator, which spoils its BWT.

    Args:
        stream: The validation stream: its experiences have the numbers (``current_experience``) of those trained on.
        patience: Stop when the validation error has not improved for so many epochs, at least 1.
        at_least: Epochs to train in any case, at least 1.

    Attributes:
        errors: Validation error after each epoch, in [0, 1], by experience.
        track: Shows the progress of the pass over the validation data.

    Raises:
        ValueError: If a number of epochs is not positive; before training, if the stream has nothing for an experience.
        TypeError: If it is no whole number.

    Examples:
        >>> import torch
        >>> from avalanche.training import Naive
        >>> from avsi.models import MLP, MultiHead
        >>> from avsi.scenarios import split_digits
        >>> benchmark, model = split_digits(validation=0.2), MLP(64, (16,), MultiHead)
        >>> stopping = EarlyStopping(benchmark.valid_stream, patience=1, at_least=2)
        >>> strategy = Naive(
        ...     model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), train_mb_size=32, train_epochs=99,
        ...     plugins=[stopping], evaluator=None,
        ... )
        >>> metrics = strategy.train(benchmark.train_stream[0])
        >>> 2 <= len(stopping.errors[0]) < 99
        True
    """

    def __init__(self, stream: Any, patience: int = 5, at_least: int = 10) -> None:
        super().__init__()
        if not isinstance(stream, Iterable):
            raise TypeError(
                f"stream must be a stream of experiences, such as benchmark.valid_stream, got {stream!r:.80}"
            )
        self.stream = stream
        self.patience, self.at_least = check_count("patience", patience), check_count("at_least", at_least)
        self.errors: list[list[float]] = []
        self.track: Track = show_if_long
        self._experiences: list[Any] = []  # whose validation data belong to the running experience
        self._best: dict[str, Any] = {}
        self._best_epoch = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what outlasts an experience.

        Returns:
            The errors.
        """
        return {"errors": self.errors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict` between two experiences.

        Args:
            state: The state.
        """
        self.errors = [list(errors) for errors in state["errors"]]

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Start counting anew."""
        known = {experience.current_experience: experience for experience in self.stream}
        tasks = [experience.current_experience for experience in task_experiences(strategy)]
        lacking = [task for task in tasks if task not in known]
        if lacking:
            raise ValueError(
                f"experience {lacking[0]} has no validation data: the stream given to EarlyStopping has experiences "
                f"{', '.join(map(str, known)) or '(none)'}; give one for each experience of the training stream"
            )
        self._experiences = [known[task] for task in tasks]
        self.errors.append([])

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Measure the validation error; stop and go back when it is time."""
        errors = self.errors[-1]
        errors.append(validation_error(strategy, self._experiences, self.track))
        epoch = len(errors)
        if epoch == 1 or errors[-1] < errors[self._best_epoch - 1]:
            self._best_epoch = epoch
            self._best = self._state(strategy)
        patience_ends = epoch - self._best_epoch >= self.patience and epoch >= self.at_least
        if patience_ends:
            strategy.stop_training()
        ends = strategy._stop_training or epoch == strategy.train_epochs
        # Here, not after the experience: consolidation plugins measure there, in an order that is not ours.
        if ends and epoch != self._best_epoch:
            restore(strategy.model, self._best["model"])
            for plugin, state in zip(self._consolidation(strategy), self._best["plugins"], strict=True):
                plugin.load_state_dict(state)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Take the stop back: where it came in the last epoch, Avalanche would skip the next experience for it."""
        strategy._stop_training = False
        self._experiences = []

    def _state(self, strategy: Any) -> dict[str, Any]:
        plugins = [plugin.state_dict() for plugin in self._consolidation(strategy)]
        # Buffers that are no part of a state_dict too.
        model = dict(strategy.model.named_buffers()) | strategy.model.state_dict()
        return deepcopy({"model": model, "plugins": plugins})

    @staticmethod
    def _consolidation(strategy: Any) -> list[ConsolidationPlugin]:
        return [plugin for plugin in strategy.plugins if isinstance(plugin, ConsolidationPlugin)]


@torch.no_grad()
def restore(model: nn.Module, kept: Mapping[str, Any]) -> None:
    """Load an earlier state of a model; what has been added to it since (by an evaluation that grew it) stays.

    Args:
        model: The model.
        kept: The earlier state; buffers that are not in a ``state_dict`` may be among it.
    """
    state, buffers = model.state_dict(), dict(model.named_buffers())
    for name, value in kept.items():
        present = state.get(name, buffers.get(name))
        if isinstance(present, Tensor) and isinstance(value, Tensor) and present.shape != value.shape:
            value = fit(value, present.clone(), name)
        if name in state or name not in buffers:
            state[name] = value
        else:
            buffers[name].copy_(value)
    model.load_state_dict(state)


@torch.no_grad()
def validation_error(strategy: Any, experiences: Sequence[Any], track: Track = show_if_long) -> float:
    """Measure the share of wrong answers on experiences, pooled, without telling the strategy's evaluator.

    Args:
        strategy: The Avalanche strategy.
        experiences: The experiences.
        track: Shows progress.

    Returns:
        The error, in [0, 1].
    """
    accuracy = Accuracy()
    with evaluating(strategy.model):
        for x, y, *tasks in evaluation_batches(strategy, experiences, track, "validation"):
            x, y, *tasks = (tensor.to(strategy.device) for tensor in (x, y, *tasks))
            accuracy.update(avalanche_forward(strategy.model, x, *tasks) if tasks else strategy.model(x), y)
    return 1.0 - accuracy.result()

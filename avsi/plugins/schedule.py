"""Training with a learning-rate schedule."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from avalanche.training.plugins import SupervisedPlugin
from torch.optim.lr_scheduler import ReduceLROnPlateau


class Schedule(SupervisedPlugin):
    """Gives each experience a fresh learning-rate scheduler and steps it after each epoch.

    Learning rates are set back after each experience: the next one starts where the first did. Momentum, which
    ``OneCycleLR`` and ``CyclicLR`` move too, is not; they set it anew as they begin. After an interrupted experience
    learning rates are set back before the next one, unless they were changed in between.
    Avalanche's ``LRSchedulerPlugin`` keeps one scheduler, which cannot go on from a checkpoint.

    Args:
        make: Makes the scheduler from the optimizer, such as ``functools.partial(CosineAnnealingLR, T_max=10)``.
    """

    def __init__(self, make: Callable[[torch.optim.Optimizer], Any]) -> None:
        super().__init__()
        if not callable(make):
            raise TypeError(
                f"make must make a scheduler from an optimizer, such as partial(StepLR, step_size=1), got {make!r:.80}"
            )
        self._make = make
        self._scheduler: Any = None
        self._rates: list[Any] = []  # with which the experience began
        self._left: list[Any] = []  # with which its last epoch ended

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Make the experience's scheduler.

        Raises:
            TypeError: If it steps by a measured value, as ``ReduceLROnPlateau`` does.
        """
        if self._scheduler is not None and self._read(strategy) == self._left:
            self._set_back(strategy)  # after an experience that was interrupted
        self._rates = self._left = self._read(strategy)
        self._forget_base(strategy)
        self._scheduler = self._make(strategy.optimizer)
        if isinstance(self._scheduler, ReduceLROnPlateau):
            raise TypeError(
                "Schedule steps its scheduler by epochs, and ReduceLROnPlateau needs a measured value; take one that "
                "counts epochs, such as CosineAnnealingLR"
            )

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Step the scheduler."""
        self._scheduler.step()
        self._left = self._read(strategy)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Set the learning rates back."""
        self._set_back(strategy)
        self._forget_base(strategy)
        self._scheduler, self._rates, self._left = None, [], []

    def _set_back(self, strategy: Any) -> None:
        for group, rate in zip(strategy.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate

    @staticmethod
    def _read(strategy: Any) -> list[Any]:
        # Copied: schedulers change a rate that is a tensor in place.
        return [deepcopy(group["lr"]) for group in strategy.optimizer.param_groups]

    @staticmethod
    def _forget_base(strategy: Any) -> None:
        # Schedulers keep the rate that they begin with in the optimizer, and take over one that they find there.
        for group in strategy.optimizer.param_groups:
            group.pop("initial_lr", None)

    def state_dict(self) -> dict[str, Any]:
        """Return what outlasts an experience.

        Returns:
            Nothing.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""

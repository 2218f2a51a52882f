"""What is done about training that diverges: one error, and a note of when a value first went wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

HUGE = 1e10
"""Weights beyond this are no result of training either, finite or not."""


class DivergenceError(FloatingPointError):
    """Training diverged: a loss, weights or Hebbian traces are not finite, or grew beyond all measure.

    Args:
        found: What was found, as in "the loss is nan".
        cause: The likely cause, and what mends it.
        task: Index of the task, from 0.
        step: Index of the optimizer's step, from 0, within the epoch or, where no epoch is known, within the task.
        epoch: Index of the epoch, from 0; None where it is not known.
        stable_strength: The largest strength at which the penalty's explicit step is stable, where the strength in
            force was beyond it; else None.

    Attributes:
        found: As above; so are the following.
        cause: The likely cause.
        task: The task.
        epoch: The epoch.
        step: The step.
        stable_strength: The largest stable strength.

    Examples:
        >>> error = DivergenceError("the loss is nan", "the learning rate 10 is too large", task=1, epoch=0, step=7)
        >>> str(error)
        'training diverged in task 1, epoch 0, step 7 (from 0): the loss is nan; the learning rate 10 is too large'
        >>> error.task, error.stable_strength
        (1, None)
    """

    def __init__(
        self,
        found: str,
        cause: str,
        *,
        task: int,
        step: int,
        epoch: int | None = None,
        stable_strength: float | None = None,
    ) -> None:
        self.found, self.cause = found, cause
        self.task, self.epoch, self.step = task, epoch, step
        self.stable_strength = stable_strength
        where = f"task {task}, " + (f"epoch {epoch}, " if epoch is not None else "") + f"step {step} (from 0)"
        super().__init__(f"training diverged in {where}: {found}; {cause}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.found, self.cause, self.task, self.step, self.epoch, self.stable_strength)


def _rebuild(
    found: str, cause: str, task: int, step: int, epoch: int | None, stable_strength: float | None
) -> DivergenceError:
    return DivergenceError(found, cause, task=task, step=step, epoch=epoch, stable_strength=stable_strength)


class FirstFault:
    """Notes at which of many steps something was first wrong, without waiting for a GPU in any of them.

    On a CPU the answer is there at once; elsewhere it stays on the device until :meth:`step` is read.
    """

    def __init__(self) -> None:
        self._sound: Tensor | None = None
        self._sound_steps: Tensor | None = None

    def note(self, sound: Tensor) -> bool:
        """Note whether all is well in a step.

        Args:
            sound: Whether it is, a boolean without dimensions.

        Returns:
            Whether it is known already that it is not.
        """
        if sound.device.type == "cpu":
            return not bool(sound)
        self._sound = sound if self._sound is None else self._sound & sound
        steps = self._sound.long()
        self._sound_steps = steps if self._sound_steps is None else self._sound_steps + steps
        return False

    def step(self) -> int | None:
        """Ask the device.

        Returns:
            Index of the first step with a fault, from 0; None if there was none on a device.
        """
        if self._sound is None or self._sound_steps is None or bool(self._sound):
            return None
        return int(self._sound_steps)


def largest(tensors: Iterable[Tensor]) -> Tensor:
    """Find the largest magnitude in tensors, in one pass and without waiting for their device.

    Args:
        tensors: Tensors, at least one of them with elements.

    Returns:
        max |t|, without dimensions; nan where any element is.
    """
    tensors = [tensor.detach() for tensor in tensors if tensor.numel()]
    if all(tensor.device.type == "cpu" for tensor in tensors):  # several times as fast there as the norm
        peaks = [torch.maximum(-low, high) for low, high in map(torch.aminmax, tensors)]
    else:
        peaks = list(torch._foreach_norm(tensors, ord=float("inf")))
    return torch.stack([peak.to(peaks[0].device, torch.float32) for peak in peaks]).max()

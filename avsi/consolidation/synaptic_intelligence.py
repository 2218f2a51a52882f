"""Synaptic Intelligence (Zenke, Poole & Ganguli, ICML 2017)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from avalanche.training.utils import _at_task_boundary
from torch import Tensor, nn

from avsi.consolidation.penalty import ConsolidationPlugin, Reached, Strength, fit


class SIPlugin(ConsolidationPlugin):
    r"""Synaptic Intelligence: importance is a parameter's share in the loss's decrease along the training path.

    At every step (eq. 3), with g the gradient of the task loss alone and delta the change that the optimizer really
    made (momentum, weight decay and adaptive step sizes included)::

        omega_k += -g_k * delta_k

    At the end of an experience (eq. 5), with Delta_k the parameter's total change over it and xi the damping::

        Omega_k <- max(0, Omega_k + omega_k / (Delta_k^2 + xi)),   omega_k <- 0,   anchor_k <- theta_k

    The task loss is ``strategy.loss`` as it is back-propagated. Penalties of avsi's plugins never enter it; a term that
    another plugin adds to ``strategy.loss`` (distillation, Avalanche's own EWC) is part of it.

    The floor on the cumulative Omega is what the authors' code does; the paper leaves it out. See
    :class:`ConsolidationPlugin` for the penalty.

    Args:
        strength: c of the paper, at least 0; or one value per experience, the last one repeated.
        damping: xi > 0, which bounds Omega where a parameter hardly moved; in units of squared parameters.
        exclude: Glob patterns of parameter names to leave out.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a value has the wrong type.
    """

    def __init__(self, strength: Strength, *, damping: float = 0.1, exclude: Iterable[str] = ()) -> None:
        super().__init__(strength, exclude=exclude)
        if isinstance(damping, bool) or not isinstance(damping, int | float):
            raise TypeError(f"damping must be a number, got {damping!r}")
        if not math.isfinite(damping) or damping <= 0:
            raise ValueError(f"damping must be finite and greater than 0, got {damping!r}")
        self.damping = float(damping)
        self.path_integral: dict[str, Tensor] = {}
        """omega of the running experience: parameter name -> tensor of the parameter's shape."""
        # Where an experience starts away from the anchor (weights changed between experiences). Usually empty.
        self._start: dict[str, Tensor] = {}
        self._previous: dict[str, Tensor] = {}
        self._task: Reached | None = None  # what the step's task loss reached,
        self._gradients: list[Tensor | None] = []  # and its gradient, held from the backward pass to the update

    def state_dict(self) -> dict[str, Any]:
        """Return the plugin's state, see :meth:`ConsolidationPlugin.state_dict`.

        Returns:
            The shared state, omega, and the starting points of parameters that did not start at their anchor.
        """
        return super().state_dict() | {"path_integral": dict(self.path_integral), "_start": dict(self._start)}

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_task": None, "_gradients": []}

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Bind the state and start the path integral at the present parameters."""
        super().before_training_exp(strategy, *args, **kwargs)
        if not _at_task_boundary(strategy.experience, before=True):
            return
        for omega in self.path_integral.values():
            omega.zero_()
        self._start = {
            name: parameter.detach().clone()
            for name, parameter in self._bound.items()
            if not torch.equal(parameter, self.anchor[name])
        }

    @torch.no_grad()
    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Keep the task gradient and the parameters, before penalties are added and the optimizer steps."""
        task = self._find_reached()
        if task is None:
            self._forget_step()
            return
        _, previous = task.further
        torch._foreach_copy_(previous, task.parameters)
        gradients = task.gradients()
        kept = self._gradients if task is self._task else [None] * len(gradients)
        copies = [torch.empty_like(g) if copy is None else copy for g, copy in zip(gradients, kept, strict=True)]
        torch._foreach_copy_(copies, gradients)
        self._task, self._gradients = task, list(copies)

    @torch.no_grad()
    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Add the step's share to the path integral."""
        if self._task is None:
            return
        path_integral, minus_delta = self._task.further
        gradients = [gradient for gradient in self._gradients if gradient is not None]
        torch._foreach_sub_(minus_delta, self._task.parameters)
        torch._foreach_addcmul_(path_integral, gradients, minus_delta)
        # Kept on CPUs, where freeing and allocating them in each step can cost more than all the rest: the C library
        # gives large memory back to the system and maps it anew.
        self._gradients = [gradient if gradient.device.type == "cpu" else None for gradient in gradients]

    def _forget_step(self) -> None:
        self._task, self._gradients = None, []

    def new_importance(self, strategy: Any, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        """Fold omega into Omega (eq. 5, with the floor).

        Returns:
            The new Omega.
        """
        added = self.added_importance(parameters)
        return {name: (self.importance[name] + more).clamp_(min=0) for name, more in added.items()}

    @torch.no_grad()
    def added_importance(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        """Compute ``omega / (Delta^2 + xi)`` of the running experience.

        Args:
            parameters: Parameters by name, as they are now.

        Returns:
            What the experience adds to Omega, of the parameters' shapes.
        """
        added = {}
        for name, parameter in parameters.items():
            delta = parameter - self._start.get(name, self.anchor[name])
            added[name] = self.path_integral[name] / (delta.square() + self.damping)
        return added

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Measure importance, move the anchor and reset omega."""
        before = self.experiences_seen
        super().after_training_exp(strategy, *args, **kwargs)
        if self.experiences_seen > before:
            torch._foreach_zero_(list(self.path_integral.values()))
            self._start = {}
        self._forget_step()

    def _bound_changed(self) -> None:
        self._forget_step()
        for name, parameter in self._bound.items():
            self.path_integral[name] = fit(self.path_integral.get(name), torch.zeros_like(parameter), name)
            self._previous[name] = torch.empty_like(parameter)
            if name in self._start:
                self._start[name] = fit(self._start[name], parameter.detach().clone(), name)

    def _step_state(self) -> tuple[dict[str, Tensor], ...]:
        return (*super()._step_state(), self.path_integral, self._previous)

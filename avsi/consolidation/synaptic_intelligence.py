"""Synaptic Intelligence (Zenke, Poole & Ganguli, ICML 2017)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from avsi._arguments import check_number
from avsi.consolidation.arguments import Strength
from avsi.consolidation.parameters import fit
from avsi.consolidation.penalty import PenaltyStep, QuadraticPenalty
from avsi.consolidation.reached import Reached


class SIPenalty(QuadraticPenalty):
    r"""Synaptic Intelligence: importance is a parameter's share in the loss's decrease along the training path.

    At every step (eq. 3), with g the gradient of the task loss alone and delta the change that the step really made
    (momentum, weight decay, clipping and adaptive step sizes included, and so is the penalty's part)::

        omega_k += -g_k * delta_k

    At the end of a task (eq. 5), with Delta_k the parameter's total change over it and xi the damping::

        Omega_k <- max(0, Omega_k + omega_k / (Delta_k^2 + xi)),   omega_k <- 0,   anchor_k <- theta_k

    g is what stands in ``.grad`` when :meth:`step` is entered: gradients clipped before that enter clipped. The floor
    on the cumulative Omega is what the authors' code does; the paper leaves it out. See :class:`QuadraticPenalty` for
    the penalty.

    Args:
        model: The model.
        strength: c of the paper, at least 0; or one value per task, the last one repeated.
        damping: xi > 0, which bounds Omega where a parameter hardly moved; in units of squared parameters.
        exclude: Glob patterns of parameter names to leave out.
        penalty: ``"explicit"`` or ``"proximal"``.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a value has the wrong type.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> penalty, optimizer = SIPenalty(model, 1.0, damping=0.04), torch.optim.SGD(model.parameters(), lr=0.1)
        >>> model(torch.ones(1, 1)).square().sum().backward()  # g = 2, so delta = -0.2
        >>> with penalty.step(optimizer):
        ...     optimizer.step()
        >>> penalty.consolidate()
        >>> round(penalty.importance["weight"].item(), 4)  # 0.4 / (0.2^2 + 0.04)
        5.0
    """

    follows_steps = True

    def __init__(
        self,
        model: nn.Module | None,
        strength: Strength,
        *,
        damping: float = 0.1,
        exclude: Iterable[str] = (),
        penalty: PenaltyStep = "explicit",
    ) -> None:
        self.damping = check_number("damping", damping, "finite and greater than 0", lambda xi: 0 < xi < math.inf)
        self.path_integral: dict[str, Tensor] = {}
        """omega of the running task: parameter name -> tensor of the parameter's shape."""
        # Where a task starts away from the anchor (weights changed between tasks). Usually empty.
        self._start: dict[str, Tensor] = {}
        self._previous: dict[str, Tensor] = {}
        self._task: Reached | None = None  # what the step's task loss reached,
        self._gradients: list[Tensor | None] = []  # and its gradient, held from the backward pass to the update
        self._begins_known = False  # whether the parameters that the step begins with are kept
        self._scaled = False  # whether a GradScaler let a fused optimizer decide on the device to leave out the step
        super().__init__(model, strength, exclude=exclude, penalty=penalty)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, see :meth:`QuadraticPenalty.state_dict`.

        Returns:
            The shared state, omega, and the starting points of parameters that did not start at their anchor.
        """
        return super().state_dict() | {"path_integral": dict(self.path_integral), "_start": dict(self._start)}

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_task": None, "_gradients": []}

    @torch.no_grad()
    def begin_task(self, optimizer: Any = None) -> None:
        """Start the path integral at the present parameters, see :meth:`QuadraticPenalty.begin_task`.

        Args:
            optimizer: The optimizer, if known.
        """
        super().begin_task(optimizer)
        for omega in self.path_integral.values():
            omega.zero_()
        self._start = {}

    @torch.no_grad()
    def observe(self) -> None:
        """Keep the task gradient, before penalties are added and the optimizer steps."""
        task = self._find_targets().reached()
        self._begins_known = False
        if self.steps_seen == 0:  # not as the task begins: another plugin may reset weights just then
            self._start = {
                name: parameter.detach().clone()
                for name, parameter in self._bound.items()
                if not torch.equal(parameter, self.anchor[name])
            }
        self._running.saw_gradient = True
        if task is None:
            self._forget_kept()
            return
        gradients = task.gradients()
        kept = self._gradients if task is self._task else [None] * len(gradients)
        copies = [torch.empty_like(g) if copy is None else copy for g, copy in zip(gradients, kept, strict=True)]
        torch._foreach_copy_(copies, gradients)
        self._task, self._gradients = task, list(copies)

    @torch.no_grad()
    def _measure_step(self) -> None:
        # Adds the step's share to the path integral.
        if self._task is None or not self._running.saw_gradient:
            return
        path_integral, minus_delta = self._task.further
        gradients = [gradient for gradient in self._gradients if gradient is not None]
        # After an overflow the parameters were left alone, and the gradient is infinite.
        if self._scaled or self._may_be_left_out:
            for gradient in gradients:
                gradient.nan_to_num_(0.0, 0.0, 0.0)
        torch._foreach_sub_(minus_delta, self._task.parameters)
        torch._foreach_addcmul_(path_integral, gradients, minus_delta)
        self._keep_memory()

    def _note_beginning(self, optimizer: Optimizer, runs_closure: bool) -> None:
        super()._note_beginning(optimizer, runs_closure)
        # Here, not as the step is opened: sharpness-aware minimisation takes its ascent back in between. Once, since a
        # subclass's step that has another one within announces itself twice.
        if self._running.is_open and not self._begins_known:
            self._keep_parameters()

    @torch.no_grad()
    def _keep_parameters(self) -> None:
        self._begins_known = True
        if self._task is not None:
            torch._foreach_copy_(self._task.further[1], self._task.parameters)

    def _note_step(self, optimizer: Optimizer) -> None:
        super()._note_step(optimizer)
        self._scaled = "found_inf" in vars(optimizer)  # there during the step alone

    def add(self, optimizer: Any = None) -> None:
        """Let the penalty enter the step that comes next, see :meth:`QuadraticPenalty.add`.

        Args:
            optimizer: The optimizer, which the proximal step needs.
        """
        super().add(optimizer)
        self._may_be_left_out |= optimizer is None  # a GradScaler may leave out the step, and nobody says so
        if self._running.was_taken:  # which no optimizer will announce
            self._keep_parameters()

    def _forget_step(self) -> None:
        super()._forget_step()
        self._keep_memory()

    def _keep_memory(self) -> None:
        # Kept on CPUs, where freeing and allocating them in each step can cost more than all the rest: the C library
        # gives large memory back to the system and maps it anew.
        self._gradients = [g if g is not None and g.device.type == "cpu" else None for g in self._gradients]

    def _forget_kept(self) -> None:
        self._task, self._gradients = None, []

    def new_importance(
        self, parameters: Mapping[str, nn.Parameter], batches: Iterable[Any] | None
    ) -> dict[str, Tensor]:
        """Fold omega into Omega (eq. 5, with the floor).

        Args:
            parameters: The penalised parameters by name.
            batches: Not needed.

        Returns:
            The new Omega.

        Raises:
            RuntimeError: If no step was seen.
        """
        if self.steps_seen == 0:
            raise RuntimeError(
                f"{type(self).__name__} saw no step in task {self.experiences_seen}, so there is nothing to "
                "consolidate. If it was trained at all (there may have been no batch: drop_last, no epoch), enclose "
                "each optimizer.step() in `with penalty.step(optimizer):`, with the optimizer whose step() runs there"
            )
        added = self.added_importance(parameters)
        return {name: (self.importance[name] + more).clamp_(min=0) for name, more in added.items()}

    @torch.no_grad()
    def added_importance(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        """Compute ``omega / (Delta^2 + xi)`` of the running task.

        Args:
            parameters: Parameters by name, as they are now.

        Returns:
            What the task adds to Omega, of the parameters' shapes.
        """
        added = {}
        for name, parameter in parameters.items():
            delta = parameter - self._start.get(name, self.anchor[name])
            added[name] = self.path_integral[name] / (delta.square() + self.damping)
        return added

    def consolidate(self, batches: Iterable[Any] | None = None) -> None:
        """Measure importance, move the anchor and reset omega; no data are needed.

        Args:
            batches: Not needed.
        """
        super().consolidate(batches)
        for omega in self.path_integral.values():
            omega.zero_()
        self._start = {}
        self._forget_kept()

    def _bound_changed(self) -> None:
        for name, parameter in self._bound.items():
            self.path_integral[name] = fit(self.path_integral.get(name), torch.zeros_like(parameter), name)
            self._previous[name] = torch.empty_like(parameter)
            if name in self._start:
                self._start[name] = fit(self._start[name], parameter.detach().clone(), name)

    def _step_state(self) -> tuple[dict[str, Tensor], ...]:
        return (*super()._step_state(), self.path_integral, self._previous)

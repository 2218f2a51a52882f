"""The quadratic penalty that Synaptic Intelligence, Online EWC and MAS share."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NoReturn
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from avsi._arguments import check_choice, check_count
from avsi.consolidation.arguments import Strength, check_patterns, check_strengths
from avsi.consolidation.divergence import HUGE, DivergenceError, largest
from avsi.consolidation.parameters import fit, penalised_parameters, unwrap
from avsi.consolidation.reached import GRADIENT, TRAINABLE, Added, Reached
from avsi.consolidation.stability import Stability, StabilityWarning, inner_optimizer, learning_rates
from avsi.consolidation.step import RunningStep, Step, announce
from avsi.consolidation.targets import Targets

PenaltyStep = Literal["explicit", "proximal"]
"""How the penalty enters a step."""

_PENALTIES: WeakKeyDictionary[nn.Module, list[ref[QuadraticPenalty]]] = WeakKeyDictionary()
"""The penalties on each model, which take turns in a step: see ``step``. Models that share parameters have one list."""


class QuadraticPenalty:
    r"""Holds parameters near an anchor, each in proportion to its importance.

    The penalised loss is, without a factor 1/2 (Zenke et al. 2017, eq. 4)::

        L~ = L + strength * sum_k Omega_k (theta_k - anchor_k)^2

    Subclasses say how importance is measured, in :meth:`new_importance`. State is keyed by parameter name: parameters
    that appear later start with importance 0, parameters that grew keep their old block. Parameters that the task loss
    did not reach (``.grad is None``: the heads of other tasks, frozen parameters) are left alone.

    ``penalty="explicit"`` adds the gradient ``2 * strength * Omega * (theta - anchor)`` to ``.grad`` between the
    backward pass and the optimizer's step; no autograd graph is made for it. With SGD that step is unstable where
    ``lr * 2 * strength * max Omega > 2``, the maximum over parameters that the task reaches; a
    :class:`StabilityWarning` then names the largest stable strength, once, before the first step where it holds (with
    momentum the bound is a little higher; with Adam and its like, whose steps have the size of the learning rate
    whatever the gradient, there is none). Each parameter is looked at once in a task, when it is first reached, with
    the learning rate of that step.

    ``penalty="proximal"`` takes the implicit step instead, after the optimizer's::

        theta <- (theta + 2 lr strength Omega anchor) / (1 + 2 lr strength Omega)

    the exact minimiser of the penalty plus ``|theta' - theta|^2 / (2 lr)``, stable for any strength. With plain SGD it
    has the same fixed points as the explicit one. With momentum, Adam and their like it is a decoupled penalty, as
    AdamW's weight decay is: neither buffers nor step sizes see it, and ``lr`` is the parameter group's learning rate.

    A training step::

        optimizer.zero_grad()
        criterion(model(x), y).backward()  # any number of backward passes: gradients may be accumulated
        with penalty.step(optimizer):
            optimizer.step()

    and ``penalty.consolidate(batches)`` after each task. Parameters that are added or replaced between two tasks are
    found by themselves, and so are those that are frozen or unfrozen at any time; where parameters are added or
    replaced in the middle of a task, call :meth:`bind`.

    Args:
        model: The model; wrapped in ``DistributedDataParallel`` or compiled, names are those of the model within. None
            leaves it to :meth:`bind`.
        strength: Weight of the penalty (c of the SI paper, lambda elsewhere), at least 0; or a sequence with one value
            per task, whose last value is repeated.
        exclude: Glob patterns of parameter names (``fnmatch``) to leave out. Resolved anew for each task; each must
            match a parameter of the model.
        penalty: ``"explicit"`` or ``"proximal"``.

    Raises:
        ValueError: If a strength is negative, not finite or missing, or there is no such kind of penalty.
        TypeError: If the model is none, a strength is not a number or a sequence of numbers, or ``exclude`` is not a
            sequence of strings.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> class Uniform(QuadraticPenalty):
        ...     def new_importance(self, parameters, batches):
        ...         return {name: torch.ones_like(parameter) for name, parameter in parameters.items()}
        >>> model = nn.Linear(2, 1, bias=False)
        >>> penalty = Uniform(model, strength=0.5)
        >>> penalty.consolidate()  # a task ends
        >>> with torch.no_grad():
        ...     _ = model.weight.add_(2.0)
        >>> round(penalty.value().item(), 4)  # 0.5 * (2^2 + 2^2)
        4.0
    """

    follows_steps = False
    """Whether it has to see the gradient of the task loss in each step."""

    def __init__(
        self,
        model: nn.Module | None,
        strength: Strength,
        *,
        exclude: Iterable[str] = (),
        penalty: PenaltyStep = "explicit",
    ) -> None:
        if model is not None and not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {model!r:.80}")
        self.strengths = check_strengths(strength)
        self.exclude = check_patterns(exclude)
        self.proximal = check_choice("penalty", penalty, ("explicit", "proximal")) == "proximal"
        self.model = model if model is None else unwrap(model)
        self.experiences_seen = 0
        self.steps_seen = 0
        """Optimizer steps of the running task."""
        self.importance: dict[str, Tensor] = {}
        """Omega: parameter name -> tensor of the parameter's shape."""
        self.anchor: dict[str, Tensor] = {}
        """The parameters at the end of the last task: parameter name -> tensor of the parameter's shape."""
        self._bound: dict[str, nn.Parameter] = {}
        self._frozen: list[nn.Parameter] = []  # what did not require gradients then
        self._of_task: dict[str, nn.Parameter] = {}  # all that were bound in the running task, frozen since or not
        self._frozen_in_task: dict[str, int] = {}  # names of those that were frozen when a state was kept
        self._targets: Targets | None = None  # which of them a step concerns
        self._peers: list[ref[QuadraticPenalty]] = []  # all penalties on the model
        self._ready = self._in_task = False
        self._begun = False  # whether a step of the running task was begun
        self._running = RunningStep()
        self._announcing: set[ref[Optimizer]] = set()  # optimizers that were asked to say when they step
        self._may_be_left_out = False  # whether a step may: of one optimizer of several, or one that is not known
        self._unproven = False  # whether a state was loaded that no model has been seen to fit yet
        self._warned = False
        self._stability = Stability()  # of the running task
        if model is not None:
            self.bind()

    @property
    def strength(self) -> float:
        """The strength in force: that of the running task, or between tasks of the next one."""
        return self.strengths[min(self.experiences_seen, len(self.strengths) - 1)]

    @property
    def stable_strength(self) -> float:
        """The largest strength at which the explicit step is stable for the parameters that the task has reached."""
        return self._stability.stable_strength

    @property
    def unstable(self) -> bool:
        """Whether the strength in force is beyond it."""
        return self._stability.unstable

    def value(self, model: nn.Module | None = None) -> Tensor:
        """Compute ``strength * sum_k Omega_k (theta_k - anchor_k)^2``.

        Args:
            model: The model, by default the penalty's own; parameters without an importance count as 0.

        Returns:
            Scalar tensor, differentiable in the model's parameters.

        Raises:
            ValueError: If there is no model.
        """
        model = self.model if model is None else unwrap(model)
        if model is None:
            raise ValueError("the penalty has no model yet; pass one")
        terms = []
        for name, parameter in model.named_parameters():
            if name in self.importance:
                importance, anchor = self.importance[name].to(parameter), self.anchor[name].to(parameter)
                block = parameter[tuple(slice(size) for size in anchor.shape)]  # what grew since has importance 0
                terms.append((importance * (block - anchor).square()).sum())
        if not terms:
            return next((p.new_zeros(()) for p in model.parameters()), torch.zeros(()))
        return self.strength * torch.stack(terms).sum()

    def new_importance(
        self, parameters: Mapping[str, nn.Parameter], batches: Iterable[Any] | None
    ) -> dict[str, Tensor]:
        """Compute Omega with the task that just ended folded in. Called without gradients; changes no state.

        Args:
            parameters: The penalised parameters by name, all of which have an entry in ``self.importance``.
            batches: What :meth:`consolidate` was given.

        Returns:
            The new Omega of these parameters, or of some of them where the others keep theirs.

        Raises:
            NotImplementedError: Always; subclasses define it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how importance is measured")

    def new_anchor(self, name: str, importance: Tensor, parameter: Tensor) -> Tensor:
        """Compute where a parameter is held from now on: where it is.

        Args:
            name: The parameter's name. ``self.importance`` and ``self.anchor`` still hold its old state.
            importance: Its new Omega.
            parameter: The parameter.

        Returns:
            The anchor.
        """
        return parameter

    # A step

    def step(self, optimizer: Any = None) -> Step:
        """Enclose an optimizer's step: the penalty enters it, and SI sees what the optimizer really did.

        Several penalties on the same model, or on parts of it, may be open at once, in any order: each sees the
        gradient of the task loss alone.
        Gradients may be accumulated or clipped before; what clips them within, between this and the optimizer's step,
        clips the penalty's gradient with them, but for optimizers with another one within, where the penalty enters as
        that one steps. Gradients have to be unscaled by then: with a ``torch.amp.GradScaler``, ::

            scaler.unscale_(optimizer)
            with penalty.step(optimizer):
                scaler.step(optimizer)
            scaler.update()

        A step that the scaler skips counts for nothing, and where the optimizer does not step because gradients are
        still being accumulated (as Accelerate's), the penalty is taken out of them again. Where several optimizers
        share a model, enclose the step of each: the penalty enters what the given one steps, and nothing else. Where an
        optimizer runs the backward pass within its step (a closure, as Lightning passes), run the closure first and
        step without it; a gradient that is computed anew within the step is a RuntimeError. Of sharpness-aware
        minimisation enclose the second phase alone, ``with penalty.step(sam): sam.second_step()``, and give that
        optimizer, not the one within: the penalty is then that of the weights from which the step is taken.

        Args:
            optimizer: The optimizer. Without it the penalty enters all gradients, the stability limit is not known, and
                the proximal step not possible.

        Returns:
            A context manager.
        """
        return Step(self, optimizer)

    def begin_task(self, optimizer: Any = None) -> None:
        """Start a task: bind, and count its steps from 0. The first step after a consolidation does it.

        Args:
            optimizer: The optimizer, if known.
        """
        self.bind()
        self.steps_seen, self._in_task, self._begun = 0, True, False
        self._of_task = dict(self._bound)
        self._forget_stability()
        self.check_optimizer(optimizer)

    def check_optimizer(self, optimizer: Any) -> None:
        """Refuse an optimizer that the penalty cannot work with.

        Args:
            optimizer: The optimizer, or None where it is not known.

        Raises:
            TypeError: If it is L-BFGS, or no optimizer.
            ValueError: If it maximises.
        """
        if optimizer is not None and not hasattr(optimizer, "param_groups"):
            raise TypeError(
                f"optimizer must be a torch.optim.Optimizer or have its param_groups, got {optimizer!r:.80}; where "
                "there is none, write penalty.step()"
            )
        if isinstance(inner_optimizer(optimizer), LBFGS):
            raise TypeError(
                f"{type(self).__name__} cannot work with torch.optim.LBFGS, which evaluates the loss several times "
                "within a step and would not see the penalty; use a first-order optimizer such as SGD or Adam"
            )
        if optimizer is not None and any(group.get("maximize", False) for group in optimizer.param_groups):
            raise ValueError(
                f"{type(self).__name__} cannot work with an optimizer that has maximize=True, which would maximise the "
                "penalty too; minimise the negative of the objective"
            )

    def observe(self) -> None:
        """Look at the gradient of the task loss, after the backward pass and before anything is added to it."""

    def add(self, optimizer: Any = None) -> None:
        """Let the penalty enter the step that comes next.

        Args:
            optimizer: The optimizer, which the proximal step needs.

        Raises:
            ValueError: If the penalty is proximal and there is no optimizer or learning rate, or the optimizer holds
                nothing of the model.
        """
        self._begun = self._running.is_open = True
        self._running.was_taken = optimizer is None or not self._listen(optimizer)
        # Before the first consolidation Omega is 0. Skipping strength 0 keeps such a run bit-identical to one without.
        if self.strength != 0 and self.experiences_seen > 0:
            if self.proximal and optimizer is None:
                raise ValueError('penalty="proximal" needs the learning rate: write penalty.step(optimizer)')
            self._enter(optimizer)
        self._running.gradient = self._first_gradient()

    def _enter(self, optimizer: Any) -> None:
        targets = self._find_targets()
        reached = targets.reached() if optimizer is None else targets.stepped(optimizer, self._check_rates)
        if reached is None:
            return
        if self.proximal:
            lr = learning_rates(optimizer)
            rates = [2 * self.strength * lr[id(parameter)] for parameter in reached.parameters]
            self._running.pulls[id(optimizer)] = reached, rates
            return
        inner = inner_optimizer(optimizer)
        if inner is not optimizer and isinstance(inner, Optimizer):
            self._running.due = reached  # the wrapper may move weights before the inner one steps
        else:
            self._add_to_gradients(reached)

    def _add_to_gradients(self, reached: Reached) -> None:
        others = self._intact()
        self._running.added.append(reached.add_penalty(2 * self.strength))
        for other in others:
            other.renew()

    def finish(self) -> None:
        """End a step: after the optimizer's. A step that the optimizer did not take counts for nothing.

        The penalty is then taken out of the gradients, which may be on their way to a later step. A
        :class:`DivergenceError` says where an unstable step blew weights up.
        """
        if not self._running.was_taken:
            while self._running.added:
                added, others = self._running.added.pop(), self._intact()
                added.take_back()
                for other in others:
                    other.renew()
            self._forget_step()
            return
        for peer in self._peers:  # proximal steps of all penalties first: they are part of the step that SI looks at
            if (penalty := peer()) is not None and penalty._running.was_taken:
                penalty._running.pull()
        self._measure_step()
        self.steps_seen += 1
        self._running = RunningStep()
        if self._stability.is_blown_up(self._bound.values()):
            self._stop(self.steps_seen - 1)

    def _measure_step(self) -> None:
        """Let subclasses look at what the optimizer did."""

    def _intact(self) -> list[Added]:
        # What all penalties on the model added to gradients that only they have changed since.
        if len(self._peers) < 2:
            return []
        penalties = [penalty for peer in self._peers if (penalty := peer()) is not None]
        return [added for penalty in penalties for added in penalty._running.added if added.is_intact()]

    def _forget_step(self) -> None:
        """Forget a step that was begun and not taken."""
        self._running = RunningStep()

    def _listen(self, optimizer: Any) -> bool:
        # Asks the optimizer to say when it steps: a GradScaler may keep it from doing so. False if it cannot say.
        inner = inner_optimizer(optimizer)
        if not isinstance(inner, Optimizer):
            return False
        if ref(inner) not in self._announcing:
            self._announcing.add(ref(inner))
            held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
            self._may_be_left_out |= any(id(parameter) not in held for parameter in self._bound.values())
            announce(inner, self)
        return True

    def _note_beginning(self, optimizer: Optimizer, runs_closure: bool) -> None:
        # Called by the optimizer, before its step. A fused one is told by a GradScaler to unscale gradients itself.
        if not self._running.is_open:
            return
        if getattr(optimizer, "grad_scale", None) is not None:
            raise RuntimeError(
                f"the gradients that {type(self).__name__} entered are still scaled by a GradScaler, whose factor the "
                "penalty lacks: call scaler.unscale_(optimizer) before `with penalty.step(optimizer):`"
            )
        gradient = self._check_gradient()
        if self._running.due is not None:
            self._add_to_gradients(self._running.due)
            self._running.due = None
        # A closure may set gradients to zero in place. Without one a change says nothing: optimizers make some, too.
        self._running.version = gradient._version if runs_closure and gradient is not None else None

    def _note_step(self, optimizer: Optimizer) -> None:
        # Called by the optimizer, at the end of its step; twice where that is a subclass's.
        if self._running.is_open:
            self._check_gradient()
        found_inf = getattr(optimizer, "found_inf", None)  # a GradScaler's, for a fused one, which leaves the step out
        # On other devices asking would wait for them: once in each step, which the proximal one cannot do without.
        if found_inf is None or not (self.proximal or found_inf.device.type == "cpu") or not bool(found_inf):
            self._running.was_taken = True

    def _check_gradient(self) -> Tensor | None:
        gradient = self._first_gradient()
        if gradient is not None and not self._running.entered(gradient):
            raise RuntimeError(
                f"the gradient was computed anew within the optimizer's step, so {type(self).__name__} did not enter "
                "it: call the closure before `with penalty.step(optimizer):`, and step without it; of sharpness-aware "
                "minimisation enclose the second phase alone; what changes gradients in there must do it in place"
            )
        return gradient

    def _first_gradient(self) -> Tensor | None:
        return next((gradient for gradient in map(GRADIENT, self._bound.values()) if gradient is not None), None)

    # Between tasks

    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def consolidate(self, batches: Iterable[Any] | None = None) -> None:
        """Measure importance and move the anchor to the parameters reached: at the end of a task.

        That is done for all parameters that the task trained, those that were frozen before its end included. Where
        weights or an importance are not finite, there is a :class:`DivergenceError`, data that cannot be measured are a
        ValueError, and the old state is kept.

        Args:
            batches: The task's data, as ``avsi.fisher_diagonal`` takes them: (x, y) or (x, y, task_labels). They may
                differ between the processes of ``torch.distributed``; the mean is over all of them.
        """
        if self._begun and not self.steps_seen:
            warnings.warn(
                f"no step of task {self.experiences_seen} was taken by the optimizer that {type(self).__name__} was "
                "given: pass the one whose step() runs, which may be within another (or a GradScaler skipped them all)",
                stacklevel=2,
            )
        if self._frozen_in_task:
            self.bind()
        present = {} if self.model is None else dict(self.model.named_parameters())
        # What the task has moved, and what was frozen since.
        frozen = [
            parameter
            for name, parameter in self._of_task.items()
            if present.get(name) is parameter
            and not parameter.requires_grad
            and not torch.equal(parameter, self.anchor[name])
        ]
        try:
            for parameter in frozen:
                parameter.requires_grad_(True)
            self._consolidate(batches)
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)

    def _consolidate(self, batches: Iterable[Any] | None) -> None:
        self.bind()
        self.check()
        try:
            measured = self.new_importance(self._bound, batches)
        except ValueError as error:  # outputs overflow well before the weights do
            if self._bound and not bool(largest(self._bound.values()) < math.sqrt(HUGE)):
                self._stop(self.steps_seen - 1, str(error))
            raise
        if measured and not torch.isfinite(largest(measured.values())):
            broken = next(name for name, importance in measured.items() if not torch.isfinite(importance).all())
            self._stop(self.steps_seen - 1, f"the importance of {broken} is not finite")
        for name, parameter in self._bound.items():
            self.anchor[name].copy_(self.new_anchor(name, measured.get(name, self.importance[name]), parameter))
        self.importance.update(measured)
        self.experiences_seen += 1
        self.steps_seen, self._in_task, self._begun = 0, False, False
        self._of_task = {}
        self._forget_step()
        self._forget_stability()

    @torch.no_grad()
    def check(self) -> None:
        """Look for divergence in the running task, asking the device, and raise a :class:`DivergenceError`."""
        if (step := self._stability.first_fault()) is not None:
            self._stop(step)
        if self._bound and not bool(largest(self._bound.values()) <= HUGE):
            self._stop(max(0, self.steps_seen - 1))

    def why(self) -> str:
        """Say why training with this penalty may have diverged, and what mends it.

        Returns:
            The likely cause.
        """
        if self.unstable:
            return (
                f"strength {self.strength:g} of {type(self).__name__} is beyond {self.stable_strength:.3g}, the "
                'largest at which the explicit step of the penalty is stable; lower it, or choose penalty="proximal"'
            )
        return "the learning rate is too large for this loss, or the inputs are too large; lower or scale them"

    def _stop(self, step: int, found: str = "") -> NoReturn:
        if not found:
            peak = float(largest(self._bound.values()))
            found = f"the largest weight is {peak:.3g}" if math.isfinite(peak) else "weights are not finite"
        stable = self.stable_strength if self.unstable else None
        raise DivergenceError(found, self.why(), task=self.experiences_seen, step=step, stable_strength=stable)

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return the state: tensors and numbers only, readable with ``torch.load(weights_only=True)``.

        Returns:
            The number of tasks seen and of steps in the running one, importances and anchors, and the names of
            parameters that the running task trained and then froze, if any. The tensors are the live ones, as in
            ``nn.Module.state_dict``.
        """
        frozen = {name: 1 for name, parameter in self._of_task.items() if not parameter.requires_grad}
        frozen |= self._frozen_in_task
        return {
            "experiences_seen": self.experiences_seen,
            "steps_seen": self.steps_seen,
            "importance": dict(self.importance),
            "anchor": dict(self.anchor),
        } | ({"frozen_in_task": frozen} if frozen else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`; the tensors are copied.

        Args:
            state: The state of a penalty of the same class.

        Raises:
            ValueError: If it is not such a state, or holds what no training can leave; nothing is changed then.
        """
        expected = self.state_dict().keys() - {"frozen_in_task"}
        keys = state.keys() - {"frozen_in_task"} if isinstance(state, Mapping) else {repr(state)[:80]}
        if keys != expected:
            raise ValueError(
                f"{type(self).__name__} cannot load a state with keys {sorted(keys)}; expected {sorted(expected)}"
            )
        if state["importance"].keys() != state["anchor"].keys():
            raise ValueError("the state's importances and anchors belong to different parameters; it is not whole")
        loaded = {key: _checked(key, state[key]) for key in expected}
        for name, importance in loaded["importance"].items():
            if bool((importance < 0).any()):
                raise ValueError(f"the state's importance of {name} is negative, which no training can leave")
        goes_back = self._in_task and loaded["experiences_seen"] == self.experiences_seen  # within the running task
        for key, value in loaded.items():
            setattr(self, key, value)
        self._bound, self._ready = {}, False  # the next use binds the new tensors
        self._of_task = self._of_task if goes_back else {}
        self._in_task = self.steps_seen > 0
        self._frozen_in_task = dict(state.get("frozen_in_task", {}))
        self._unproven = bool(self.importance)
        self._forget_step()
        self._forget_stability()

    def __getstate__(self) -> dict[str, Any]:
        # Without what is looked up anew in the next step: its many views would be pickled with their whole storage.
        return self.__dict__ | {
            "_targets": None,
            "_peers": [],
            "_ready": False,
            "_running": RunningStep(),
            "_announcing": set(),
        }

    # Which parameters

    def bind(self, model: nn.Module | None = None) -> None:
        """Make the state match the model's penalised parameters in shape, dtype and device.

        Args:
            model: The model, where it is another object than before.

        Raises:
            ValueError: If there is no model, or a loaded state is that of another one.
        """
        if model is not None:
            self.model = unwrap(model)
        if self.model is None:
            raise ValueError(f"{type(self).__name__} has no model yet; pass one")
        self._peers = _find_peers(self.model)
        if not any(peer() is self for peer in self._peers):
            self._peers[:] = [peer for peer in self._peers if peer() is not None] + [ref(self)]
        self._ready = True
        if self._frozen_in_task:
            self._of_task |= {name: p for name, p in self.model.named_parameters() if name in self._frozen_in_task}
            self._frozen_in_task = {}
        self._frozen = [parameter for parameter in self.model.parameters() if not parameter.requires_grad]
        parameters = penalised_parameters(self.model, self.exclude)
        if parameters.keys() == self._bound.keys() and all(self._fits(name, p) for name, p in parameters.items()):
            return
        if self._unproven and not parameters.keys() & self.importance.keys():
            raise ValueError(
                f"the loaded importances are for {', '.join(self.importance)}, and the model has none of these "
                f"parameters; it has {', '.join(parameters)}"
            )
        self._unproven = False
        self._look_for_lost(self.model)
        self._bound = parameters
        self._of_task.update(parameters)
        for name, parameter in parameters.items():
            self.importance[name] = fit(self.importance.get(name), torch.zeros_like(parameter), name)
            self.anchor[name] = fit(self.anchor.get(name), parameter.detach().clone(), name)
        self._bound_changed()
        self._forget_targets()

    def _look_for_lost(self, model: nn.Module) -> None:
        # State is keyed by name: what has got another one is no longer held.
        present = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        lost = [name for name, omega in self.importance.items() if name not in present and bool(omega.any())]
        if lost:
            warnings.warn(
                f"{type(self).__name__} has importances of {', '.join(lost[:3])}{', ...' * (len(lost) > 3)}, which "
                "the model no longer has; they hold nothing. Where a layer was compiled, wrapped, pruned or "
                "parametrised, its parameters have other names now: do that before the first task",
                stacklevel=2,
            )

    def _fits(self, name: str, parameter: nn.Parameter) -> bool:
        anchor = self.anchor[name]
        same = parameter.shape == anchor.shape and parameter.dtype == anchor.dtype
        return same and parameter is self._bound[name] and parameter.device == anchor.device

    def _bound_changed(self) -> None:
        """Let subclasses fit state of their own to the parameters in ``self._bound``."""

    def _get_ready(self, optimizer: Any) -> None:
        if not self._in_task:
            self.begin_task(optimizer)
        elif not self._ready:
            self.bind()

    def _find_targets(self) -> Targets:
        if any(map(TRAINABLE, self._frozen)):  # no longer
            self.bind()
        if self._targets is None:
            self._targets = Targets(self._bound, self._step_state())
        return self._targets

    def _step_state(self) -> tuple[dict[str, Tensor], ...]:
        # The state that a training step works on, in the order in which Reached takes it.
        return self.importance, self.anchor

    def _forget_targets(self) -> None:
        """Look the state up again in the next step, because some of its tensors are others now."""
        self._targets = None

    def _forget_stability(self) -> None:
        self._stability = Stability()
        self._forget_targets()  # so that the next step looks

    def _check_rates(self, optimizer: Any, rates: Mapping[str, float]) -> None:
        # The learning rates, by name, at which an optimizer steps parameters that the task reached.
        name = type(self).__name__
        if not rates and self.model is not None:
            held = learning_rates(optimizer)
            if not any(id(parameter) in held for parameter in self.model.parameters()):
                raise ValueError(
                    f"the optimizer holds no parameter of the model, so {name} cannot enter its step; build it on the "
                    "model's parameters as they are now"
                )
        if self.proximal:
            if any(map(math.isnan, rates.values())):
                raise ValueError(
                    'penalty="proximal" needs the learning rate, and the optimizer has none (lr=None); take "explicit"'
                )
            return
        self._stability.look(optimizer, self._bound, rates, self.importance)
        exceeded = self._stability.is_exceeded(self.strength, self.steps_seen, self.anchor.values())
        if exceeded and not self._warned:
            self._warned = True
            warnings.warn(
                f"strength {self.strength:g} of {name} is beyond {self.stable_strength:.3g}, the "
                f"largest at which the explicit step of its penalty is stable in task {self.experiences_seen} (from "
                '0): training may diverge. Lower the strength or the learning rate, or choose penalty="proximal"',
                StabilityWarning,
                stacklevel=2,
            )


def _find_peers(model: nn.Module) -> list[ref[QuadraticPenalty]]:
    # The list of the penalties on a model; those of models that share parameters with it become one.
    peers = _PENALTIES.setdefault(model, [])
    own = {id(parameter) for parameter in model.parameters()}
    related = [other for other in list(_PENALTIES) if any(id(parameter) in own for parameter in other.parameters())]
    lists = {id(_PENALTIES[other]): _PENALTIES[other] for other in related}
    if len(lists) < 2:
        return peers
    together = [peer for found in lists.values() for peer in found]
    for other, found in list(_PENALTIES.items()):
        if id(found) in lists:
            _PENALTIES[other] = together
    for penalty in (peer() for peer in together):
        if penalty is not None:
            penalty._peers = together
    return together


def _checked(key: str, value: Any) -> Any:
    # A count or a mapping of tensors of a state, copied.
    if isinstance(value, Mapping):
        for name, tensor in value.items():
            if not isinstance(tensor, Tensor) or not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"the state's {key} of {name} is not a tensor of finite numbers")
        return {name: tensor.clone() for name, tensor in value.items()}
    return check_count(f"the state's {key}", value, least=0)

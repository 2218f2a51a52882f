"""The quadratic penalty that Synaptic Intelligence, Online EWC and MAS share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from operator import attrgetter
from typing import Any

import torch
from avalanche.benchmarks.scenarios import SequenceCLStream
from avalanche.training.plugins import SupervisedPlugin
from avalanche.training.utils import _at_task_boundary
from torch import Tensor, nn

from avsi.consolidation.blocks import Blocks

Strength = float | Sequence[float]
_GRADIENT = attrgetter("grad")  # half the time of ``parameter.grad`` in a loop, which shows with a hundred heads


class Reached:
    """The penalised parameters that a backward pass reached, beside a plugin's state for them, in the same order.

    Args:
        parameters: The parameters, at least one.
        importance: Omega.
        anchor: Anchors.
        further: Further lists of tensors.
    """

    def __init__(
        self, parameters: list[Tensor], importance: list[Tensor], anchor: list[Tensor], *further: list[Tensor]
    ) -> None:
        self.parameters = parameters
        self.further = further
        self._importance, self._anchor = importance, anchor
        self._blocks: Blocks | None = None
        if all(parameter.device.type == "cpu" for parameter in parameters):
            self._blocks = Blocks(parameters)
            self._importance, self._anchor = self._blocks.cut(importance), self._blocks.cut(anchor)
            self._displacement = self._blocks.scratch(parameters)

    def gradients(self) -> list[Tensor]:
        """Collect what stands in ``.grad`` now.

        Returns:
            The gradients.
        """
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def add_penalty(self, scale: float) -> None:
        """Add ``scale * Omega * (theta - anchor)`` to the gradients."""
        parameters, gradients = self.parameters, self.gradients()
        if self._blocks is None:  # GPUs are bound by the number of operations, and allocate at no cost
            displacements = torch._foreach_sub(parameters, self._anchor)
            torch._foreach_addcmul_(gradients, self._importance, displacements, value=scale)
            return
        # CPUs are bound by memory. Cut anew: gradients are new tensors in each step, parameters may have new storage.
        parameters, gradients = self._blocks.cut(parameters), self._blocks.cut(gradients)
        for theta, gradient, importance, anchor, displacement in zip(
            parameters, gradients, self._importance, self._anchor, self._displacement, strict=True
        ):
            torch.sub(theta, anchor, out=displacement)
            gradient.addcmul_(importance, displacement, value=scale)


class ConsolidationPlugin(SupervisedPlugin):
    r"""Holds parameters near an anchor, each in proportion to its importance.

    The penalised loss is, without a factor 1/2 (Zenke et al. 2017, eq. 4)::

        L~ = L + strength * sum_k Omega_k (theta_k - anchor_k)^2

    Its gradient ``2 * strength * Omega * (theta - anchor)`` is added to ``.grad`` in ``before_update``: after the
    backward pass, so that every plugin can see the gradient of the task loss alone, and before the optimizer's step.
    ``strategy.loss`` stays the task loss. Parameters that the task loss did not reach (``.grad is None``: the heads of
    other tasks, frozen parameters) are left alone. One backward pass and one step per iteration are assumed, as in
    Avalanche's templates; a strategy that accumulates gradients over iterations would add the penalty in each.

    An online stream is consolidated at its task boundaries where it shows them, else after each of its experiences.

    Subclasses say how importance is measured, in :meth:`new_importance`. State is keyed by parameter name:
    parameters that appear later start with importance 0, parameters that grew keep their old block.

    Args:
        strength: Weight of the penalty (c of the SI paper, lambda elsewhere), at least 0; or a sequence with one value
            per experience, whose last value is repeated.
        exclude: Glob patterns of parameter names (``fnmatch``) to leave out. Resolved anew at each experience; each
            must match a parameter of the model.

    Raises:
        ValueError: If a strength is negative, not finite or missing.
        TypeError: If a strength is not a number or a sequence of numbers, or ``exclude`` is not a sequence of strings.
    """

    def __init__(self, strength: Strength, *, exclude: Iterable[str] = ()) -> None:
        super().__init__()
        self.strengths = check_strengths(strength)
        self.exclude = check_patterns(exclude)
        self.experiences_seen = 0
        self.importance: dict[str, Tensor] = {}
        """Omega: parameter name -> tensor of the parameter's shape."""
        self.anchor: dict[str, Tensor] = {}
        """The parameters at the end of the last experience: parameter name -> tensor of the parameter's shape."""
        self._bound: dict[str, nn.Parameter] = {}
        # What the last backward pass reached: which of the bound parameters, and these with the state for them.
        self._pattern: list[bool] = []
        self._reached: Reached | None = None
        self._unproven = False  # whether a state was loaded that no model has been seen to fit yet

    @property
    def strength(self) -> float:
        """The strength in force: that of the running experience, or between experiences of the next one."""
        return self.strengths[min(self.experiences_seen, len(self.strengths) - 1)]

    def penalty(self, model: nn.Module) -> Tensor:
        """Compute ``strength * sum_k Omega_k (theta_k - anchor_k)^2`` for a model.

        Args:
            model: The model; parameters without an importance count as 0.

        Returns:
            Scalar tensor, differentiable in the model's parameters.
        """
        terms = []
        for name, parameter in model.named_parameters():
            if name in self.importance:
                importance, anchor = self.importance[name].to(parameter), self.anchor[name].to(parameter)
                block = parameter[tuple(slice(size) for size in anchor.shape)]  # what grew since has importance 0
                terms.append((importance * (block - anchor).square()).sum())
        if not terms:
            return next((p.new_zeros(()) for p in model.parameters()), torch.zeros(()))
        return self.strength * torch.stack(terms).sum()

    def new_importance(self, strategy: Any, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        """Compute Omega with the experience that just ended folded in. Called without gradients; changes no state.

        Args:
            strategy: The Avalanche strategy, at the end of the experience.
            parameters: The penalised parameters by name, all of which have an entry in ``self.importance``.

        Returns:
            The new Omega of these parameters, or of some of them where the others keep theirs.

        Raises:
            NotImplementedError: Always; subclasses define it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how importance is measured")

    def state_dict(self) -> dict[str, Any]:
        """Return the plugin's state: tensors and numbers only, readable with ``torch.load(weights_only=True)``.

        Returns:
            The number of experiences seen, importances and anchors. The tensors are the live ones, as in
            ``nn.Module.state_dict``.
        """
        return {
            "experiences_seen": self.experiences_seen,
            "importance": dict(self.importance),
            "anchor": dict(self.anchor),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`; the tensors are copied.

        Args:
            state: The state of a plugin of the same class.

        Raises:
            ValueError: If it is not such a state; nothing is changed then.
        """
        expected = self.state_dict().keys()
        keys = state.keys() if isinstance(state, Mapping) else {repr(state)[:80]}
        if keys != expected:
            raise ValueError(
                f"{type(self).__name__} cannot load a state with keys {sorted(keys)}; expected {sorted(expected)}"
            )
        if state["importance"].keys() != state["anchor"].keys():
            raise ValueError("the state's importances and anchors belong to different parameters; it is not whole")
        for key, value in state.items():
            setattr(self, key, {n: t.clone() for n, t in value.items()} if isinstance(value, Mapping) else value)
        self._bound = {}  # the next hook binds the new tensors
        self._unproven = bool(self.importance)

    def __getstate__(self) -> dict[str, Any]:
        # Without what is looked up anew in the next step: its many views would be pickled with their whole storage.
        return self.__dict__ | {"_pattern": [], "_reached": None}

    # Hooks, in the order Avalanche calls them.

    def after_train_dataset_adaptation(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse what could not be trained or penalised, before any work is done.

        Raises:
            ValueError: If the experience has no samples, or there are more strengths than experiences.
            TypeError: If the optimizer is L-BFGS.
        """
        if len(strategy.adapted_dataset) == 0:
            raise ValueError(
                f"experience {self.experiences_seen} has no training samples; remove it from the stream or give it data"
            )
        if isinstance(strategy.optimizer, torch.optim.LBFGS):
            raise TypeError(
                f"{type(self).__name__} cannot work with torch.optim.LBFGS, which evaluates the loss several times "
                "within a step and would not see the penalty; use a first-order optimizer such as SGD or Adam"
            )
        stream = getattr(strategy.experience, "_origin_stream", None)
        # The length of the whole stream, also where the user trains on a slice of it.
        if isinstance(stream, SequenceCLStream) and len(self.strengths) > stream._full_length():
            raise ValueError(
                f"strength has {len(self.strengths)} values, but the stream has {stream._full_length()} experiences; "
                "give at most one value per experience (the last one is repeated)"
            )

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Bind the state to the model's parameters as they are now."""
        self._bound = {}
        self._bind(strategy.model)

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Bind again where an evaluation between epochs has replaced parameters (a growing classifier)."""
        self._bind(strategy.model)

    @torch.no_grad()
    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Add the penalty's gradient to the gradients of the parameters that the task loss reached."""
        # Before the first consolidation Omega is 0. Skipping strength 0 keeps such a run bit-identical to one without.
        if self.strength == 0 or self.experiences_seen == 0:
            return
        reached = self._find_reached()
        if reached is not None:
            reached.add_penalty(2 * self.strength)

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Measure importance and move the anchor to the parameters reached.

        Raises:
            FloatingPointError: If an importance is not finite; the old ones and the anchor are kept then.
        """
        if not _at_task_boundary(strategy.experience, before=False):
            return
        self._bind(strategy.model)
        measured = self.new_importance(strategy, self._bound)
        for name, importance in measured.items():
            if not torch.isfinite(importance).all():
                raise FloatingPointError(
                    f"the importance of {name} is not finite after experience {self.experiences_seen}: training "
                    "diverged; lower the learning rate or the strength"
                )
        self.importance.update(measured)
        for name, parameter in self._bound.items():
            self.anchor[name].copy_(parameter)
        self.experiences_seen += 1
        self._forget_reached()

    def _find_reached(self) -> Reached | None:
        """Find the penalised parameters that the last backward pass reached: as a rule, the same as in the step before.

        Returns:
            They with their state, None if it reached none.
        """
        pattern = [gradient is None for gradient in map(_GRADIENT, self._bound.values())]
        if pattern != self._pattern:
            names = [name for name, parameter in self._bound.items() if parameter.grad is not None]
            parameters: list[Tensor] = [self._bound[name] for name in names]
            state = [[tensors[name] for name in names] for tensors in self._step_state()]
            self._pattern, self._reached = pattern, Reached(parameters, *state) if names else None
        return self._reached

    def _step_state(self) -> tuple[dict[str, Tensor], ...]:
        # The state that a training step works on, in the order in which Reached takes it.
        return self.importance, self.anchor

    def _forget_reached(self) -> None:
        """Look the state up again in the next step, because some of its tensors are others now."""
        self._pattern, self._reached = [], None

    def _bind(self, model: nn.Module) -> None:
        """Make ``importance`` and ``anchor`` match the model's penalised parameters in shape, dtype and device.

        Raises:
            ValueError: If a loaded state is that of another model.
        """
        parameters = penalised_parameters(model, self.exclude)
        if parameters.keys() == self._bound.keys() and all(p is self._bound[n] for n, p in parameters.items()):
            return
        if self._unproven and not parameters.keys() & self.importance.keys():
            raise ValueError(
                f"the loaded importances are for {', '.join(self.importance)}, and the model has none of these "
                f"parameters; it has {', '.join(parameters)}"
            )
        self._unproven = False
        self._bound = parameters
        for name, parameter in parameters.items():
            self.importance[name] = fit(self.importance.get(name), torch.zeros_like(parameter), name)
            self.anchor[name] = fit(self.anchor.get(name), parameter.detach().clone(), name)
        self._bound_changed()
        self._forget_reached()

    def _bound_changed(self) -> None:
        """Let subclasses fit state of their own to the parameters in ``self._bound``."""


def penalised_parameters(model: nn.Module, exclude: Sequence[str]) -> dict[str, nn.Parameter]:
    """Collect a model's trainable parameters, each once, without the excluded ones.

    A layer keeps parameters of its own out of consolidation, for example those of fast plasticity, by listing their
    names in an attribute ``fast_parameters``.

    Args:
        model: The model.
        exclude: Glob patterns of parameter names.

    Returns:
        Parameter by name. A shared parameter appears under its first name, and is excluded under any of its names.

    Raises:
        ValueError: If a pattern matches no parameter, or a layer makes sparse gradients.
        TypeError: If a parameter is neither float32 nor float64.
    """
    named = dict(model.named_parameters())
    every_name = dict(model.named_parameters(remove_duplicate=False))  # all names of shared parameters too
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in every_name):
            known = ", ".join(every_name)
            raise ValueError(f"exclude pattern {pattern!r} matches no parameter; the model has: {known}")
    for name, module in model.named_modules():
        if getattr(module, "sparse", False) is True:
            raise ValueError(f"layer {name!r} ({type(module).__name__}) makes sparse gradients; use sparse=False")
    free = {id(p) for name, p in every_name.items() if any(fnmatchcase(name, pattern) for pattern in exclude)}
    free |= {id(getattr(layer, name)) for layer in model.modules() for name in getattr(layer, "fast_parameters", ())}
    chosen = {name: p for name, p in named.items() if p.requires_grad and id(p) not in free}
    for name, parameter in chosen.items():
        if parameter.dtype not in {torch.float32, torch.float64}:
            raise TypeError(
                f"parameter {name} is {parameter.dtype}; importances need float32 or float64 parameters "
                "(torch.autocast keeps them so)"
            )
    return chosen


def fit(old: Tensor | None, new: Tensor, name: str) -> Tensor:
    """Write an old tensor into the leading block of a new one of at least its size.

    Args:
        old: The tensor to keep, or None.
        new: The tensor that gives shape, dtype, device and the values outside the old block; changed in place.
        name: The parameter's name, for the error.

    Returns:
        ``new``.

    Raises:
        ValueError: If the old tensor does not fit into the new one.
    """
    if old is None:
        return new
    if old.dim() != new.dim() or any(o > n for o, n in zip(old.shape, new.shape, strict=True)):
        raise ValueError(
            f"parameter {name} has shape {tuple(new.shape)}, but importances of shape {tuple(old.shape)} are known "
            "for it; parameters may grow, not shrink (start with a new plugin for a new model)"
        )
    new[tuple(slice(size) for size in old.shape)] = old.to(new)
    return new


def check_strengths(strength: Strength) -> tuple[float, ...]:
    """Validate a strength or a sequence of strengths.

    Args:
        strength: One number or one number per experience.

    Returns:
        The strengths as a non-empty tuple of floats.

    Raises:
        TypeError: If it is neither a number nor a sequence of numbers.
        ValueError: If the sequence is empty or a value is negative or not finite.
    """
    values = list(strength) if isinstance(strength, Sequence) and not isinstance(strength, str) else [strength]
    if not values:
        raise ValueError("strength is an empty sequence; give one number, or one per experience")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"strength must be a number or a sequence of numbers, got {value!r}")
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"strength must be finite and at least 0, got {value!r}")
    return tuple(float(value) for value in values)


def check_patterns(exclude: Iterable[str]) -> tuple[str, ...]:
    """Validate glob patterns.

    Args:
        exclude: The patterns.

    Returns:
        The patterns as a tuple.

    Raises:
        TypeError: If they are a single string or not strings.
    """
    if isinstance(exclude, str):
        raise TypeError(f"exclude must be a sequence of patterns, got the string {exclude!r}; write [{exclude!r}]")
    patterns = tuple(exclude)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"exclude must hold glob patterns of parameter names, got {pattern!r}")
    return patterns

"""Differentiable Hebbian plasticity (DHP): a softmax layer with fast weights, and how it is shown labels.

Index letters, in the order of dimensions: n samples, o classes (the paper's d), i features (the paper's m).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from avsi._arguments import check_choice, check_count, check_flag, check_number
from avsi.importance.closed_forms import CLOSED_FORMS, ClosedForm, Grads, Phi, add_linear

EtaConstraint = Literal["project", "none", "sigmoid"]
"""How the rate of Hebbian traces is kept in its range; see :class:`DHPLinear`."""


class LabelSource:
    """Something that shows labels to layers.

    While it is active, it answers for the labels of the layers it was assigned to: those that it does not show labels
    run without, and leave their traces alone. Copies of a layer keep the same source, so that a copy made in training
    (by a plugin that keeps an old model) may be run for as long as the original.

    Attributes:
        active: Whether it is at work.
    """

    def __init__(self) -> None:
        self.active = False

    def __copy__(self) -> LabelSource:
        return self

    def __deepcopy__(self, memo: Mapping[int, Any]) -> LabelSource:
        return self

    def __reduce__(self) -> tuple[type[LabelSource], tuple[()]]:
        return LabelSource, ()  # what is loaded from a file is not at work


class TakesTargets:
    """Mixin of modules that take the labels of a batch as an argument ``targets``, or are shown them.

    Attributes:
        shown_targets: Labels of the batch at hand; see :func:`show_targets`.
        label_source: What shows labels to the module, if anything does.
    """

    shown_targets: Tensor | None = None
    label_source: LabelSource = LabelSource()  # never active


def takers(module: nn.Module) -> list[TakesTargets]:
    """Find the modules that are to be shown the labels of a whole batch.

    Args:
        module: A model.

    Returns:
        Its outermost modules that take targets; what lies within them is their business.
    """
    if isinstance(module, TakesTargets):
        return [module]
    return list({id(taker): taker for child in module.children() for taker in takers(child)}.values())


@contextmanager
def show_targets(model: nn.Module | list[TakesTargets], targets: Tensor | None) -> Iterator[None]:
    """Show the labels of a batch to the DHP layers of a model, for forward passes that do not pass them on.

    Args:
        model: The model, or its modules that take targets as :func:`takers` finds them.
        targets: Class of each sample, (N,).

    Yields:
        Nothing; the labels are taken away at the end, also after an error.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from avsi.hebbian import DHPLinear
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), DHPLinear(3, 2))
        >>> with show_targets(model, torch.tensor([0, 1])):
        ...     outputs = model(torch.randn(2, 4))
    """
    modules = model if isinstance(model, list) else takers(model)
    before = [module.shown_targets for module in modules]
    try:
        for module in modules:
            module.shown_targets = targets
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.shown_targets = value


class DHPLinear(TakesTargets, nn.Module):
    r"""Linear layer with Hebbian traces: the DHP softmax layer, without the softmax.

    Every connection has a slow weight theta and a plastic part, a trace Hebb scaled by a coefficient alpha. There is no
    bias. For a batch of features h, in training, and with h_c the mean over the samples of class c::

        Hebb[c] <- (1 - eta) Hebb[c] + eta * h_c     for each class c in the batch (eq. 3, Algorithm 1)
        z = h (theta + alpha * Hebb)^T               (eq. 2)

    The gradient of z reaches eta and h also through this batch's update of the trace; the trace that is carried to the
    next batch is detached. Evaluation uses the trace and leaves it alone.

    A forward pass in training needs labels: pass ``targets``, or wrap it in :func:`show_targets`, or give the Avalanche
    strategy an ``avsi.DHPPlugin``. Each pass with labels is one update.

    The paper does not constrain eta. For any eta in [0, 1] a trace is an average of features it has met, and stays
    within their range; outside it may grow without bound. ``eta_constraint`` says what is done:

    - ``"project"``: before a trace is updated, eta itself is projected onto [0, 1], in place. Inside this changes
      nothing, neither values nor gradients. At the border the gradient is that of the formula above, so the optimizer
      can lead eta back inside; clamping eta as part of the formula would give it gradient 0 outside, and strand it
      there for good.
    - ``"sigmoid"``: eta = sigmoid(l) with a trained parameter l, so eta is always inside (0, 1). The parameter, and
      its key in ``state_dict``, is ``eta_logit``; ``eta`` is computed from it.
    - ``"none"``: eta goes where the optimizer leads it.

    Weights start as in Listing 1 of the paper, U(-b, b) with b = 1/sqrt(out_features); alpha as U[0, 0.01];
    traces as 0.

    Args:
        in_features: Size of the features, m.
        out_features: Number of classes, d.
        eta: Initial rate of the traces, from 0 to 1; 0.001 in the paper's MNIST experiments.
        per_connection_eta: Whether every connection has an eta of its own; 0.0001 in the paper's 5-vision experiment.
        eta_constraint: How eta is kept in its range: "project", "sigmoid" or "none".
        unit_features: Whether the traces average h / ||h||_2 in place of h. The paper has h itself.
        device: Where the tensors are.
        dtype: Their type, float32 or float64 (under ``torch.autocast`` the traces stay in it).

    Attributes:
        weight: Slow weights theta, (out_features, in_features).
        alpha: Plasticity coefficients, (out_features, in_features).
        eta: Rate of the traces, a scalar or (out_features, in_features): a parameter, or sigmoid(eta_logit).
        hebb: Traces, (out_features, in_features); a buffer, so part of ``state_dict``.
        fast_parameters: Names of the parameters that are not slow weights, and not to be consolidated.

    Raises:
        ValueError: If a size is not positive, eta is out of range, or ``eta_constraint`` is none of its values.
        TypeError: If a size is no whole number, eta no number, or a flag neither True nor False.

    Examples:
        >>> import torch
        >>> layer = DHPLinear(3, 2, eta=0.5)
        >>> h = torch.tensor([[1.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
        >>> layer(h, targets=torch.tensor([1, 1])).shape  # in training: traces are updated, then used
        torch.Size([2, 2])
        >>> layer.hebb  # 0.5 * the mean of class 1
        tensor([[0., 0., 0.],
                [1., 0., 0.]])
        >>> layer.eval()(h).shape  # in evaluation: no labels, no update
        torch.Size([2, 2])

    References:
        Differentiable Hebbian Consolidation for Continual Learning, 2020.
    """

    fast_parameters: tuple[str, ...] = ("alpha", "eta")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        eta: float = 1e-3,
        per_connection_eta: bool = False,
        eta_constraint: EtaConstraint = "project",
        unit_features: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = check_count("in_features", in_features)
        self.out_features = check_count("out_features", out_features)
        self.initial_eta = check_number("eta", eta, "a number from 0 to 1", lambda value: 0 <= value <= 1)
        check_choice("eta_constraint", eta_constraint, get_args(EtaConstraint))
        if eta_constraint == "sigmoid" and self.initial_eta in {0, 1}:
            raise ValueError(
                f'with eta_constraint="sigmoid" eta must lie between 0 and 1, which it never reaches, got {eta!r}'
            )
        self.per_connection_eta = check_flag("per_connection_eta", per_connection_eta)
        self.eta_constraint = eta_constraint
        self.unit_features = check_flag("unit_features", unit_features)
        shape = (self.out_features, self.in_features)

        def empty(*size: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(size, device=device, dtype=dtype))

        self.weight = empty(*shape)  # first: containers read the number of classes from the first parameter
        self.alpha = empty(*shape)
        rate = "eta_logit" if eta_constraint == "sigmoid" else "eta"
        self.eta_logit: nn.Parameter
        self.register_parameter(rate, empty(*(shape if per_connection_eta else ())))
        if rate == "eta_logit":
            self.fast_parameters = ("alpha", rate)
        self.register_buffer("hebb", torch.empty(shape, device=device, dtype=dtype))
        self.hebb: Tensor
        self.reset_parameters()

    @property
    def eta(self) -> Tensor:
        """Rate of the traces, whichever way it is stored."""
        if "eta_logit" in self._parameters:
            return self.eta_logit.sigmoid()
        return cast(Tensor, super().__getattr__("eta"))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weights and coefficients anew, set eta to its initial value and the traces to 0."""
        init_slow_weights(self.weight)
        self.alpha.uniform_(0, 0.01)
        if self.eta_constraint == "sigmoid":
            self.eta_logit.fill_(math.log(self.initial_eta) - math.log1p(-self.initial_eta))
        else:
            self.eta.fill_(self.initial_eta)
        self.hebb.zero_()

    def forward(self, h: Tensor, targets: Tensor | None = None) -> Tensor:
        """Compute the logits, in training after an update of the traces.

        Args:
            h: Features, (N, in_features).
            targets: Class of each sample, integers (N,); only looked at in training. That they are in range is checked
                on a CPU. Elsewhere a check would stall the device, which instead stops with an assertion of its own.
                Default: what :func:`show_targets` or a plugin shows.

        Returns:
            Logits, (N, out_features).

        Raises:
            RuntimeError: If there are no targets in training, or it is under activation checkpointing.
            ValueError: If shapes, devices or classes do not match. Targets that are not integers are a TypeError.
                Features that are not finite are, in training on a CPU, a FloatingPointError, and leave the traces as
                they are. Elsewhere a check would stall the device; there such features show in the traces, which never
                become finite again, whenever they are next looked at.
        """
        if h.dim() != 2 or h.shape[1] != self.in_features:
            raise ValueError(f"features must have shape (samples, {self.in_features}), got {tuple(h.shape)}")
        if self.training:
            # Only a backward pass that computes a part of the forward pass again comes here while one is running.
            if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
                raise RuntimeError(
                    "a DHPLinear cannot be computed again in the backward pass, since it has moved its traces "
                    "meanwhile: leave it out of the part of the model under activation checkpointing"
                )
            targets = self.shown_targets if targets is None else targets
            if targets is not None:
                return self._forward_with_update(h, targets)
            if not self.label_source.active:
                raise RuntimeError(
                    "a DHPLinear in training needs the labels of the batch to update its traces: give the Avalanche "
                    "strategy an avsi.DHPPlugin(), or pass them, as in layer(h, targets)"
                )
        # A later update changes the traces in place, perhaps before this pass is differentiated with respect to alpha.
        hebb = self.hebb.clone() if torch.is_grad_enabled() and self.alpha.requires_grad else self.hebb
        return linear(h, self.weight + self.alpha * hebb)

    def _forward_with_update(self, h: Tensor, targets: Tensor) -> Tensor:
        self._check_targets(h, targets)
        classes, features = targets.long(), h.to(self.hebb.dtype)
        ones = features.new_ones(len(classes))
        try:
            counts = features.new_zeros(self.out_features).index_add_(0, classes, ones)
        except (IndexError, RuntimeError):  # only a CPU checks here, and at no extra cost
            low, high = (int(bound) for bound in torch.aminmax(classes))
            if low >= 0 and high < self.out_features:
                raise
            raise ValueError(f"targets must be from 0 to {self.out_features - 1}, got {low} to {high}") from None
        eta = self.eta
        if self.eta_constraint == "project":
            eta.data.clamp_(0, 1)  # .data: inside the range nothing changes, also not for graphs that hold eta
        if self.unit_features:
            features = normalize(features, dim=1)
        # Each sample moves its class's trace by its share; the sum over a class is eta * (mean - trace).
        eta = eta.index_select(0, classes) if self.per_connection_eta else eta  # (n, i) or ()
        rates = eta / counts.index_select(0, classes).unsqueeze(1)  # (n, i) or (n, 1)
        hebb = self.hebb.index_add(0, classes, (features - self.hebb.index_select(0, classes)) * rates)
        outputs = linear(h, self.weight + self.alpha * hebb)
        compiled = torch.compiler.is_compiling()
        # Each output of a sample holds all of its features, and outputs are few.
        if outputs.device.type == "cpu" and not compiled and not math.isfinite(outputs.detach().sum().item()):
            _refuse_infinite(h)
        if compiled:
            # A compiled backward pass may read the old traces once more, unaware that they were changed in place.
            self.hebb = hebb.detach()
        else:
            self.hebb.copy_(hebb.detach())
        return outputs

    def _check_targets(self, h: Tensor, targets: Tensor) -> None:
        if not isinstance(targets, Tensor):
            raise TypeError(f"targets must be a tensor of class indices, got {targets!r:.80}")
        if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
            raise TypeError(f"targets must be class indices, integers, got a tensor of {targets.dtype}")
        if targets.shape != h.shape[:1]:
            raise ValueError(
                f"targets must have shape ({len(h)},), one class index per sample, got {tuple(targets.shape)}"
            )
        if targets.device != h.device:
            raise ValueError(f"targets are on {targets.device}, the features on {h.device}")

    def extra_repr(self) -> str:
        """Describe the layer.

        Returns:
            Its sizes, the initial eta, and what differs from the default.
        """
        parts = [f"{self.in_features}, {self.out_features}, eta={self.initial_eta}"]
        parts += ["per_connection_eta=True"] if self.per_connection_eta else []
        parts += [f"eta_constraint={self.eta_constraint!r}"] if self.eta_constraint != "project" else []
        parts += ["unit_features=True"] if self.unit_features else []
        return ", ".join(parts)


def _refuse_infinite(h: Tensor) -> None:
    finite = h.detach().isfinite()
    if not finite.all():
        row, column = (~finite).nonzero()[0].tolist()
        raise FloatingPointError(
            f"the features of {int((~finite.all(1)).sum())} of {len(h)} samples are not finite (sample {row}, feature "
            f"{column}: {h[row, column].item()}), and a Hebbian trace that met them would never be finite again. "
            "Either training has diverged (lower the learning rate), or the inputs hold such values"
        )


def init_slow_weights(weight: Tensor) -> None:
    """Initialise weights as Listing 1 of the DHP paper does: U(-b, b) with b = 1/sqrt(out_features).

    The listing gives an (in, out) matrix to ``kaiming_uniform_(a=sqrt(5))``, whose fan-in is then the number of
    outputs, not of inputs as in ``nn.Linear``.

    Args:
        weight: Weights (out, in), changed in place.
    """
    bound = 1 / math.sqrt(weight.shape[0])
    nn.init.uniform_(weight, -bound, bound)


def add_dhp_linear(
    module: Any, inputs: Tensor, grads: Grads, phi: Phi, totals: Mapping[str, Tensor], workspace: int
) -> None:
    """Closed form of z = h (weight + alpha * hebb)^T in evaluation mode, where the traces are constants.

    A sample's gradient of the weight is the outer product g h^T, as in any linear layer; that of alpha is
    (g h^T) * hebb, and phi goes through the product.

    Args:
        module: The layer.
        inputs: Its input h, (N, in).
        grads: Gradients of its output.
        phi: Square or absolute value.
        totals: What to add to: `weight` and/or `alpha`.
        workspace: Bytes of working memory.
    """
    if "alpha" not in totals:
        add_linear(module, inputs, grads, phi, totals, workspace)
        return
    outer = torch.zeros_like(totals["alpha"])
    add_linear(module, inputs, grads, phi, {"weight": outer}, workspace)
    if "weight" in totals:
        totals["weight"].add_(outer)
    totals["alpha"].addcmul_(outer, phi(module.hebb))


CLOSED_FORMS[DHPLinear] = ClosedForm(add_dhp_linear, ("weight", "alpha"))

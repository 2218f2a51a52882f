"""Where a parameter is used in a batch, and the closed form that serves there."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from avsi.importance.closed_forms import AddClosedForm, ClosedForm, add_linear, add_shared, closed_form_of
from avsi.importance.graph import Call, Users, find_entry, only_user
from avsi.importance.layouts import Layout

Calls = dict[nn.Module, list[Call]]
"""The calls of layers, in their order."""

Key = nn.Module | str
"""What a use belongs to: a layer, or a parameter's name where it enters outside of one."""


@dataclass(frozen=True)
class Home:
    """The layer that a parameter belongs to, which has a closed form for it.

    Attributes:
        module: The layer.
        name: The parameter's name there.
        form: The closed form.
    """

    module: nn.Module
    name: str
    form: ClosedForm


@dataclass
class Use:
    """A closed form, what to give it in a batch, and what to add to.

    Attributes:
        add: The closed form.
        module: The layer; None for what enters outside of one.
        inputs: What went in.
        edge: Where the gradient arrives in the graph.
        totals: What is added to, by the parameter's name in the layer.
        rows: The inputs, with samples as in the gradient; or else those of the product that the edge is of.
        shared: Shape of what is added to each sample where the edge is.
        is_movable: Whether samples need not be first.
    """

    add: AddClosedForm
    module: nn.Module | None
    inputs: Any
    edge: Any
    totals: dict[str, Tensor]
    rows: Tensor | None
    shared: torch.Size | None = None
    is_movable: bool = True

    def takes(self, layout: Layout, samples: int) -> bool:
        """Whether samples are where they should be."""
        fits = self.rows is None or layout.fits(self.rows, samples)
        return fits and (self.is_movable or layout == Layout(0))

    def arranged(self, grads: list[Tensor], layout: Layout, samples: int) -> tuple[Any, list[Tensor]]:
        """Inputs and gradients, samples first."""
        if layout == Layout(0) and self.shared is None:
            return self.inputs, grads
        grads = [layout.samples_first(gradient, samples) for gradient in grads]
        if self.shared is None:
            return layout.samples_first(self.inputs, samples), grads
        shape = (samples, *(1,) * (grads[0].dim() - 1 - len(self.shared)), *self.shared)
        grads = [gradient.sum_to_size(shape).reshape(samples, *self.shared) for gradient in grads]
        return self.inputs.expand(samples, *self.inputs.shape) if self.module else None, grads


Closed = dict[Key, tuple[Use, Layout]]
"""The closed forms of a batch, and where its samples are in their inputs."""


def find_homes(model: nn.Module, parameters: dict[str, nn.Parameter]) -> dict[str, Home]:
    """Find the layers of those parameters whose layers have closed forms.

    Args:
        model: The model.
        parameters: The parameters by name.

    Returns:
        The layers, by the parameters' names.
    """
    names = {id(parameter): name for name, parameter in parameters.items()}
    homes = {}
    for module in model.modules():
        form = closed_form_of(module)
        for local in form.parameters if form else ():
            parameter = module._parameters.get(local)
            if form and parameter is not None and id(parameter) in names:
                homes[names[id(parameter)]] = Home(module, local, form)
    return homes


def find_uses(
    name: str, parameter: nn.Parameter, total: Tensor, home: Home | None, users: Users, calls: Calls
) -> Iterator[tuple[Key, Use]]:
    """Find the closed forms of a parameter: in its layer, or where that layer's output is added; else where it enters.

    Args:
        name: The parameter's name.
        parameter: The parameter.
        total: What is added to.
        home: Where it lives.
        users: Where what is used in the graph of the outputs.
        calls: The calls of layers.

    Yields:
        What the use belongs to, and the use.
    """
    made = calls.get(home.module, []) if home else []
    if home and len(made) == 1 and only_user(users, id(parameter)):
        (call,) = made
        if (
            (call.edge and call.edge.node in users)
            and (call.inputs is not None and call.inputs._version == call.version)
            and home.form.applies(home.module, call.inputs)
        ):
            of_layer = home.form.add, home.module, call.inputs.detach()
            movable = home.form.pointwise
            yield home.module, Use(*of_layer, call.edge, {home.name: total}, call.inputs.detach(), None, movable)
            if isinstance(home.module, nn.Embedding) and call.shape is not None:
                output = torch.empty(call.shape, device="meta")
                entry = find_entry(users, call.edge.node, output)
                if entry and not entry.is_matrix and _has_all(entry.value, output):
                    found = Use(*of_layer, entry.edge, {home.name: total}, entry.rows, entry.value.shape)
                    yield name, found
    entry = find_entry(users, id(parameter), total)
    if entry and entry.is_matrix:
        yield name, Use(add_linear, None, entry.rows, entry.edge, {"weight": entry.value}, entry.rows)
    elif entry:
        yield name, Use(add_shared, None, None, entry.edge, {name: entry.value}, entry.rows, entry.value.shape)


def _has_all(view: Tensor, tensor: Tensor) -> bool:
    # whether a view has all elements, in the same order
    return view.numel() == tensor.numel() and view.is_contiguous()

"""What happened in a forward pass: which layers were called, on what, and where the parameters entered the graph."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge


@dataclass
class Call:
    """One call of a layer.

    Attributes:
        inputs: Its first argument, if that is a tensor and was given by position.
        version: How often these inputs had been changed in place by then.
        edge: Where the gradient of its output arrives in the graph, also if that output is later changed in place.
        dtype: The type of its output, if that is a tensor.
        shape: The shape of its output, if that is a tensor.
        first_row: The output for the first sample, if asked for.
    """

    inputs: Tensor | None
    version: int
    edge: GradientEdge | None
    dtype: torch.dtype | None
    shape: torch.Size | None
    first_row: Tensor | None = None


@contextmanager
def recorded(modules: Iterable[nn.Module], *, first_rows: bool = False) -> Iterator[dict[nn.Module, list[Call]]]:
    """Record the calls of some modules.

    Args:
        modules: The modules to listen to.
        first_rows: Whether to keep a copy of the first row of each output.

    Yields:
        The calls by module, in the order in which they are made.
    """
    calls: dict[nn.Module, list[Call]] = {}

    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        inputs = args[0] if args and isinstance(args[0], Tensor) else None
        is_tensor = isinstance(output, Tensor)
        calls.setdefault(module, []).append(
            Call(
                inputs,
                inputs._version if inputs is not None else 0,
                get_gradient_edge(output) if is_tensor and output.requires_grad else None,
                output.dtype if is_tensor else None,
                output.shape if is_tensor else None,
                output.detach()[:1].clone() if first_rows and is_tensor and output.dim() else None,
            )
        )

    handles = [module.register_forward_hook(note) for module in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


Users = dict[Any, list[tuple[Any, int]]]
"""Where each node's result, and each parameter by its id, is used in a graph: at which nodes, as which argument."""


def trace(outputs: Tensor) -> Users:
    """Walk the graph of some outputs."""
    users: Users = {outputs.grad_fn: []}
    stack = [outputs.grad_fn]
    while stack:
        node = stack.pop()
        for place, (following, _) in enumerate(node.next_functions if node else ()):
            if following is None:
                continue
            parameter = getattr(following, "variable", None)
            key = following if parameter is None else id(parameter)
            if key not in users:
                users[key] = []
                if parameter is None:
                    stack.append(following)
            users[key].append((node, place))
    return users


def only_user(users: Users, source: Any) -> tuple[Any, int] | None:
    """The node where a parameter (its id) or a node's result is used, and as which argument, if that happens once."""
    while len(users.get(source, ())) == 1:
        ((source, place),) = users[source]
        if not source.name().startswith("ToCopy"):  # autocast may keep a parameter's cast, and use it several times
            return source, place
    return None


_ROUTES = ("Index", "Scatter", "Gather", "MaskedScatter", "MaskedSelect", "SplitWithSizes", "CopySlices")


def before_routes(users: Users) -> set[Any]:
    """The nodes whose results may yet be sent to samples according to the data, as those of an expert's tokens are."""
    routed: set[Any] = set()
    stack = [node for node in users if not isinstance(node, int) and node and node.name().startswith(_ROUTES)]
    while stack:
        following = {node for node, _ in stack.pop().next_functions if node} - routed
        routed |= following
        stack += following
    return routed


@dataclass(frozen=True)
class Entry:
    """Where something that samples share is added to what is computed for each of them, or multiplied with it.

    Attributes:
        edge: Where the gradient of the sum or product arrives in the graph.
        value: What is shared, in the shape in which it enters; of a matrix, its transpose, like `nn.Linear.weight`.
        rows: What a matrix is multiplied with there, if there is one.
        is_matrix: Whether what is shared is that matrix.
    """

    edge: GradientEdge
    value: Tensor
    rows: Tensor | None = None
    is_matrix: bool = False


def find_entry(users: Users, source: Any, value: Tensor) -> Entry | None:
    """Find where something enters, if it is used once, and in a way whose derivative is known for sure.

    What a node computes is known by its name, and by the attributes `_saved_...` that torch's notes on autograd
    describe: no hook sees the functions that a layer like `nn.MultiheadAttention` calls.

    Args:
        users: What `trace` gave.
        source: A parameter's id, or the node whose result is shared.
        value: A tensor that is to go through the same views as the parameter or result.

    Returns:
        The entry, or None.
    """
    user = only_user(users, source)
    while user and user[0].name() in _VIEWS:
        value = _VIEWS[user[0].name()](user[0], value)
        user = only_user(users, user[0])
    if user is None:
        return None
    node, place = user
    kind, edge = node.name(), GradientEdge(node, 0)
    rows = node._saved_self if kind == "MmBackward0" else node._saved_mat1 if kind == "AddmmBackward0" else None
    if rows is not None and rows.is_complex():
        return None
    if kind == "MmBackward0" and place == 1:
        return Entry(edge, value.t(), rows, is_matrix=True)
    if kind == "AddmmBackward0" and place == 2 and node._saved_alpha == 1:
        return Entry(edge, value.t(), rows, is_matrix=True)
    if kind == "AddmmBackward0" and place == 0 and node._saved_beta == 1:
        return Entry(edge, value, rows)
    # phi does not see signs
    adds = kind in {"AddBackward0", "SubBackward0"} and (place == 0 or abs(node._saved_alpha) == 1)
    return Entry(edge, value) if adds or kind == "ExpandBackward0" else None


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number  # torch shows negative ones as if they were unsigned


def _slice(node: Any, value: Tensor) -> Tensor:
    start, end = (bound if bound is None else _signed(bound) for bound in (node._saved_start, node._saved_end))
    return value.movedim(_signed(node._saved_dim), 0)[start : end : node._saved_step].movedim(
        0, _signed(node._saved_dim)
    )


_VIEWS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "AliasBackward0": lambda node, value: value,
    "TBackward0": lambda node, value: value.t(),
    "PermuteBackward0": lambda node, value: value.permute([_signed(dim) for dim in node._saved_dims]),
    "TransposeBackward0": lambda node, value: value.transpose(_signed(node._saved_dim0), _signed(node._saved_dim1)),
    "UnsqueezeBackward0": lambda node, value: value.unsqueeze(_signed(node._saved_dim)),
    "SliceBackward0": _slice,
}

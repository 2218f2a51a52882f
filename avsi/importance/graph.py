"""What happened in a forward pass: which layers were called, on what, and where the parameters entered the graph."""

from collections import Counter
from collections.abc import Iterable, Iterator
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
        first_row: The output for the first sample, if asked for.
    """

    inputs: Tensor | None
    version: int
    edge: GradientEdge | None
    dtype: torch.dtype | None
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
                output.detach()[:1].clone() if first_rows and is_tensor and output.dim() else None,
            )
        )

    handles = [module.register_forward_hook(note) for module in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def trace(outputs: Tensor) -> tuple[Counter[int], set[Any]]:
    """Walk the graph of some outputs.

    Args:
        outputs: The outputs.

    Returns:
        How often each parameter is used, by the parameter's id; and all the nodes of the graph.
    """
    edges: Counter[int] = Counter()
    casts: list[tuple[Any, int]] = []
    arrivals: Counter[Any] = Counter()
    seen: set[Any] = {outputs.grad_fn}
    stack = [outputs.grad_fn]
    while stack:
        node = stack.pop()
        if node is None:
            continue
        for following, _ in node.next_functions:
            parameter = getattr(following, "variable", None)
            arrivals[following] += 1
            if parameter is None:
                if following is not None and following not in seen:
                    seen.add(following)
                    stack.append(following)
            elif node.name().startswith("ToCopy"):  # autocast may keep a parameter's cast, and use it several times
                casts.append((node, id(parameter)))
            else:
                edges[id(parameter)] += 1
    for node, parameter in casts:
        edges[parameter] += arrivals[node]
    return edges, seen

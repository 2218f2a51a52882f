"""The exact diagonal of a loss's Hessian, element by element."""

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.functional import cross_entropy


def hessian_diagonal(
    model: nn.Module, batches, name: str, elements: Tensor | None = None, chunk_size: int = 64
) -> Tensor:
    """d^2 L / d theta_k^2 = e_k^T H e_k of the mean cross-entropy L over all samples, for one parameter.

    Each element costs a forward and backward pass and their derivatives, `chunk_size` of them at a time.

    Args:
        model: The model, in evaluation mode.
        batches: (x, y), with class indices y.
        name: Name of the parameter.
        elements: Indices of its flattened elements; default: all.
        chunk_size: Elements at a time.

    Returns:
        One number per element.
    """
    parameters = {key: value.detach() for key, value in model.named_parameters()}
    theta = parameters.pop(name)
    elements = torch.arange(theta.numel(), device=theta.device) if elements is None else elements
    total, samples = torch.zeros(len(elements), dtype=theta.dtype, device=theta.device), 0
    for x, y in batches:

        def loss(theta: Tensor, x: Tensor = x, y: Tensor = y) -> Tensor:
            return cross_entropy(functional_call(model, parameters | {name: theta}, x), y, reduction="sum")

        def second_derivative(element: Tensor, loss=loss) -> Tensor:
            unit = (torch.arange(theta.numel(), device=theta.device) == element).to(theta.dtype).view_as(theta)
            return (unit * jvp(grad(loss), (theta,), (unit,))[1]).sum()

        total += vmap(second_derivative, chunk_size=chunk_size)(elements)
        samples += len(x)
    return total / samples

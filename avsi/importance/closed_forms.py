"""Closed forms: per-sample gradients of single layers, from their inputs and the gradients of their outputs alone.

Let phi be the square or the absolute value. Both are multiplicative, phi(ab) = phi(a) phi(b), and that is all that is
used of them. A closed form adds sum_n phi(d L_n / d theta) to a running total for the parameters theta of one layer,
given the layer's input for all samples n and the gradient of sum_n L_n with respect to its output. Row n of either
must belong to sample n alone. There may be several such L, one per class for instance, that share the input: the
closed form is given the output gradients of each, and adds all their sums. Inputs (but indices) and gradients have the
totals' type, float32 at least.

Index letters, in the order of dimensions:

    n  samples              g  groups               i  inputs, or input channels of a group times places in a kernel row
    s  places of a sample   h  kernel rows          o  outputs, or output channels of a group
    c  channels             k  kernel columns       v  rows of an embedding

A is a layer's input and G a gradient of its output.

`CLOSED_FORMS` maps layer types to closed forms. A layer defined elsewhere registers itself there:

    CLOSED_FORMS[MyLinear] = ClosedForm(add_linear, ("weight",))
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, group_norm, layer_norm, pad

Phi = Callable[..., Tensor]
"""`torch.square` or `torch.abs`."""

Grads = Sequence[Tensor]
"""Gradients of a layer's output, one for each of the functions that are differentiated."""

AddClosedForm = Callable[[Any, Tensor, Grads, Phi, Mapping[str, Tensor], int], None]
"""(layer, input, output gradients, phi, totals by the layer's own parameter names, bytes of working memory) -> None."""

# On a CPU, per-sample quantities should stay in the cores' own caches on their way to the sum.
CPU_CHUNK_BYTES = 2 * 2**20
CPU_TILE_BYTES = 2**19  # of large products, which are formed for one sample at a time


def _always(module: Any, inputs: Tensor) -> bool:
    return True


@dataclass(frozen=True)
class ClosedForm:
    """How the parameters of one type of layer are handled without forming their gradients.

    Attributes:
        add: Adds one batch to the totals. It finds only those of the layer's parameters in the totals that are wanted.
        parameters: Names, within the layer, of the parameters that `add` knows.
        applies: Whether a given layer can be handled for a given input; where not, the general method serves.
        pointwise: Whether all leading dimensions of inputs and gradients are alike, so that any may count samples.
    """

    add: AddClosedForm
    parameters: tuple[str, ...] = ("weight", "bias")
    applies: Callable[[Any, Tensor], bool] = _always
    pointwise: bool = False


def closed_form_of(module: nn.Module) -> ClosedForm | None:
    """Find the closed form of a layer, if what it computes is known for sure.

    A subclass qualifies as long as it inherits the forward computation. Hooks may change inputs, outputs or weights,
    so a layer that has any does not qualify.

    Args:
        module: The layer.

    Returns:
        Its closed form, or None.
    """
    cls = type(module)
    base = next((known for known in cls.__mro__ if known in CLOSED_FORMS), None)
    if base is None or any(vars(module).get(hooks) for hooks in _HOOKS):
        return None
    inherits = all(getattr(cls, name, None) is getattr(base, name, None) for name in _FORWARD)
    return CLOSED_FORMS[base] if inherits and not any(name in vars(module) for name in _FORWARD) else None


_FORWARD = ("__call__", "forward", "_conv_forward")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def chunks(samples: int, bytes_per_sample: int, workspace: int) -> Iterator[slice]:
    """Cut a batch so that each part needs at most a given amount of memory, or is a single sample.

    Args:
        samples: Number of samples in the batch.
        bytes_per_sample: What one of them needs.
        workspace: What may be used.

    Yields:
        Slices that cover the batch.
    """
    step = max(1, workspace // max(1, bytes_per_sample))
    for start in range(0, samples, step):
        yield slice(start, min(start + step, samples))


def _add_products(total: Tensor, lefts: Grads, right: Tensor, phi: Phi, workspace: int) -> None:
    """Add sum_n phi(left_n @ right_n), for each left (n, ..., o, s) and right (n, ..., s, i), to total (..., o, i)."""
    if right.shape[-2] == 1:  # outer products: phi goes through them, and their sum over samples is one product
        left, right = reduce(torch.add, (phi(left.squeeze(-1)) for left in lefts)), phi(right.squeeze(-2))
        if total.dim() == 2:
            total.addmm_(left.T, right)
        else:
            total.add_(torch.einsum("n...o,n...i->...oi", left, right))
        return
    bytes_per_row = total.numel() // total.shape[-2] * total.element_size()
    whole = bytes_per_row * total.shape[-2]
    one_by_one = _is_large(total)
    tile_bytes = min(workspace, CPU_TILE_BYTES) if one_by_one else workspace
    rows = min(total.shape[-2], max(1, tile_bytes // bytes_per_row))
    for start in range(0, total.shape[-2], rows):
        tile = slice(start, start + rows)
        target = total[..., tile, :]
        if one_by_one:  # while the sum's tile stays in the cache
            product = torch.empty(target.shape, dtype=right.dtype)
            for left in lefts:
                for factor, other in zip(left[..., tile, :], right, strict=True):
                    torch.matmul(factor, other, out=product)
                    target.add_(phi(product, out=product))
            continue
        for part in chunks(len(right), whole, workspace):  # several tiles only if a single sample would not fit
            for left in lefts:
                product = left[part, ..., tile, :] @ right[part]
                target.add_(phi(product, out=product).sum(0))


def _is_large(total: Tensor) -> bool:
    # Whether to form the products of single samples one by one: where their arithmetic outweighs the calls from Python.
    return total.device.type == "cpu" and total.numel() * total.element_size() > CPU_TILE_BYTES // 4


def _cache_sized(workspace: int, tensor: Tensor) -> int:
    return min(workspace, CPU_CHUNK_BYTES) if tensor.device.type == "cpu" else workspace


def add_linear(
    module: Any, inputs: Tensor, grads: Grads, phi: Phi, totals: Mapping[str, Tensor], workspace: int
) -> None:
    """Closed form of z = x @ weight.T + bias.

    For inputs (N, in) the gradient of a sample is an outer product, so sum_n phi(g_n) = phi(G).T @ phi(A), one matrix
    product. With further leading dimensions, (N, ..., in), the gradient of a sample is the sum of its outer products,
    G_n.T @ A_n, formed for a few samples at a time.

    Args:
        module: The layer; only its type matters.
        inputs: Its input A, samples first.
        grads: Gradients G of its output.
        phi: Square or absolute value.
        totals: What to add to: `weight` and/or `bias`.
        workspace: Bytes of working memory.
    """
    a, *gs = (t.reshape(len(t), -1, t.shape[-1]) for t in (inputs, *grads))  # (n, s, i) and (n, s, o)
    workspace = _cache_sized(workspace, a)
    if "weight" in totals:
        _add_products(totals["weight"], [g.transpose(1, 2) for g in gs], a, phi, workspace)
    if "bias" in totals:
        for g in gs:
            totals["bias"].add_(phi(g.sum(1)).sum(0))


def add_conv(module: Any, inputs: Tensor, grads: Grads, phi: Phi, totals: Mapping[str, Tensor], workspace: int) -> None:
    """Closed form of Conv1d and Conv2d, with stride, padding of any mode, dilation and groups.

    The gradient of a sample is G_n @ unfold(A_n).T. Unfolding in full writes each input once per kernel element, and
    that traffic costs more than the products. Here inputs are unfolded along their width alone: the rows that one
    kernel row meets are then a contiguous piece of the result, and each kernel row takes one batched product of views.
    With stride s the input rows fall into s classes, unfolded apart.

    Args:
        module: The layer.
        inputs: Its input A, (N, in, W) or (N, in, H, W).
        grads: Gradients G of its output.
        phi: Square or absolute value.
        totals: What to add to: `weight` and/or `bias`.
        workspace: Bytes of working memory.
    """
    if "bias" in totals:
        for grad in grads:
            totals["bias"].add_(phi(grad.flatten(2).sum(2)).sum(0))
    if "weight" not in totals:
        return
    padding = module._reversed_padding_repeated_twice  # in the order of pad(), also for padding="same"
    if inputs.dim() == 3:
        inputs, *grads = (t.unsqueeze(2) for t in (inputs, *grads))
        padding = [*padding, 0, 0]
    (stride_h, stride_w), (dilation_h, dilation_w), (kernel_h, kernel_w) = (
        (1, *sizes)[-2:] for sizes in (module.stride, module.dilation, module.kernel_size)
    )
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    lead = (module.groups,) if module.groups > 1 else ()
    out_per_group, in_per_group = module.out_channels // module.groups, module.in_channels // module.groups
    out_h, out_w = grads[0].shape[2:]

    row_classes: dict[int, list[int]] = {}
    for row in range(kernel_h):
        row_classes.setdefault(row * dilation_h % stride_h, []).append(row)

    total = inputs.new_zeros(kernel_h, *lead, out_per_group, in_per_group * kernel_w)
    workspace = _cache_sized(workspace, inputs)
    padded_h = (out_h - 1) * stride_h + (kernel_h - 1) * dilation_h + 1
    numbers_per_sample = module.in_channels * kernel_w * out_w * padded_h
    if not _is_large(total[0]):
        numbers_per_sample += total[0].numel()
    for part in chunks(len(inputs), numbers_per_sample * inputs.element_size(), workspace):
        a = inputs[part].contiguous()
        if any(padding):
            a = pad(a, padding, mode=mode)
        gs = [grad[part].reshape(len(a), *lead, out_per_group, out_h * out_w) for grad in grads]  # (n, g, o, s)
        sample, channel, line, column = a.stride()
        for first, rows in row_classes.items():
            height = (rows[-1] * dilation_h - first) // stride_h + out_h
            windows = a.as_strided(
                (len(a), module.in_channels, kernel_w, height, out_w),
                (sample, channel, dilation_w * column, stride_h * line, stride_w * column),
                a.storage_offset() + first * line,
            )
            unfolded = windows.reshape(len(a), *lead, in_per_group * kernel_w, height * out_w)  # (n, g, i, s)
            for row in rows:
                start = (row * dilation_h - first) // stride_h * out_w
                met = unfolded[..., start : start + out_h * out_w]
                _add_products(total[row], gs, met.transpose(-1, -2), phi, workspace)
    # (h, g, o, i) -> (h, o of all groups, c, k) -> (o, c, h, k)
    weight = total.view(kernel_h, module.out_channels, in_per_group, kernel_w).permute(1, 2, 0, 3)
    totals["weight"].add_(weight.reshape(totals["weight"].shape))


def _add_affine(
    normalised: Tensor, grads: Grads, phi: Phi, totals: Mapping[str, Tensor], shared: tuple[int, ...]
) -> None:
    """Add the closed form of y = normalised * weight + bias, with weight and bias shared by some of the dimensions."""
    for grad in grads:
        for name, gradient in (("weight", grad * normalised), ("bias", grad)):
            if name in totals:
                totals[name].add_(phi(gradient.sum(shared) if shared else gradient).sum(0))


def add_batch_norm(
    module: Any, inputs: Tensor, grads: Grads, phi: Phi, totals: Mapping[str, Tensor], workspace: int
) -> None:
    """Closed form of the affine parameters of batch normalisation with running statistics.

    Args:
        module: The layer.
        inputs: Its input, (N, C) or (N, C, ...).
        grads: Gradients of its output.
        phi: Square or absolute value.
        totals: What to add to: `weight` and/or `bias`.
        workspace: Bytes of working memory.
    """
    shared = tuple(range(2, inputs.dim()))
    mean, variance = module.running_mean.to(inputs.dtype), module.running_var.to(inputs.dtype)
    for part in chunks(len(inputs), 2 * inputs[0].nbytes, _cache_sized(workspace, inputs)):
        normalised = batch_norm(inputs[part], mean, variance, eps=module.eps)
        _add_affine(normalised, [grad[part] for grad in grads], phi, totals, shared)


def add_group_norm(
    module: Any, inputs: Tensor, grads: Grads, phi: Phi, totals: Mapping[str, Tensor], workspace: int
) -> None:
    """Closed form of the affine parameters of group normalisation.

    Args:
        module: The layer.
        inputs: Its input, (N, C, ...).
        grads: Gradients of its output.
        phi: Square or absolute value.
        totals: What to add to: `weight` and/or `bias`.
        workspace: Bytes of working memory.
    """
    shared = tuple(range(2, inputs.dim()))
    for part in chunks(len(inputs), 2 * inputs[0].nbytes, _cache_sized(workspace, inputs)):
        normalised = group_norm(inputs[part], module.num_groups, eps=module.eps)
        _add_affine(normalised, [grad[part] for grad in grads], phi, totals, shared)


def add_layer_norm(
    module: Any, inputs: Tensor, grads: Grads, phi: Phi, totals: Mapping[str, Tensor], workspace: int
) -> None:
    """Closed form of the affine parameters of layer normalisation.

    Args:
        module: The layer.
        inputs: Its input, (N, ..., *normalized_shape).
        grads: Gradients of its output.
        phi: Square or absolute value.
        totals: What to add to: `weight` and/or `bias`.
        workspace: Bytes of working memory.
    """
    shared = tuple(range(1, inputs.dim() - len(module.normalized_shape)))
    for part in chunks(len(inputs), 2 * inputs[0].nbytes, _cache_sized(workspace, inputs)):
        normalised = layer_norm(inputs[part], module.normalized_shape, eps=module.eps)
        _add_affine(normalised, [grad[part] for grad in grads], phi, totals, shared)


def add_embedding(
    module: Any, inputs: Tensor, grads: Grads, phi: Phi, totals: Mapping[str, Tensor], workspace: int
) -> None:
    """Closed form of an embedding: a sample's gradient of row v is the sum of G over the places that hold v.

    Args:
        module: The layer.
        inputs: Its input, indices (N, ...).
        grads: Gradients of its output, (N, ..., D).
        phi: Square or absolute value.
        totals: What to add to: `weight`.
        workspace: Bytes of working memory.
    """
    rows, features = totals["weight"].shape
    for part in chunks(len(inputs), 3 * grads[0][0].nbytes, workspace):
        index = inputs[part].reshape(len(grads[0][part]), -1).long()
        if not index.numel():
            continue  # samples without places
        # Sorted by sample and row, equal pairs are neighbours; each run of them is one row of one sample's gradient.
        pair = (index + rows * torch.arange(len(index), device=index.device).unsqueeze(1)).flatten()
        pair, order = pair.sort()
        run = pad((pair[1:] != pair[:-1]).long().cumsum(0), (1, 0))
        row = torch.zeros_like(pair).scatter_(0, run, pair % rows)
        for grad in grads:
            g = grad[part].reshape(-1, features)
            per_sample = torch.zeros_like(g).index_add_(0, run, g[order])
            if module.padding_idx is not None:
                per_sample.masked_fill_((row == module.padding_idx).unsqueeze(1), 0)
            totals["weight"].index_add_(0, row, phi(per_sample))


def add_shared(module: Any, inputs: Any, grads: Grads, phi: Phi, totals: Mapping[str, Tensor], workspace: int) -> None:
    """Closed form of a parameter that is added to every sample: its gradient is that of the sum, (N, ...)."""
    (total,) = totals.values()
    for grad in grads:
        for part in chunks(len(grad), grad[0].nbytes, _cache_sized(workspace, grad)):
            total.add_(phi(grad[part]).sum(0))


def _has_leading_dimensions(features: int) -> Callable[[Any, Tensor], bool]:
    return lambda module, inputs: inputs.dim() > features


CLOSED_FORMS: dict[type[nn.Module], ClosedForm] = {
    nn.Linear: ClosedForm(add_linear, applies=_has_leading_dimensions(1), pointwise=True),
    nn.Conv1d: ClosedForm(add_conv, applies=_has_leading_dimensions(2)),
    nn.Conv2d: ClosedForm(add_conv, applies=_has_leading_dimensions(3)),
    nn.BatchNorm1d: ClosedForm(add_batch_norm, applies=_has_leading_dimensions(1)),
    nn.BatchNorm2d: ClosedForm(add_batch_norm),
    nn.BatchNorm3d: ClosedForm(add_batch_norm),
    nn.GroupNorm: ClosedForm(add_group_norm),
    nn.LayerNorm: ClosedForm(
        add_layer_norm, applies=lambda module, inputs: inputs.dim() > len(module.normalized_shape), pointwise=True
    ),
    # max_norm changes the weight as it is read, scale_grad_by_freq makes the gradient depend on the batch
    nn.Embedding: ClosedForm(
        add_embedding,
        ("weight",),
        lambda module, inputs: module.max_norm is None and not module.scale_grad_by_freq,
        pointwise=True,
    ),
}
"""Closed forms by layer type; a layer defined elsewhere adds itself."""

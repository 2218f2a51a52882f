"""The diagonal Fisher information and the importance of Memory Aware Synapses, exact per sample."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from avsi._arguments import as_number, check_count
from avsi.importance.per_sample import Cotangents, Objective, PerSampleSums
from avsi.importance.samples import check_labels, split_by_task, subset, unpack
from avsi.importance.state import undisturbed

Labels = Literal["empirical", "sampled", "exact", "predicted", "reversed", "gaussian"]
"""Which labels, or likelihood, a Fisher information is taken over; see :func:`fisher_diagonal`."""

WORKSPACE_BYTES = 64 * 2**20
MASK = -1000.0  # Avalanche's output of a class that was not seen


def fisher_diagonal(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    labels: Labels = "empirical",
    parameters: Iterable[str] | None = None,
    max_samples: int | None = None,
    seed: int = 0,
    workspace_bytes: int = WORKSPACE_BYTES,
) -> dict[str, Tensor]:
    """Compute the diagonal of the Fisher information matrix, as Elastic Weight Consolidation needs it.

    For a classifier with outputs f(x) and log-likelihood log p(y|x) = log softmax(f(x))_y::

        F_k = 1/N sum_n (d log p(y_n|x_n) / d theta_k)^2,

    the mean of the squares of per-sample gradients (Kirkpatrick et al. 2017; Schwarz et al. 2018, "Progress &
    Compress"). Squares of gradients of mini-batches are a different quantity. The result does not depend on how
    samples are batched. `labels` says what y_n is:

    - "empirical": the label in the data. "sampled": one label drawn from the model's own p(.|x_n). "exact": the mean is
      also taken over all labels under p(.|x_n), with one backward pass per class. Martens (2020), "New insights and
      perspectives on the natural gradient method", discusses the difference. The exact one is the diagonal of the
      generalised Gauss-Newton matrix; where outputs are piecewise linear in each weight (ReLU, max pooling, no weight
      in two layers) also that of the Hessian of the mean cross-entropy.
    - "predicted": the most likely label, argmax_c f(x_n)_c, as in FACIL (Masana et al. 2022) and Hsu et al. (2018).
    - "reversed": the label in the data, with log softmax(-f(x))_y in place of log softmax(f(x))_y: the "logits
      reversal" of EWC-DR (CVPR 2026), which does not vanish where the data are fit. There it is used with gradients of
      mini-batches, clipped. Outputs of -1000 and below take no part: so growing heads mask classes that were not
      seen, here and in Avalanche.
    - "gaussian": for regression. The likelihood is N(y; f(x), 1), whose Fisher information needs no labels:
      F_k = 1/N sum_n sum_o (d f_o(x_n) / d theta_k)^2, with one backward pass per output (Martens 2020).
      For noise of another variance divide by it.

    The model is evaluated in evaluation mode; its mode, gradients, buffers and the global random states are untouched
    afterwards. A parameter that none of the samples' outputs depends on, another task's head say, gets zeros.

    Args:
        model: Maps inputs (N, ...), or inputs and task labels, to outputs (N, classes), treating every sample by
            itself.
        batches: Yields (x, y) for `model(x)` or (x, y, task_labels) for `model(x, task_labels)`. Batches that hold
            several tasks are split, so that for each sample only its own task's outputs count. Gone through once.
            Only "empirical" and "reversed" look at y.
        labels: "empirical", "sampled", "exact", "predicted", "reversed" or "gaussian".
        parameters: Names of the parameters, as in `model.named_parameters()`; by default all that require gradients.
        max_samples: Use a random subset of that many samples, chosen uniformly while going through all batches. The
            choice does not depend on their size. Its samples are held in memory.
        seed: Seed of the drawn labels and of the subset.
        workspace_bytes: Bound on the memory for per-sample quantities, beyond what a forward and backward pass over one
            batch takes. At least what one sample needs is used.

    Returns:
        A tensor of the parameter's shape and type by parameter name. Sums are taken in float32 at least, also where the
        model enters autocast in its own forward pass. (The caller's autocast does not reach the model.)

    Raises:
        ValueError: If `labels` is none of these; also if there are no samples, names are unknown, labels or outputs are
            not valid, or a single output leaves a classifier no choice. Batches of another form and numbers that are
            not whole are a TypeError, and a model that mixes the samples of a batch or draws random numbers is a
            RuntimeError.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = nn.init.zeros_(model.weight)  # so p = 1/2, and F = p (1 - p) x^2
        >>> fisher_diagonal(model, [(torch.tensor([[2.0, 4.0]]), torch.tensor([0]))])
        {'weight': tensor([[1., 4.],
                [1., 4.]])}
    """
    if labels not in get_args(Labels):
        raise ValueError(f"labels must be one of {', '.join(get_args(Labels))}, got {labels!r}")
    objective = Objective(
        _COTANGENTS[labels],
        torch.square,
        targets_are_classes=labels in LABELS_OF_THE_DATA,
        needs_classes=labels != "gaussian",
    )
    return _means(model, batches, objective, labels, parameters, max_samples, seed, workspace_bytes)


def mas_importance(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    parameters: Iterable[str] | None = None,
    max_samples: int | None = None,
    seed: int = 0,
    workspace_bytes: int = WORKSPACE_BYTES,
) -> dict[str, Tensor]:
    """Compute the importance of Memory Aware Synapses (Aljundi et al. 2018).

    For outputs f(x)::

        M_k = 1/N sum_n | d ||f(x_n)||_2^2 / d theta_k |,

    with the absolute value taken per sample. Labels are ignored. In all else this is like `fisher_diagonal`.

    Args:
        model: Maps inputs (N, ...), or inputs and task labels, to outputs (N, classes), treating every sample by
            itself.
        batches: Yields (x, y) for `model(x)` or (x, y, task_labels) for `model(x, task_labels)`; y may be None.
        parameters: Names of the parameters, as in `model.named_parameters()`; by default all that require gradients.
        max_samples: Use a random subset of that many samples.
        seed: Seed of the subset.
        workspace_bytes: Bound on the memory for per-sample quantities.

    Returns:
        A tensor of the parameter's shape by parameter name.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.ones_(model.weight)  # f = 3, and M = |2 f x|
        >>> mas_importance(model, [(torch.tensor([[1.0, 2.0]]), None)])
        {'weight': tensor([[ 6., 12.]])}
    """
    objective = Objective(_squared_norm, torch.abs)
    return _means(model, batches, objective, "none", parameters, max_samples, seed, workspace_bytes)


def _means(
    model: nn.Module,
    batches: Iterable[Any],
    objective: Objective,
    labels: str,
    parameters: Iterable[str] | None,
    max_samples: int | None,
    seed: int,
    workspace_bytes: int,
) -> dict[str, Tensor]:
    workspace_bytes = check_count("workspace_bytes", workspace_bytes)
    if max_samples is not None:
        max_samples = check_count("max_samples", max_samples)
    if not isinstance(as_number(seed), int):
        raise TypeError(f"seed must be a whole number, got {seed!r}")
    selected = _select(model, parameters)
    check_layers(model)
    if not selected:
        return {}
    device = next(iter(selected.values())).device
    generator = torch.Generator().manual_seed(int(seed))
    if max_samples is not None:
        batches = subset(batches, max_samples, generator)
    with undisturbed(model, selected.values()):
        sums = PerSampleSums(model, selected, objective, workspace_bytes)
        for batch in batches:
            x, y, task = unpack(batch)
            targets = None
            if labels in LABELS_OF_THE_DATA:
                targets = check_labels(y, len(x), labels)
            elif labels == "sampled":
                targets = torch.rand(len(x), generator=generator)
            for part in split_by_task(x, targets, task, device):
                sums.add(part)
        return sums.means()


def _select(model: nn.Module, names: Iterable[str] | None) -> dict[str, nn.Parameter]:
    known = dict(model.named_parameters())
    if names is None:
        names = [name for name, parameter in known.items() if parameter.requires_grad]
    if isinstance(names, str):
        raise TypeError(f"parameters must be an iterable of names, got the string {names!r}; put it in a list")
    names = list(names)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"the model has no parameters named {', '.join(map(repr, unknown))}; it has {', '.join(known)}"
        )
    discrete = [name for name in names if not known[name].is_floating_point()]
    if discrete:
        raise ValueError(f"parameters must be real numbers to have gradients, {discrete[0]!r} is not")
    return {name: known[name] for name in names}


def check_layers(model: nn.Module) -> None:
    """Check that no layer keeps samples from having gradients of their own.

    Args:
        model: The model.

    Raises:
        ValueError: If one mixes the samples of a batch in evaluation mode, or changes its weights there.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            module.running_mean is None or module.running_var is None
        ):
            raise ValueError(
                f"{name!r}, a {type(module).__name__} without running statistics, mixes the samples of a batch even in "
                "evaluation mode, so there are no per-sample gradients; give it track_running_stats=True"
            )
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None:
            raise ValueError(
                f"{name!r}, an {type(module).__name__} with max_norm, changes its own weights as it is evaluated; "
                "renormalise them beforehand and set max_norm=None"
            )


def _scores(outputs: Tensor, labels: Tensor | None) -> Iterator[Tensor]:
    # derivative of log softmax(outputs)_labels with respect to the outputs
    assert labels is not None
    classes = torch.arange(outputs.shape[1], device=outputs.device)
    yield (labels.unsqueeze(1) == classes).to(outputs.dtype) - outputs.softmax(1)


def _sampled_scores(outputs: Tensor, uniform: Tensor | None) -> Iterator[Tensor]:
    # the same for labels drawn from the softmax, each by inverting its distribution function at a uniform number
    assert uniform is not None
    cumulative = outputs.softmax(1).cumsum(1)
    # scaled by the last entry, which rounding keeps from being 1: a class of probability 0 is never drawn
    drawn = (cumulative <= uniform.to(outputs.dtype).unsqueeze(1) * cumulative[:, -1:]).sum(1)
    return _scores(outputs, drawn)


def _expected_scores(outputs: Tensor, _: Tensor | None) -> Iterator[Tensor]:
    # the same for every label in turn, scaled so that the squares are weighted with the label's probability
    root = outputs.softmax(1).sqrt()
    for label in range(outputs.shape[1]):
        (score,) = _scores(outputs, torch.full_like(outputs[:, 0], label, dtype=torch.long))
        yield root[:, label : label + 1] * score


def _predicted_scores(outputs: Tensor, _: Tensor | None) -> Iterator[Tensor]:
    # the same for the most likely label
    return _scores(outputs, outputs.argmax(1))


def _reversed_scores(outputs: Tensor, labels: Tensor | None) -> Iterator[Tensor]:
    # derivative of log softmax(-outputs)_labels, where a mask would have all probability
    outputs = outputs.masked_fill(outputs <= MASK, torch.inf)
    for score in _scores(-outputs, labels):
        yield -score


def _unit_vectors(outputs: Tensor, _: Tensor | None) -> Iterator[Tensor]:
    # derivative of each output in turn: for independent y - f ~ N(0, 1), E[(J^T (y - f))^2] is the sum of their squares
    for output in range(outputs.shape[1]):
        vector = torch.zeros_like(outputs)
        vector[:, output] = 1
        yield vector


LABELS_OF_THE_DATA = ("empirical", "reversed")
_COTANGENTS: dict[str, Cotangents] = {
    "empirical": _scores,
    "sampled": _sampled_scores,
    "exact": _expected_scores,
    "predicted": _predicted_scores,
    "reversed": _reversed_scores,
    "gaussian": _unit_vectors,
}


def _squared_norm(outputs: Tensor, _: Tensor | None) -> Iterator[Tensor]:
    yield 2 * outputs

"""Batches of data: checked, split by task, thinned out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappush, heapreplace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avsi._arguments import as_number


class Batch(NamedTuple):
    """Samples that share a task.

    Attributes:
        inputs: (N, ...).
        targets: What the derivative is taken for: class indices (N,), uniform random numbers (N,), or None.
        task: What the model is called with besides the inputs: a tensor (N,) that holds one value, a number, or None.
        task_label: The same as a number.
    """

    inputs: Tensor
    targets: Tensor | None
    task: Tensor | int | None
    task_label: int | None

    def call(self, model: Any, inputs: Tensor | None = None) -> Any:
        """Call a model on these inputs, or on others of the same task.

        Args:
            model: A function of the inputs, or of inputs and task labels.
            inputs: Other inputs.

        Returns:
            What the model returns.
        """
        inputs = self.inputs if inputs is None else inputs
        torch.clear_autocast_cache()  # which may hold casts of weights as they were at an earlier call
        if self.task is None:
            return model(inputs)
        task = self.task[:1].expand(len(inputs)) if isinstance(self.task, Tensor) else self.task
        return model(inputs, task)

    def part(self, rows: slice) -> Batch:
        """Take some of the samples.

        Args:
            rows: Which.

        Returns:
            They; the whole batch itself, where they are all.
        """
        if rows.start == 0 and rows.stop >= len(self.inputs):
            return self
        targets = self.targets[rows] if self.targets is not None else None
        task = self.task[rows] if isinstance(self.task, Tensor) else self.task
        return Batch(self.inputs[rows], targets, task, self.task_label)


def unpack(batch: Any) -> tuple[Tensor, Any, Tensor | int | None]:
    """Check what an iterable of batches yields.

    Args:
        batch: Supposed to be (x, y) or (x, y, task_labels).

    Returns:
        Inputs, labels and task labels, or None for these.

    Raises:
        TypeError: If it is something else.
        ValueError: If the lengths disagree.
    """
    if not isinstance(batch, tuple | list) or len(batch) not in {2, 3}:
        length = f" of length {len(batch)}" if isinstance(batch, tuple | list) else ""
        raise TypeError(f"batches must yield (x, y) or (x, y, task_labels), got a {type(batch).__name__}{length}")
    x, y, task = (*batch, None)[:3]
    if not isinstance(x, Tensor) or x.dim() == 0:
        raise TypeError(f"the inputs of a batch must be a tensor with samples first, got {_describe(x)}")
    if isinstance(y, Tensor) and y.dim() > 0 and len(y) != len(x):
        raise ValueError(f"a batch holds {len(x)} inputs but {len(y)} labels")
    integers = "task labels must be integers, one per sample or one for all, got "
    if isinstance(task, list | tuple):
        labels = [as_number(label) for label in task]
        if not all(isinstance(label, int) for label in labels):
            raise TypeError(integers + _describe(task))
        task = torch.tensor(labels)
    elif isinstance(task, Tensor) and task.dim() > 0:
        if task.is_floating_point() or task.dim() > 1:
            raise TypeError(integers + _describe(task))
    elif task is not None:
        number = as_number(task)
        if not isinstance(number, int):
            raise TypeError(integers + _describe(task))
        task = number
    if isinstance(task, Tensor) and len(task) != len(x):
        raise ValueError(f"a batch holds {len(x)} inputs but {len(task)} task labels")
    return x, y, task


def check_outputs(outputs: Any, samples: int) -> Tensor:
    """Check that outputs are one row for each sample.

    Args:
        outputs: What a model returned.
        samples: For how many samples.

    Returns:
        The outputs, (N, classes).

    Raises:
        ValueError: If they are anything else.
    """
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or len(outputs) != samples:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"the model must return outputs of shape ({samples}, classes), got {shape}")
    return outputs


def check_classes(outputs: Tensor, where: str) -> None:
    """Check that outputs are those of a classifier that has a choice.

    Args:
        outputs: (N, classes).
        where: Where they come from, for the error.

    Raises:
        ValueError: If there is one class.
    """
    if outputs.shape[1:] == (1,):
        raise ValueError(
            f"the model has a single output {where}, and a softmax over one class is always 1, so its Fisher "
            'information is 0. For regression choose labels="gaussian"; a binary classifier with one logit z is '
            "the same as one with the two outputs (0, z)"
        )


def check_labels(y: Any, samples: int, labels: str) -> Tensor:
    """Check class indices; their range is checked when the number of classes is known.

    Args:
        y: The labels of a batch.
        samples: How many there should be.
        labels: The kind of Fisher information that needs them.

    Returns:
        The labels.

    Raises:
        TypeError: If they are not integers.
        ValueError: If there is not one per sample.
    """
    if not isinstance(y, Tensor) or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise TypeError(
            f'labels="{labels}" needs class indices as an integer tensor, got {_describe(y)}; for regression choose '
            'labels="gaussian"; convert one-hot labels with argmax(1), or choose "sampled" or "exact", which need none'
        )
    if y.shape != (samples,):
        raise ValueError(f"labels must have shape ({samples},), one class index per sample, got {tuple(y.shape)}")
    return y


def _describe(value: Any) -> str:
    return f"a tensor of {value.dtype}, shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.80}"


def split_by_task(
    x: Tensor, targets: Tensor | None, task: Tensor | int | None, device: torch.device
) -> Iterator[Batch]:
    """Split a batch so that every part holds a single task, and move it to a device.

    Args:
        x: Inputs.
        targets: What belongs to them.
        task: Task labels.
        device: Where to move everything.

    Yields:
        One batch per task.
    """
    if isinstance(task, Tensor) and len(task) > 0:
        for label in task.unique().tolist():
            rows = (task == label).nonzero().squeeze(1)
            part = rows if len(rows) < len(task) else None
            yield Batch(_rows(x, part, device), _rows(targets, part, device), _rows(task, part, device), label)
    elif not isinstance(task, Tensor) and len(x) > 0:
        yield Batch(_rows(x, None, device), _rows(targets, None, device), task, task)


def _rows(value: Any, rows: Tensor | None, device: torch.device) -> Any:
    if not isinstance(value, Tensor):
        return value
    if value.is_inference():  # such tensors cannot be saved for a backward pass
        value = value.clone()
    value = value.detach() if rows is None else value.detach()[rows.to(value.device)]
    return value.to(device, non_blocking=True)


def subset(batches: Iterable[Any], max_samples: int, generator: torch.Generator) -> Iterator[Any]:
    """Choose samples uniformly at random, without replacement, from batches of unknown number, in one pass.

    Every sample draws a random key, in the order of the data, and the `max_samples` smallest keys are kept. So the
    choice depends on the seed and the order of the samples, not on how they were batched. The chosen samples are
    copied and held until the pass ends.

    Args:
        batches: Yields (x, y) or (x, y, task_labels).
        max_samples: How many samples to keep.
        generator: Source of the keys.

    Yields:
        The chosen samples in their original order, in batches of the original size.
    """
    kept: list[tuple[float, int, tuple[Any, ...]]] = []  # a heap, the largest key first
    seen = size = 0
    for batch in batches:
        x, y, task = unpack(batch)
        size = max(size, len(x))
        for row, key in enumerate(torch.rand(len(x), generator=generator, dtype=torch.float64).tolist()):
            if len(kept) < max_samples:
                heappush(kept, (-key, seen + row, _sample(row, x, y, task)))
            elif key < -kept[0][0]:
                heapreplace(kept, (-key, seen + row, _sample(row, x, y, task)))
        seen += len(x)
    run: list[tuple[Any, ...]] = []
    for _, _, sample in sorted(kept, key=lambda entry: entry[1]):
        if run and (len(run) == size or not _stackable(sample, run[0])):
            yield _stack(run)
            run = []
        run.append(sample)
    if run:
        yield _stack(run)


def _sample(row: int, *values: Any) -> tuple[Any, ...]:
    return tuple(v[row].clone() if isinstance(v, Tensor) and v.dim() else v for v in values)


def _stackable(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return one[0].shape == other[0].shape and (isinstance(one[2], Tensor) or one[2] == other[2])


def _stack(samples: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    columns = zip(*samples, strict=True)
    return tuple(torch.stack(column) if isinstance(column[0], Tensor) else column[0] for column in columns)

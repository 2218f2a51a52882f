"""Multi-head output layer: one head per task, each with just its task's classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from avalanche.models import MultiTaskModule
from torch import Tensor, nn

from avsi._arguments import as_number, check_count
from avsi.hebbian import TakesTargets, show_targets
from avsi.importance.estimators import MASK


class MultiHead(TakesTargets, MultiTaskModule):
    """One output layer per task label, sized by the task's classes (labels from 0 within each task).

    Heads appear when Avalanche adapts the model to an experience, in training and in evaluation, and grow if a later
    experience of the same task brings higher labels (old outputs keep their weights). ``load_state_dict`` adds and
    grows them too: load before an optimizer is made of the parameters.

    Args:
        in_features: Size of the features, at least 1.
        head: Builds one head, called as ``head(in_features, number_of_classes)``; ``nn.Linear``, ``DHPLinear``,
            ``MatchedLinear``, or anything that maps (N, in_features) to (N, classes) and keeps classes in the first
            dimension of its parameters and buffers (what has no dimensions is kept as it is).

    Raises:
        ValueError: If ``in_features`` is not positive.
        TypeError: If it is no whole number.

    Examples:
        >>> import torch
        >>> heads = MultiHead(16)
        >>> heads.resize(task=0, classes=2)  # in Avalanche a strategy does it
        >>> heads.resize(task=1, classes=3)
        >>> h = torch.rand(4, 16)
        >>> heads(h, 0).shape
        torch.Size([4, 2])
        >>> logits = heads(h, torch.tensor([0, 0, 1, 1]))  # a batch of both tasks
        >>> logits.shape, logits.softmax(1)[:2, 2].tolist()  # task 0 has no class 2
        (torch.Size([4, 3]), [0.0, 0.0])
    """

    def __init__(self, in_features: int, head: Callable[[int, int], nn.Module] = nn.Linear) -> None:
        super().__init__()
        self.in_features = check_count("in_features", in_features)
        self.head = head
        self.heads = nn.ModuleDict()
        self._classes: dict[str, int] = {}  # as wanted; a head's parameters tell where it has no hidden layers
        # Where new heads go: a module without parameters has no device of its own.
        self.register_buffer("_placement", torch.empty(0), persistent=False)
        self._placement: Tensor

    def adaptation(self, experience: Any) -> None:
        """Add or grow the heads of the experience's tasks.

        Args:
            experience: An Avalanche experience with task labels and class labels from 0 within each task.
        """
        super().adaptation(experience)
        tasks = sorted({int(task) for task in experience.task_labels})
        for task in tasks:
            classes = experience.classes_in_this_experience
            if len(tasks) > 1:
                classes = experience.dataset.task_set[task].targets.uniques
            self.resize(task, int(max(classes)) + 1)

    @torch.no_grad()
    def resize(self, task: int, classes: int) -> None:
        """Make sure that a task's head has at least so many outputs.

        Args:
            task: The task label.
            classes: The number of classes wanted.

        Raises:
            TypeError: If the task or the number of classes is no whole number. One below 1 is a ValueError, and so is
                a head with hidden layers that would have to grow.
        """
        number = as_number(task)
        if not isinstance(number, int):
            raise TypeError(f"a task label must be a whole number, got {task!r}")
        key, classes = str(number), check_count("classes", classes)
        old = self.heads[key] if key in self.heads else None  # noqa: SIM401 (ModuleDict has no get)
        if old is not None:
            known = self._classes.get(key, number_of_classes(old))
            if known >= classes:
                return
            check_rows(old, known)
        new = self.head(self.in_features, classes).to(self._placement).train(self.training)
        self._classes[key] = classes
        if old is not None:
            keep_old_classes(old, new)
        self.heads[key] = new

    def forward(
        self, x: Tensor, task_labels: Tensor | int | None, targets: Tensor | None = None
    ) -> Tensor | dict[int, Tensor]:
        """Compute each sample's outputs with the head of its task.

        Args:
            x: Features, (N, in_features).
            task_labels: Task label of each sample, (N,); one label for all; or None for every head's output.
            targets: Class of each sample within its task, (N,), for heads that take targets in training, such as
                ``DHPLinear``. Each head gets those of its own samples; with ``task_labels=None`` no head gets any.
                Default: what ``avsi.hebbian.show_targets`` or a plugin shows.

        Returns:
            Logits, (N, classes): exactly the task's classes where the batch holds one task. A batch of several tasks
            has as many columns as its largest head, and the columns that a sample's task lacks hold -1000, as in
            Avalanche's heads, so that they get probability 0. With ``task_labels=None`` a dict by task.

        Raises:
            ValueError: If there is not one target or task label per sample, or the batch is empty and holds no label.
            TypeError: If one label for all is no whole number.
        """
        if task_labels is None:
            return {int(key): head(x) for key, head in self.heads.items()}
        targets = self.shown_targets if targets is None else targets
        if not isinstance(task_labels, Tensor) or task_labels.dim() == 0:  # a number of any library
            if int(task_labels) != task_labels:
                raise TypeError(f"a task label must be a whole number, got {task_labels!r}")
            return self.forward_single_task(x, int(task_labels), targets)
        if len(task_labels) != len(x):
            raise ValueError(f"there must be one task label for each of {len(x)} samples, got {len(task_labels)}")
        if not len(task_labels):
            raise ValueError("the batch is empty, so no task's head can be chosen; leave out batches without samples")
        first, last = (int(bound) for bound in torch.aminmax(task_labels))
        if first == last:
            return self.forward_single_task(x, first, targets)
        tasks = torch.unique(task_labels).tolist()
        if targets is not None and targets.shape != task_labels.shape:
            raise ValueError(
                f"targets must have shape ({len(task_labels)},), one class index per sample, got {tuple(targets.shape)}"
            )
        masks = [task_labels == task for task in tasks]
        outputs = [
            self.forward_single_task(x[mask], task, None if targets is None else targets[mask])
            for task, mask in zip(tasks, masks, strict=True)
        ]
        width = max(output.shape[1] for output in outputs)
        joined = outputs[0].new_full((len(x), width), MASK)
        for mask, output in zip(masks, outputs, strict=True):
            joined[mask, : output.shape[1]] = output
        return joined

    def forward_single_task(self, x: Tensor, task_label: int, targets: Tensor | None = None) -> Tensor:
        """Compute the outputs of one task's head.

        Args:
            x: Features, (N, in_features).
            task_label: The task label.
            targets: Class of each sample, (N,), for a head that takes them.

        Returns:
            Logits, (N, classes of the task).

        Raises:
            KeyError: If the task has no head yet.
        """
        key = str(int(task_label))
        if key not in self.heads:
            raise KeyError(
                f"no head for task {key}; known tasks: {', '.join(self.heads) or 'none'}. Heads are added when a "
                "strategy trains or evaluates on the task's experience, or by avalanche_model_adaptation"
            )
        return call_with_targets(self.heads[key], x, targets)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The state of other heads: add and grow to them, or what follows would refuse it.
        start = f"{prefix}heads."
        states: dict[str, dict[str, Tensor]] = {}
        for key, value in state_dict.items():
            if key.startswith(start):
                task, _, name = key[len(start) :].partition(".")
                states.setdefault(task, {})[name] = value
        for task, state in states.items():
            classes = self._count_classes(state)
            if task.lstrip("-").isdecimal() and classes is not None:
                self.resize(int(task), classes)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _count_classes(self, state: Mapping[str, Tensor]) -> int | None:
        # Read where heads of two and of three classes differ; None where the state has nothing there.
        with torch.random.fork_rng(devices=[]):
            two, three = (self.head(self.in_features, classes).state_dict() for classes in (2, 3))
        for name, tensor in two.items():
            for axis, (low, high) in enumerate(zip(tensor.shape, three[name].shape, strict=True)):
                if high == low + 1 and name in state and state[name].dim() == tensor.dim():
                    return state[name].shape[axis] - low + 2
        return None


def call_with_targets(module: nn.Module, x: Tensor, targets: Tensor | None) -> Tensor:
    """Call a module, and let what takes targets within it have them.

    Args:
        module: A module of one input.
        x: The input.
        targets: Class of each sample, (N,), or None.

    Returns:
        The output.
    """
    if targets is None:
        return module(x)
    with show_targets(module, targets):
        return module(x)


def check_rows(head: nn.Module, classes: int) -> None:
    """Check that a head keeps its classes in the first dimension of its parameters, as heads that grow must.

    Args:
        head: The head.
        classes: Its number of classes.

    Raises:
        ValueError: If it does not.
    """
    rows = number_of_classes(head)
    if rows != classes:
        raise ValueError(
            f"a head that grows must have its classes in the first dimension of its parameters: of {classes} classes, "
            f"{type(head).__name__}'s first parameter has {rows} rows. Hidden layers belong to the features"
        )


def number_of_classes(head: nn.Module) -> int:
    """Read the number of outputs of a head.

    Args:
        head: A head whose parameters keep classes in their first dimension.

    Returns:
        The size of its first parameter's first dimension.
    """
    return next(head.parameters()).shape[0]


@torch.no_grad()
def keep_old_classes(old: nn.Module, new: nn.Module) -> None:
    """Carry a head over into a larger one: parameters and buffers of the old classes, and which of them are frozen.

    Args:
        old: The head as it was.
        new: A head with more classes, changed in place.
    """
    fresh = new.state_dict()
    for name, kept in old.state_dict().items():
        fresh[name][tuple(slice(size) for size in kept.shape)] = kept
    for before, after in zip(old.parameters(), new.parameters(), strict=True):
        after.requires_grad_(before.requires_grad)
    if isinstance(old, TakesTargets) and isinstance(new, TakesTargets):
        new.label_source = old.label_source

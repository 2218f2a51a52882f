"""Samples of Avalanche's data sets as whole tensors: where each one's image is, its label and further fields."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain
from typing import Any, Literal

import numpy as np
import torch
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.data import _FlatDataWithTransform
from avalanche.benchmarks.utils.flat_data import ConstantSequence, FlatData
from avalanche.benchmarks.utils.transforms import MultiParamCompose, TupleTransform
from torch import Tensor, nn
from torch.utils.data.dataloader import default_collate
from torchvision import transforms as v1
from torchvision.transforms import v2

from avsi._generators import generators_of, set_state, state_of
from avsi.data.dataset import BatchTransform, ImageDataset
from avsi.data.imageset import check_whole
from avsi.data.transforms import Transform

Place = Callable[[Tensor], Tensor]
"""Maps an image tensor to the one to index in its stead, a copy on another device for instance."""

Augment = Literal["image", "batch"]
"""Whether a transform not known to map each image alone is applied to each image or to a whole batch."""

Steps = tuple[Callable[[Any], Any], ...]
"""Transforms, first to last."""

SEPARABLE = frozenset(
    {
        nn.Identity,
        *(v1.CenterCrop, v1.ConvertImageDtype, v1.Grayscale, v1.Normalize, v1.Pad, v1.Resize),
        *(v2.CenterCrop, v2.ConvertImageDtype, v2.Grayscale, v2.Identity, v2.Normalize, v2.Pad, v2.Resize),
        *(v2.RGB, v2.ToDtype),
    }
)
"""torchvision's transforms that map each image of a batch by itself and draw no random numbers."""


class NotInMemoryError(Exception):
    """A loader's batches cannot be had by indexing tensors; the message says why."""


@dataclass(frozen=True)
class Origin:
    """Where the inputs of some samples come from.

    Attributes:
        images: Image tensor.
        transform: Applied to whole batches of its rows.
        steps: Applied to what comes out, one after the other and image by image; empty where ``transform`` does it all.
    """

    images: Tensor
    transform: BatchTransform
    steps: Steps = ()

    def read(self, rows: Tensor) -> Tensor:
        """Read images, but for what is done to each one.

        Args:
            rows: Rows of the image tensor, (n,).

        Returns:
            Inputs before ``steps``, (n, ...).
        """
        return self.transform(self.images.index_select(0, rows))

    def finish(self, image: Tensor) -> Any:
        """Do to one image what is done to each one.

        Args:
            image: What :meth:`read` gave for it.

        Returns:
            Its input.
        """
        for step in self.steps:
            image = step(image)
        return image

    @classmethod
    def of(cls, leaf: ImageDataset, steps: Steps, place: Place, augment: Augment) -> Origin:
        """Find out how the samples of a data set can be had.

        Args:
            leaf: The data set.
            steps: What transformation groups do to its samples.
            place: Says which tensor to index for an image tensor.
            augment: See :class:`InMemoryBatches`.

        Returns:
            Their origin.

        Raises:
            NotInMemoryError: If the data set's own transform cannot be applied to whole batches.
        """
        check_whole(leaf.images)
        origin = cls(place(leaf.images), leaf.transform, steps)
        rows = leaf.rows[:2] if len(leaf) > 1 else torch.arange(min(2, len(leaf.images)))
        few = origin.images.index_select(0, rows.to(origin.images.device))
        # A darker one: images mostly share their brightest value, so that what is done by it would not show.
        few = torch.cat([few, (few[-1:] / 2).to(few.dtype)])
        if problem := _batch_problem(leaf.transform, few, lambda image: leaf.transform(image[None])[0]):
            raise NotInMemoryError(f"its transform {problem}: {leaf.transform!r}")
        if not steps:
            return origin
        together = partial(_apply, (leaf.transform, *steps))
        if augment == "batch":
            return cls(origin.images, together)
        # By their types: that a function looks at one image alone cannot be found out by trying it on some.
        if not all(map(is_separable, steps)):
            return origin
        try:
            problem = _batch_problem(together, few, lambda image: origin.finish(leaf.transform(image[None])[0]))
        except Exception:  # it fails for these images, and is to fail where it is applied
            return origin
        return origin if problem else cls(origin.images, together)


@dataclass(frozen=True)
class Samples:
    """Samples as tensors: where each one's image is, and its label and further fields.

    Attributes:
        sources: Where images come from.
        source: Position of each sample's source, (N,); empty where there is only one.
        rows: Row of each sample's image in its source, (N,).
        fields: Labels, then what Avalanche appends to each sample (its task label), (N,) each.
    """

    sources: list[Origin]
    source: Tensor
    rows: Tensor
    fields: list[Tensor]

    @classmethod
    def of(cls, datasets: Sequence[Any], place: Place, augment: Augment = "image") -> Samples:
        """Look through Avalanche's wrappers at the samples of data sets, one after the other.

        Args:
            datasets: The data sets.
            place: Says which tensor to index for an image tensor.
            augment: See :class:`InMemoryBatches`.

        Returns:
            The samples.

        Raises:
            NotInMemoryError: If some of them are not rows of an ``ImageDataset``.
        """
        found, leaf, index = _concatenate([_samples(data) for data in datasets])
        attributes = [_attributes(data) for data in datasets]
        if len({tuple(names) for names in attributes}) > 1:
            raise NotInMemoryError(
                f"its data sets append different fields to a sample: {[list(a) for a in attributes]}"
            )
        sources: dict[tuple[int, ...], Origin] = {}
        source_of_leaf = []
        for data, steps in found:
            if not isinstance(data, ImageDataset) or type(data).__getitem__ is not ImageDataset.__getitem__:
                raise NotInMemoryError(f"{type(data).__name__} is not an ImageDataset")
            # By identity: tensors and transforms need not be comparable.
            key = id(data.images), id(data.transform), *map(id, steps)
            if key not in sources:
                sources[key] = Origin.of(data, steps, place, augment)
            source_of_leaf.append(list(sources).index(key))
        leaves = [data for data, _ in found]
        offset = torch.tensor([0, *accumulate(len(data) for data in leaves)])
        samples = offset[leaf] + index
        return cls(
            list(sources.values()),
            torch.tensor(source_of_leaf)[leaf] if len(sources) > 1 else torch.empty(0, dtype=torch.int64),
            torch.cat([data.rows for data in leaves])[samples],
            [
                torch.cat([data.labels for data in leaves])[samples].to(torch.int64),
                *(torch.cat([values[name] for values in attributes]) for name in attributes[0]),
            ],
        )

    def batches(self, order: Tensor, size: int) -> Iterator[list[Tensor]]:
        """Read samples in batches.

        Args:
            order: Positions of the samples, (n,).
            size: Samples per batch; the last one may be smaller.

        Yields:
            x, labels and further fields, on the images' device.
        """
        device = self.sources[0].images.device
        # Everything but the images is small: it is put in order and moved once, and cut into views.
        columns = [values[order].to(device).split(size) for values in (self.rows, *self.fields)]
        if len(self.sources) == 1:
            origin = self.sources[0]
            for rows, *fields in zip(*columns, strict=True):
                inputs = origin.read(rows)
                yield [default_collate([*map(origin.finish, inputs)]) if origin.steps else inputs, *fields]
        else:
            for source, rows, *fields in zip(self.source[order].split(size), *columns, strict=True):
                yield [self._gather(source, rows), *fields]

    def _gather(self, source: Tensor, rows: Tensor) -> Tensor:
        order = source.argsort(stable=True)
        counts = source.bincount(minlength=len(self.sources)).tolist()
        order = order.to(rows.device)
        parts = [
            origin.read(part) for origin, part in zip(self.sources, rows[order].split(counts), strict=True) if len(part)
        ]
        if any(origin.steps for origin in self.sources):
            # Random numbers are drawn in the order of the samples.
            images = dict(zip(order.tolist(), chain.from_iterable(parts), strict=True))
            return default_collate([self.sources[s].finish(images[n]) for n, s in enumerate(source.tolist())])
        if len(parts) == 1:
            return parts[0]
        grouped = torch.cat(parts)
        return torch.empty_like(grouped).index_copy_(0, order, grouped)


Leaves = tuple[list[tuple[Any, Steps]], Tensor, Tensor]
"""Innermost data sets or sequences, each with what is done to its samples on the way out; for each sample, which of
them holds it (N,), and where in there (N,)."""


def _samples(data: Any) -> Leaves:
    if isinstance(data, AvalancheDataset):
        if type(data).__getitem__ is not AvalancheDataset.__getitem__:
            raise NotInMemoryError(f"{type(data).__name__} makes its samples in a way of its own")
        return _flatten(data._flat_data)
    return _flatten(data)


def _flatten(data: Any, group: str | None = None) -> Leaves:
    # Looks through subsets and concatenations. A transformation group is handed down from parent to child.
    if not isinstance(data, FlatData):
        return [(data, ())], torch.zeros(len(data), dtype=torch.int64), torch.arange(len(data))
    if type(data).__getitem__ not in (FlatData.__getitem__, _FlatDataWithTransform.__getitem__):
        raise NotInMemoryError(f"{type(data).__name__} makes its samples in a way of its own")
    steps: Steps = ()
    if isinstance(data, _FlatDataWithTransform):
        group = group or data._transform_groups.current_group
        for groups in (data._frozen_transform_groups, data._transform_groups):
            steps += _steps(groups.transform_groups[group], group)
    else:
        group = None
    leaves, leaf, index = _concatenate([_flatten(part, group) for part in data._datasets])
    leaves = [(data, (*inner, *steps)) for data, inner in leaves]
    if data._indices is not None:
        chosen = torch.from_numpy(np.array(list(data._indices), dtype=np.int64))
        leaf, index = leaf[chosen], index[chosen]
    return leaves, leaf, index


def _steps(transform: Any, group: str) -> Steps:
    # What a transformation group does to x, if it leaves the rest of a sample alone.
    if transform is None:
        return ()
    if type(transform) is MultiParamCompose:
        return tuple(step for part in transform.transforms for step in _steps(part, group))
    if type(transform) is not TupleTransform or any(part is not None for part in transform.transforms[1:]):
        raise NotInMemoryError(f"a transformation of group {group!r} works on more than its samples' x: {transform}")
    return tuple(part for part in transform.transforms[:1] if part is not None)


def _concatenate(parts: Sequence[Leaves]) -> Leaves:
    if len(parts) == 1:  # the usual case, without a copy
        return parts[0]
    offsets = accumulate((len(leaves) for leaves, _, _ in parts), initial=0)
    return (
        [leaf for leaves, _, _ in parts for leaf in leaves],
        torch.cat([leaf + offset for offset, (_, leaf, _) in zip(offsets, parts, strict=False)]),
        torch.cat([index for _, _, index in parts]),
    )


def _attributes(data: Any) -> dict[str, Tensor]:
    # What Avalanche appends to each sample, by name, in its order.
    if not isinstance(data, AvalancheDataset):
        return {}
    return {a.name: integers(a) for a in data._data_attributes.values() if a.use_in_getitem}


def integers(attribute: Any) -> Tensor:
    """Read all values of a data set's attribute, such as its targets, at once.

    Args:
        attribute: Avalanche's ``DataAttribute``.

    Returns:
        The values, (N,).

    Raises:
        NotInMemoryError: If they are not integers.
    """
    leaves, leaf, index = _flatten(attribute.data)
    parts = []
    for sequence, _ in leaves:
        # A constant sequence is read once, however long it is.
        read = [sequence[0]] if isinstance(sequence, ConstantSequence) and len(sequence) else list(sequence)
        values = np.array(read)
        if len(values) and not np.issubdtype(values.dtype, np.signedinteger):
            raise NotInMemoryError(f"its samples' field {attribute.name!r} holds {values.dtype}, not integers")
        part = torch.from_numpy(values.astype(np.int64))
        parts.append(part.expand(len(sequence)) if isinstance(sequence, ConstantSequence) else part)
    offset = torch.tensor([0, *accumulate(len(part) for part in parts)])
    return torch.cat(parts)[offset[leaf] + index]


def is_separable(transform: Any) -> bool:
    """Say whether a transform is known to map each image of a batch by itself, without random numbers.

    Args:
        transform: The transform.

    Returns:
        Whether it is one of :data:`SEPARABLE` or of avsi's own, or torchvision's composition of such.
    """
    if type(transform) in (v1.Compose, v2.Compose):
        return all(map(is_separable, transform.transforms))
    return isinstance(transform, Transform) or type(transform) in SEPARABLE


def _apply(steps: Sequence[Callable[[Tensor], Tensor]], images: Tensor) -> Tensor:
    for step in steps:
        images = step(images)
    return images


def _batch_problem(transform: BatchTransform, few: Tensor, of_one: Callable[[Tensor], Any]) -> str:
    # Tries the transform on a few images: it must do to a batch what is done to each image, and draw no random numbers.
    own = generators_of(transform)
    before = _random_states(few.device), [*map(state_of, own)]
    try:
        batch, single = transform(few), default_collate([*map(of_one, few)])
        drew = (_random_states(few.device), [*map(state_of, own)]) != before
    finally:
        _restore(before[0], few.device)
        for generator, state in zip(own, before[1], strict=True):
            set_state(generator, state)
    if drew:
        return "draws random numbers"
    return "" if torch.equal(batch, single) else "gives an image another value in a batch than alone"


def _random_states(device: torch.device) -> tuple[Any, ...]:
    numpy = np.random.get_state(legacy=False)
    cuda = torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else b""
    return torch.get_rng_state().numpy().tobytes(), cuda, random.getstate(), pickle.dumps(numpy)


def _restore(states: tuple[Any, ...], device: torch.device) -> None:
    cpu, cuda, python, numpy = states
    torch.set_rng_state(torch.frombuffer(bytearray(cpu), dtype=torch.uint8))
    if cuda:
        torch.cuda.set_rng_state(torch.frombuffer(bytearray(cuda), dtype=torch.uint8), device)
    random.setstate(python)
    np.random.set_state(pickle.loads(numpy))

"""Batches for Avalanche strategies by indexing whole tensors, in place of one Python call per sample."""

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
from avalanche.benchmarks.utils.data_loader import (
    GroupBalancedDataLoader,
    MultiDatasetDataLoader,
    MultiDatasetSampler,
    SingleDatasetDataLoader,
    TaskBalancedDataLoader,
)
from avalanche.benchmarks.utils.flat_data import ConstantSequence, FlatData
from avalanche.benchmarks.utils.transforms import MultiParamCompose, TupleTransform
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data.dataloader import default_collate

from avsi._arguments import check_flag
from avsi._generators import generators_of, set_state, state_of
from avsi.data.dataset import BatchTransform, ImageDataset
from avsi.data.imageset import check_whole

Place = Callable[[Tensor], Tensor]
"""Maps an image tensor to the one to index in its stead, a copy on another device for instance."""

Augment = Literal["image", "batch"]
"""Whether a transform that draws random numbers is applied to each image or to a whole batch."""

Steps = tuple[Callable[[Any], Any], ...]
"""Transforms, first to last."""

LOADERS = (DataLoader, SingleDatasetDataLoader, GroupBalancedDataLoader, TaskBalancedDataLoader)
"""Loaders whose batches can be made in memory; a subclass may do anything, so only these very classes."""


class NotInMemoryError(Exception):
    """A loader's batches cannot be had by indexing tensors; the message says why."""


class InMemoryBatches(SupervisedPlugin):
    """Feeds a strategy, in training and evaluation, by indexing image tensors batch by batch.

    Wherever the loader that the strategy made reads :class:`~avsi.data.dataset.ImageDataset` rows alone, be it through
    subsets, concatenations and transformation groups, that loader is replaced by one that yields the same batches
    (x, y, task labels), in the same order, and draws the same random numbers: training is bit-identical with the plugin
    and without. Every other loader is left as it is: replay, other data sets and collate functions, transformations of
    labels, worker processes, distributed sampling. The order of plugins does not matter.

    Transformation groups are Avalanche's way to augment training data (``train_transform`` of our builders, and of its
    own); torchvision's v2 transforms are the usual choice. One that maps each image alone and draws no random numbers
    is applied to whole batches. One that draws is applied image by image, as without the plugin: each image is cropped
    or flipped in a way of its own. That takes as long as torchvision takes for single images. With
    ``augment="batch"`` it is applied to whole batches, which is about 17 times as fast, but torchvision's own
    transforms then draw once for all images of a batch; it is also the way to use functions that make draws for each
    image of a batch themselves.

    Args:
        on_device: Whether to copy image tensors to the strategy's device, once, and index them there. Transforms
            must then take tensors on that device.
        augment: Whether transforms that draw random numbers are applied to each "image" or to a whole "batch".

    Attributes:
        reason: Why the last loader seen was left as it is; empty where its batches are made in memory.

    Raises:
        ValueError: If ``augment`` is neither of the two.
        TypeError: If ``on_device`` is not True or False.

    Examples:
        >>> import torch
        >>> from avalanche.training import Naive
        >>> from avsi.models import MLP, MultiHead
        >>> from avsi.scenarios import split_digits
        >>> model, batches = MLP(64, (16,), MultiHead), InMemoryBatches()
        >>> strategy = Naive(
        ...     model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), train_mb_size=32,
        ...     plugins=[batches], evaluator=None,
        ... )
        >>> metrics = strategy.train(split_digits().train_stream[0])
        >>> batches.reason  # none: batches were made in memory
        ''
    """

    def __init__(self, *, on_device: bool = False, augment: Augment = "image") -> None:
        super().__init__()
        self.supports_distributed = True  # by standing aside
        self.on_device = check_flag("on_device", on_device)
        if augment not in ("image", "batch"):
            raise ValueError(f'augment must be "image" or "batch", got {augment!r}')
        self.augment = augment
        self.reason = ""
        # By identity; the key's tensor is kept, so that no other one takes over its identity.
        self._copies: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # In a copy or another process the images may be other objects, and others may have their identities.
        return vars(self) | {"_copies": {}}

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Replace the training loader, now that every plugin has had its chance to set one.

        Args:
            strategy: The strategy.
        """
        self._replace(strategy)

    def before_eval_exp(self, strategy: Any, **_: Any) -> None:
        """Replace the evaluation loader.

        Args:
            strategy: The strategy.
        """
        self._replace(strategy)

    def in_order(self, data: Any, batch_size: int, device: torch.device | str = "cpu") -> Loader:
        """Read a data set once through, as :func:`batches_in_order` does, from the images this plugin holds.

        Args:
            data: The data set.
            batch_size: Samples per batch.
            device: The strategy's device.

        Returns:
            The batches.
        """
        return batches_in_order(data, batch_size, self._place(torch.device(device)), self.augment)

    def _replace(self, strategy: Any) -> None:
        if isinstance(strategy.dataloader, InMemoryLoader):
            return
        try:
            strategy.dataloader = InMemoryLoader(strategy.dataloader, self._place(strategy.device), self.augment)
            self.reason = ""
        except NotInMemoryError as stands_aside:
            self.reason = str(stands_aside)

    def _place(self, device: torch.device) -> Place:
        def place(images: Tensor) -> Tensor:
            if not self.on_device:
                return images
            key = (id(images), device)
            if key not in self._copies:
                self._copies[key] = images, images.to(device)
            return self._copies[key][1]

        return place


def batches_in_order(data: Any, batch_size: int, place: Place | None = None, augment: Augment = "image") -> Loader:
    """Read a data set once through in its own order, without touching the global random state.

    Args:
        data: An Avalanche data set, or any other that a ``DataLoader`` takes.
        batch_size: Samples per batch.
        place: Says which tensor to index for an image tensor; default: that tensor itself.
        augment: See :class:`InMemoryBatches`.

    Returns:
        Batches as Avalanche's evaluation gives them, with a length: made in memory where the data allow it, else by a
        ``DataLoader``.
    """
    # A generator of its own: a DataLoader draws a seed from the global one even if it does not shuffle.
    collate = getattr(data, "collate_fn", None)
    loader = DataLoader(data, batch_size, collate_fn=collate, generator=torch.Generator())
    try:
        return InMemoryLoader(loader, place, augment)
    except NotInMemoryError:
        return loader


class InMemoryLoader:
    """Yields the batches of another loader, made by indexing image tensors.

    Every pass draws from the random generators what a pass over the other loader would draw, at the same moments.

    Args:
        loader: A torch or Avalanche loader over :class:`~avsi.data.dataset.ImageDataset` rows.
        place: Says which tensor to index for an image tensor; default: that tensor itself.
        augment: See :class:`InMemoryBatches`.

    Raises:
        NotInMemoryError: If the loader's batches cannot be had that way.
    """

    def __init__(self, loader: Any, place: Place | None = None, augment: Augment = "image") -> None:
        self.loader = loader
        self.samples = Samples.of(_datasets(loader), place or (lambda images: images), augment)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[Tensor]]:
        # Private, but the one place that says how Avalanche samples from its data sets.
        multiple = isinstance(self.loader, MultiDatasetDataLoader)
        loader = self.loader._get_loader() if multiple else self.loader
        torch.empty((), dtype=torch.int64).random_(generator=loader.generator)  # a DataLoader's seed for its workers
        single = _single_sampler(loader.batch_sampler)
        if single is None:
            for indices in loader.batch_sampler:
                yield from self.samples.batches(torch.tensor(indices), len(indices))
            return
        order = _order(single.sampler)
        if single.drop_last:
            order = order[: len(order) - len(order) % single.batch_size]
        yield from self.samples.batches(order, single.batch_size)


Loader = InMemoryLoader | DataLoader
"""Iterable over batches, with a length."""


@dataclass(frozen=True)
class Origin:
    """Where the inputs of some samples come from.

    Attributes:
        images: Image tensor.
        transform: Applied to whole batches of its rows.
        steps: Applied to what comes out, one after the other and image by image; empty where nothing draws random
            numbers.
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
        if problem := _batch_problem(leaf.transform, few, lambda image: leaf.transform(image[None])[0]):
            raise NotInMemoryError(f"its transform {problem}: {leaf.transform!r}")
        if not steps:
            return origin
        together = partial(_apply, (leaf.transform, *steps))
        try:
            whole = augment == "batch" or not _batch_problem(
                together, few, lambda image: origin.finish(leaf.transform(image[None])[0])
            )
        except Exception:  # it takes single images only
            whole = False
        return cls(origin.images, together) if whole else origin


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


def _datasets(loader: Any) -> list[Any]:
    # The data sets that the loader's sampler counts through, after a look at everything else about it.
    if type(loader) not in LOADERS:
        raise NotInMemoryError(f"{type(loader).__name__} may compose its batches in a way of its own")
    datasets: list[Any]
    if isinstance(loader, DataLoader):
        datasets, collate, workers = [loader.dataset], loader.collate_fn, loader.num_workers
        if loader.batch_sampler is None:
            raise NotInMemoryError("it gives single samples, not batches")
        if isinstance(loader.dataset, IterableDataset):
            raise NotInMemoryError(f"{type(loader.dataset).__name__} is not indexed but iterated over")
    else:
        datasets, options = loader.datasets, loader.loader_kwargs
        collate, workers = options["collate_fn"], options.get("num_workers", 0)
        if loader.distributed_sampling:
            raise NotInMemoryError("it samples for one of several processes")
    if collate is not default_collate:
        raise NotInMemoryError(f"it has a collate function of its own, {collate!r}")
    if workers:
        raise NotInMemoryError(f"it has worker processes: num_workers={workers}")
    if not any(len(data) for data in datasets):
        raise NotInMemoryError("it has no samples")
    return datasets


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


def _apply(steps: Sequence[Callable[[Tensor], Tensor]], images: Tensor) -> Tensor:
    for step in steps:
        images = step(images)
    return images


def _batch_problem(transform: BatchTransform, few: Tensor, of_one: Callable[[Tensor], Any]) -> str:
    # Tries the transform on two images: it must do to a batch what is done to each image, and draw no random numbers.
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


def _single_sampler(sampler: Any) -> BatchSampler | None:
    # The sampler over one data set whose whole order can be drawn at once, if that is what this batch sampler is.
    if type(sampler) is MultiDatasetSampler and len(sampler.samplers) == 1 and not sampler.never_ending:
        sampler = sampler.samplers[0]
    if type(sampler) is not BatchSampler or not len(sampler):
        return None
    inner = sampler.sampler
    if type(inner) is RandomSampler:
        whole = not inner.replacement and inner.num_samples == len(inner.data_source)
        # At the end of a pass a sampler draws once more, which with a generator of its own the next pass sees.
        return sampler if whole and inner.generator is None else None
    return sampler if type(inner) is SequentialSampler else None


def _order(sampler: Any) -> Tensor:
    # The order in which the sampler goes through its data set, drawn as the sampler itself draws it.
    if type(sampler) is SequentialSampler:
        return torch.arange(len(sampler.data_source))
    generator = torch.Generator().manual_seed(int(torch.empty((), dtype=torch.int64).random_().item()))
    return torch.randperm(len(sampler.data_source), generator=generator)

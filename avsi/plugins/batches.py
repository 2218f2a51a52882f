"""Batches for Avalanche strategies by indexing whole tensors, in place of one Python call per sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from avalanche.benchmarks.utils.data_loader import (
    GroupBalancedDataLoader,
    MultiDatasetDataLoader,
    MultiDatasetSampler,
    SingleDatasetDataLoader,
    TaskBalancedDataLoader,
)
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data.dataloader import default_collate

from avsi._arguments import check_flag
from avsi.plugins.in_memory import Augment, NotInMemoryError, Place, Samples

LOADERS = (DataLoader, SingleDatasetDataLoader, GroupBalancedDataLoader, TaskBalancedDataLoader)
"""Loaders whose batches can be made in memory; a subclass may do anything, so only these very classes."""


class InMemoryBatches(SupervisedPlugin):
    """Feeds a strategy, in training and evaluation, by indexing image tensors batch by batch.

    Wherever the loader that the strategy made reads :class:`~avsi.data.dataset.ImageDataset` rows alone, be it through
    subsets, concatenations and transformation groups, that loader is replaced by one that yields the same batches
    (x, y, task labels), in the same order, and draws the same random numbers: training is bit-identical with the plugin
    and without. Every other loader is left as it is: replay, other data sets and collate functions, transformations of
    labels, worker processes, distributed sampling. The order of plugins does not matter.

    Transformation groups are Avalanche's way to augment training data (``train_transform`` of our builders, and of its
    own); torchvision's v2 transforms are the usual choice. Those of avsi and of torchvision that map each image alone
    and draw no random numbers, such as ``Normalize``, ``Resize`` and compositions of them, are applied to whole
    batches. Every other function is applied image by image, as without the plugin: each image is cropped or flipped in
    a way of its own. That takes as long as torchvision takes for single images. With ``augment="batch"`` all are
    applied to whole batches, which is about 17 times as fast, but torchvision's own transforms then draw once for all
    images of a batch; it is the way to use functions that take batches, and make draws for each image themselves.

    Args:
        on_device: Whether to copy image tensors to the strategy's device, once, and index them there. Transforms
            must then take tensors on that device.
        augment: Whether transforms not known to map each image alone are applied to each "image" or to a whole "batch".

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

import random

import numpy as np
import pytest
import torch
from avalanche.benchmarks.utils import AvalancheDataset, make_avalanche_dataset
from avalanche.benchmarks.utils.data_loader import SingleDatasetDataLoader, TaskBalancedDataLoader
from avalanche.training import Cumulative, JointTraining, Naive
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin, SupervisedPlugin
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.dataloader import default_collate
from torchvision.transforms import v2
from training import naive

from avsi import SIPlugin
from avsi.data import load
from avsi.plugins.batches import InMemoryBatches, InMemoryLoader, NotInMemoryError, batches_in_order
from avsi.data.dataset import ImageDataset, scale
from avsi.metrics import evaluation_metrics
from avsi.models import MLP, MultiHead
from avsi.scenarios import split_digits, split_mnist
from avsi.scenarios.build import with_task_label

IN_MEMORY = "InMemoryLoader"


class Watch(SupervisedPlugin):
    """Notes which loaders batches really come from, and what the batches hold."""

    def __init__(self):
        super().__init__()
        self.loaders = {"train": [], "eval": []}
        self.batches = []

    def before_training_iteration(self, strategy, **_):
        self.note("train", strategy)

    def before_eval_iteration(self, strategy, **_):
        self.note("eval", strategy)

    def note(self, phase, strategy):
        self.loaders[phase].append(type(strategy.dataloader).__name__)
        self.batches.append([part.clone() for part in strategy.mbatch])


class Small(nn.Sequential):
    """Draws random numbers in training, as often as a batch is seen."""

    def __init__(self, pixels):
        super().__init__(nn.Dropout(0.2), MLP(pixels, (16,), 2))


def run(benchmark, plugins, strategy=Naive, pixels=64, model=None, **kwargs):
    """Trains and evaluates on two experiences; returns everything that can differ."""
    torch.manual_seed(1)
    model = model or Small(pixels)
    watch = Watch()
    trainer = strategy(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=10,
        train_epochs=2,
        eval_mb_size=50,
        evaluator=EvaluationPlugin(*evaluation_metrics()),
        plugins=[*plugins, watch],
        **kwargs,
    )
    results = []
    stream = benchmark.train_stream
    for experience in [stream[:3]] if strategy is JointTraining else stream[:3]:
        trainer.train(experience, eval_streams=[getattr(benchmark, "valid_stream", [])])
        results.append(trainer.eval(benchmark.test_stream))
    return watch, results, model.state_dict(), torch.get_rng_state()


def assert_identical(first, second):
    (watch, results, weights, state), (other_watch, other_results, other_weights, other_state) = first, second
    for batch, other in zip(watch.batches, other_watch.batches, strict=True):
        assert_same_batch(batch, other)
    assert results == other_results
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
    assert torch.equal(state, other_state)


def assert_same_batch(batch, other):
    assert type(batch) is type(other) is list
    for part, other_part in zip(batch, other, strict=True):
        assert part.dtype == other_part.dtype
        assert torch.equal(part, other_part)


def assert_same_passes(loader, fast, passes=2):
    """Several passes, each shuffled anew, with the same random numbers drawn."""
    assert len(fast) == len(loader)
    torch.manual_seed(3)
    expected = [list(loader) for _ in range(passes)], torch.get_rng_state()
    torch.manual_seed(3)
    got = [list(fast) for _ in range(passes)], torch.get_rng_state()
    for theirs, ours in zip(expected[0], got[0], strict=True):
        assert len(ours) == len(loader)
        for batch, other in zip(theirs, ours, strict=True):
            assert_same_batch(batch, other)
    assert torch.equal(expected[1], got[1])
    return got[0]


@pytest.fixture(scope="module")
def validated():
    return split_digits(validation=0.2)


@pytest.mark.parametrize("strategy", [Naive, Cumulative, JointTraining])
@pytest.mark.parametrize("options", [{}, {"eval_every": 1}], ids=["plain", "evaluated in training"])
def test_training_is_bit_identical_with_and_without(validated, strategy, options):
    plugin = InMemoryBatches()
    ours = run(validated, [plugin], strategy, **options)
    assert_identical(ours, run(validated, [], strategy, **options))
    assert set(ours[0].loaders["train"]) == {IN_MEMORY}
    assert set(ours[0].loaders["eval"]) == {IN_MEMORY}
    assert plugin.reason == ""
    assert (len(ours[0].loaders["eval"]) > 3 * 5 * 2) == bool(options)


def test_multi_head_model_and_si_are_fed_alike(digits):
    def train(*plugins):
        torch.manual_seed(0)
        model = MLP(64, (16,), MultiHead)
        si = SIPlugin(1.0)
        return run(digits, [*plugins, si], model=model), si.importance

    (ours, importance), (theirs, expected) = train(InMemoryBatches()), train()
    assert_identical(ours, theirs)
    assert all(torch.equal(importance[name], expected[name]) for name in expected)
    assert any(value.any() for value in expected.values())


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_replay_loaders_are_left_alone_whatever_the_order_of_plugins(digits, first):
    def train(*plugins):
        replay = ReplayPlugin(mem_size=20)
        return run(digits, [*plugins, replay] if first == "ours" else [replay, *plugins])

    plugin = InMemoryBatches()
    ours = train(plugin)
    assert_identical(ours, train())
    # The first experience has nothing to replay; evaluation never has.
    steps = 2 * -(-len(digits.train_stream[0].dataset) // 10)
    assert set(ours[0].loaders["train"][:steps]) == {IN_MEMORY}
    assert set(ours[0].loaders["train"][steps:]) == {"ReplayDataLoader"}
    assert set(ours[0].loaders["eval"]) == {IN_MEMORY}


def test_reason_names_the_replay_loader(digits):
    plugin = InMemoryBatches()
    trainer = naive(Small(64), torch.optim.SGD([torch.zeros(1)], lr=0.1), [plugin, ReplayPlugin(mem_size=20)])
    trainer.train(digits.train_stream[:2], eval_streams=[])
    assert plugin.reason.startswith("ReplayDataLoader ")


@pytest.mark.parametrize("options", [{}, {"drop_last": True}, {"shuffle": True}, {"shuffle": True, "drop_last": True}])
@pytest.mark.parametrize("size", [1, 7, 77, 500])
def test_loaders_options_are_honoured(digits, options, size):
    data = digits.train_stream[1].dataset.train()
    for kind in (SingleDatasetDataLoader, DataLoader, TaskBalancedDataLoader):
        loader = kind(data, batch_size=size, **options)
        first, second = assert_same_passes(loader, InMemoryLoader(loader))
        if first:
            (x, y, t) = first[0]
            assert (x.dtype, x.shape[1:], y.dtype, t.dtype) == (torch.float32, (1, 8, 8), torch.int64, torch.int64)
            assert torch.equal(first[0][0], second[0][0]) == ("shuffle" not in options)


def test_two_passes_at_once_do_not_disturb_each_other(digits):
    loader = SingleDatasetDataLoader(digits.train_stream[0].dataset, batch_size=50, shuffle=True)
    fast = InMemoryLoader(loader)
    torch.manual_seed(0)
    expected = [[batch[0][1].sum() for batch in zip(a, b, strict=True)] for a, b in [(iter(loader), iter(loader))]]
    torch.manual_seed(0)
    got = [[batch[0][1].sum() for batch in zip(a, b, strict=True)] for a, b in [(iter(fast), iter(fast))]]
    assert expected == got


def test_unequal_tasks_are_oversampled_as_avalanche_does(digits):
    data = AvalancheDataset(
        [exp.dataset.subset(range(n)) for exp, n in zip(digits.train_stream, (90, 31), strict=False)]
    )
    loader = TaskBalancedDataLoader(data, batch_size=9, oversample_small_groups=True, shuffle=True)
    first, _ = assert_same_passes(loader, InMemoryLoader(loader))
    assert [sum(int((batch[2] == task).sum()) for batch in first) for task in (0, 1)] > [90, 31]


def permute(order):
    def transform(images):
        return scale(images).flatten(1)[:, order]

    return transform


def image_data(transform=scale, count=60, images=None):
    images = images or load("digits", "train")
    return ImageDataset(images.images, torch.arange(count).flip(0), images.labels[:count].flip(0), transform)


def test_subsets_of_concatenations_with_several_transforms_are_looked_through():
    torch.manual_seed(0)
    train, test = load("digits", "train"), load("digits", "test")
    tasks = [image_data(permute(torch.randperm(64)), images=train) for _ in range(3)]
    tasks.append(image_data(permute(torch.arange(64)), 20, test))
    whole = AvalancheDataset([with_task_label(data, label) for label, data in enumerate(tasks)])
    indices = [199, 0, 0, 3, 180, 61, 62, 130, 5, 199, 64]
    for data in (whole, whole.subset(indices), whole.subset(indices).concat(whole).subset(range(3, 20)).train()):
        for shuffle in (False, True):
            loader = SingleDatasetDataLoader(data, batch_size=4, shuffle=shuffle)
            fast = InMemoryLoader(loader)
            assert len(fast.samples.sources) == len(tasks)
            assert_same_passes(loader, fast)


def test_images_and_transform_in_common_make_one_source(digits):
    whole = AvalancheDataset([experience.dataset for experience in digits.train_stream])
    loader = SingleDatasetDataLoader(whole, batch_size=100, shuffle=True)
    fast = InMemoryLoader(loader)
    assert len(fast.samples.sources) == 1
    assert_same_passes(loader, fast)


def test_data_without_task_labels_give_pairs():
    loader = DataLoader(image_data(), batch_size=16, shuffle=True)
    (first, *_), _ = assert_same_passes(loader, InMemoryLoader(loader))
    assert len(first) == 2


class Doubled(ImageDataset):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return 2 * x, y


def stack(samples):
    return default_collate(samples)


def noise(images):
    return scale(images) + torch.rand(1)


def numpy_noise(images):
    return scale(images) + np.random.rand()


def python_noise(images):
    return scale(images) + random.random()


def centred(images):
    return scale(images) - scale(images).mean()


ASIDE = {
    "transformation group": (lambda: {"transform_groups": {"train": v2.RandomCrop(6), "eval": None}}, {}, "RandomCrop"),
    "frozen transformation": (lambda: {"frozen_transform_groups": {"train": (abs, None), "eval": None}}, {}, "'train'"),
    "collate function": (lambda: {"collate_fn": stack}, {}, "collate function"),
    "worker processes": (dict, {"num_workers": 1}, "num_workers=1"),
}


@pytest.mark.parametrize("case", ASIDE)
def test_stands_aside_for_what_the_wrapper_or_loader_does(case):
    options, loading, reason = ASIDE[case]
    data = make_avalanche_dataset(image_data(), **options())
    loader = SingleDatasetDataLoader(data, batch_size=8, **loading)
    with pytest.raises(NotInMemoryError, match=reason):
        InMemoryLoader(loader)
    if "transformation" in case:
        assert_same_passes(
            SingleDatasetDataLoader(data.eval(), 8), InMemoryLoader(SingleDatasetDataLoader(data.eval(), 8))
        )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (image_data(noise), "draws random numbers"),
        (image_data(numpy_noise), "draws random numbers"),
        (image_data(python_noise), "draws random numbers"),
        (image_data(v2.Compose([scale, v2.RandomHorizontalFlip()])), "draws random numbers"),
        (image_data(centred), "another value in a batch than alone"),
        (None, "Doubled is not"),
        (TensorDataset(torch.rand(5, 3), torch.arange(5)), "TensorDataset is not an ImageDataset"),
    ],
)
def test_stands_aside_for_other_data(data, reason):
    if data is None:
        base = image_data()
        data = Doubled(base.images, base.rows, base.labels)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2]
    with pytest.raises(NotInMemoryError, match=reason):
        InMemoryLoader(DataLoader(data, batch_size=2))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2]) == before[1:]


def test_augmented_training_goes_on_as_without(digits):
    torch.manual_seed(0)
    flip = {"train": v2.RandomHorizontalFlip(), "eval": None}

    def augmented():
        benchmark = split_digits()
        for experience in benchmark.train_stream:
            experience._dataset = type(experience._dataset)([experience._dataset], transform_groups=flip)
        return benchmark

    plugin = InMemoryBatches()
    ours = run(augmented(), [plugin])
    assert_identical(ours, run(augmented(), []))
    assert set(ours[0].loaders["train"]) == {"TaskBalancedDataLoader"}
    assert set(ours[0].loaders["eval"]) == {IN_MEMORY}


def test_batches_in_order_leave_the_global_random_state_alone(digits):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    data = digits.train_stream[0].dataset.eval()
    batches = batches_in_order(data, 100)
    assert isinstance(batches, InMemoryLoader)
    x, y, t = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert len(batches) == 3
    assert torch.equal(x, torch.stack([sample[0] for sample in data]))
    assert y.tolist() == [sample[1] for sample in data]
    assert t.tolist() == [0] * len(data)
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_in_order_of_other_data_come_from_a_data_loader():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    data = TensorDataset(torch.rand(5, 3), torch.arange(5))
    state = torch.get_rng_state()
    batches = batches_in_order(make_avalanche_dataset(data), 2)
    assert isinstance(batches, DataLoader)
    assert torch.equal(torch.cat([batch[0] for batch in batches]), data.tensors[0])
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(state, before)


def test_images_are_copied_to_a_device_once(digits):
    plugin = InMemoryBatches(on_device=True)
    ours = run(digits, [plugin])
    assert_identical(ours, run(digits, []))
    assert len(plugin._copies) == 2  # the training and the test images
    assert isinstance(plugin.in_order(digits.train_stream[0].dataset, 10), InMemoryLoader)
    assert len(plugin._copies) == 2
    place, images = plugin._place(torch.device("meta")), torch.zeros(3)
    assert place(images) is place(images)
    assert place(images).device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_images_live_on_a_cuda_device(digits):
    ours = run(digits, [InMemoryBatches(on_device=True)], device="cuda")
    theirs = run(digits, [], device="cuda")
    assert set(ours[0].loaders["train"]) == {IN_MEMORY}
    for batch, other in zip(ours[0].batches, theirs[0].batches, strict=True):
        assert_same_batch(batch, other)
    loader = InMemoryBatches(on_device=True).in_order(digits.train_stream[0].dataset, 10, "cuda")
    assert all(part.device.type == "cuda" for part in next(iter(loader)))


def test_real_mnist_batch_by_batch(real_data):
    benchmark = split_mnist(root=real_data, validation=0.1, seed=0)
    for stream in benchmark.streams.values():
        loader = TaskBalancedDataLoader(stream[3].dataset, batch_size=64, shuffle=True)
        first, _ = assert_same_passes(loader, InMemoryLoader(loader))
        assert sum(len(y) for _, y, _ in first) == len(stream[3].dataset)

import copy
import pickle
import random
from functools import partial

import numpy as np
import pytest
import torch
from avalanche.benchmarks.utils import (
    AvalancheDataset,
    DataAttribute,
    TaskAwareSupervisedClassificationDataset,
    TaskLabels,
    make_avalanche_dataset,
)
from avalanche.benchmarks.utils.data_loader import SingleDatasetDataLoader, TaskBalancedDataLoader
from avalanche.benchmarks.utils.transforms import MultiParamTransformCallable
from avalanche.training import Cumulative, JointTraining, Naive
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin, SupervisedPlugin
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.data.dataloader import default_collate
from torchvision import transforms as v1
from torchvision.transforms import v2
from training import naive

from avsi import MASPlugin, OnlineEWCPlugin, SIPlugin
from avsi.data import Normalise, load
from avsi.data.dataset import ImageDataset, scale
from avsi.metrics import evaluation_metrics
from avsi.models import MLP, MultiHead
from avsi.plugins.batches import InMemoryBatches, InMemoryLoader, batches_in_order
from avsi.plugins.in_memory import NotInMemoryError
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


@pytest.mark.parametrize("size", [7, 12])  # does and does not divide the number of samples
def test_a_loaders_own_generator_is_as_far_after_each_pass(size):
    passes = []
    for kind in (lambda loader: loader, InMemoryLoader):
        generator = torch.Generator().manual_seed(0)
        loader = kind(DataLoader(image_data(count=48), batch_size=size, shuffle=True, generator=generator))
        passes.append([[y.tolist() for _, y in loader] for _ in range(3)])
    assert passes[0] == passes[1]


def test_stands_aside_for_data_that_are_iterated_over():
    class Stream(IterableDataset):
        def __iter__(self):
            yield from range(3)

    with pytest.raises(NotInMemoryError, match="Stream is not indexed"):
        InMemoryLoader(DataLoader(Stream(), batch_size=2))


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


def stretched(images):
    return scale(images) / scale(images).max()  # the same for all of these digits


ASIDE = {
    "transformation of labels": (lambda: {"transform_groups": {"train": (None, abs)}}, {}, "more than its samples' x"),
    "transformation of whole samples": (
        lambda: {"transform_groups": {"train": MultiParamTransformCallable(swapped)}},
        {},
        "more than its samples' x",
    ),
    "collate function": (lambda: {"collate_fn": stack}, {}, "collate function"),
    "worker processes": (dict, {"num_workers": 1}, "num_workers=1"),
}


def swapped(x, y):
    return -x, y


@pytest.mark.parametrize("case", ASIDE)
def test_stands_aside_for_what_the_wrapper_or_loader_does(case):
    options, loading, reason = ASIDE[case]
    data = make_avalanche_dataset(image_data(), **options())
    loader = SingleDatasetDataLoader(data, batch_size=8, **loading)
    with pytest.raises(NotInMemoryError, match=reason):
        InMemoryLoader(loader)


def test_stands_aside_for_a_loader_of_single_samples():
    with pytest.raises(NotInMemoryError, match="single samples"):
        InMemoryLoader(DataLoader(image_data(), batch_size=None))


def test_task_labels_may_change_from_sample_to_sample():
    data = image_data(count=40)
    labels = [n % 3 for n in range(40)]
    attributes = [DataAttribute(data.targets, "targets"), TaskLabels(labels)]
    mixed = TaskAwareSupervisedClassificationDataset([data], data_attributes=attributes)
    loader = SingleDatasetDataLoader(mixed, batch_size=7)
    (*batches,), _ = assert_same_passes(loader, InMemoryLoader(loader))
    assert torch.cat([t for _, _, t in batches]).tolist() == labels


def test_a_loader_is_replaced_once_for_all_epochs_of_a_task(digits):
    seen = []

    class Look(SupervisedPlugin):
        def before_training_iteration(self, strategy, **_):
            seen.append((strategy.dataloader, memory.reason))

    memory = InMemoryBatches()
    model = Small(64)
    trainer = naive(model, torch.optim.SGD(model.parameters(), lr=0.1), [memory, Look()], epochs=3)
    trainer.train(digits.train_stream[0], eval_streams=[])
    assert {reason for _, reason in seen} == {""}
    assert len({id(loader) for loader, _ in seen}) == 1


# Augmentation


def of_one_image(image):
    assert image.ndim == 3
    return image.flip(-1)


def flattened(x):
    return x.flatten()


def jittered(x):
    return x + 0.1 * torch.rand(()) + random.random() + np.random.rand()


def bright(x):
    return 1 - x if x.mean() > 0.3 else x


TRANSFORMS = {
    "it depends on the image": (bright, True),
    "of avsi": (Normalise([0.5], [0.25]), False),
    "composed": (v2.Compose([v2.Pad(2), v1.Compose([v1.CenterCrop(9), v2.Grayscale(3)])]), False),
    "composed with one unknown": (v2.Compose([v2.Pad(2), v2.Lambda(bright)]), True),
    "not for such images": (v2.Compose([v2.Resize(4), v1.Grayscale(), nn.Flatten(2)]), True),
    "crop and flip": (v2.Compose([v2.RandomCrop(8, padding=2), v2.RandomHorizontalFlip()]), True),
    "other size": (v2.RandomCrop(6), True),
    "all generators": (jittered, True),
    "normalised": (v2.Normalize([0.5], [0.25]), False),
    "single images only": (of_one_image, True),
    "the batch is not flattened": (flattened, True),
}


OWN = {"torch": torch.Generator(), "numpy": np.random.default_rng(0), "old numpy": np.random.RandomState(0)}
OWN["python"] = random.Random(0)
DRAW = {
    "torch": lambda generator: float(torch.rand((), generator=generator)),
    "numpy": lambda generator: generator.random(),
    "old numpy": lambda generator: generator.random_sample(),
    "python": lambda generator: generator.random(),
}


class Rarely:
    """Flips few images, by a random generator of its own."""

    def __init__(self, kind):
        self.kind, self.generator = kind, copy.deepcopy(OWN[kind])

    def __call__(self, x):
        return x.flip(-1) if DRAW[self.kind](self.generator) < 0.05 else x

    def method(self, x):
        return self(x)


class SlottedRarely:
    __slots__ = ("generator",)

    def __init__(self, kind):
        self.generator = [Rarely(kind)]

    def __call__(self, x):
        return self.generator[0](x)


class RarelyByGlobal:
    def __call__(self, x):
        return self.helped(x)

    def helped(self, x):
        return flip_rarely(x)


def flip_rarely(x):
    return x.flip(-1) if OWN_GENERATOR.random() < 0.05 else x


def flip_rarely_by(kind, x, generator):
    return x.flip(-1) if DRAW[kind](generator) < 0.05 else x


def by_closure(kind):
    generator = copy.deepcopy(OWN[kind])
    return lambda x: flip_rarely_by(kind, x, generator)


OWN_GENERATOR = np.random.default_rng(0)
HOLDERS = {
    "attribute": Rarely,
    "slot": SlottedRarely,
    "method": lambda kind: Rarely(kind).method,
    "closure": by_closure,
    "partial": lambda kind: partial(flip_rarely_by, kind, generator=copy.deepcopy(OWN[kind])),
    "compose": lambda kind: v2.Compose([v2.Normalize([0.5], [0.25]), v2.Lambda(Rarely(kind))]),
}


def assert_drawn_for_each_image(make):
    expected = list(
        SingleDatasetDataLoader(make_avalanche_dataset(image_data(), transform_groups=make()), batch_size=8)
    )
    loader = SingleDatasetDataLoader(make_avalanche_dataset(image_data(), transform_groups=make()), batch_size=8)
    fast = InMemoryLoader(loader)
    assert [bool(origin.steps) for origin in fast.samples.sources] == [True]
    for batch, other in zip(expected, fast, strict=True):
        assert_same_batch(batch, other)


@pytest.mark.parametrize("kind", DRAW)
@pytest.mark.parametrize("holder", HOLDERS)
def test_transforms_with_a_generator_of_their_own_are_applied_image_by_image(holder, kind):
    """Even if the images that it is tried on came out alike, and the trial leaves the generator as it was."""
    assert_drawn_for_each_image(lambda: {"train": HOLDERS[holder](kind), "eval": None})


@pytest.mark.parametrize("transform", [flip_rarely, RarelyByGlobal(), lambda x: flip_rarely(x)])
def test_generators_of_a_module_are_known_too(transform):
    start = OWN_GENERATOR.bit_generator.state

    def make():
        OWN_GENERATOR.bit_generator.state = start
        return {"train": transform, "eval": None}

    assert_drawn_for_each_image(make)


def test_a_generator_that_is_not_used_is_no_reason():
    class Still(Rarely):
        def __call__(self, x):
            return -scale(x)

    assert len(InMemoryLoader(DataLoader(image_data(transform=Still("torch")))))


@pytest.mark.parametrize("kind", ["transform_groups", "frozen_transform_groups"])
@pytest.mark.parametrize("case", TRANSFORMS)
def test_transformation_groups_are_applied_as_avalanche_applies_them(case, kind):
    transform, image_by_image = TRANSFORMS[case]
    data = make_avalanche_dataset(image_data(), **{kind: {"train": transform, "eval": None}})
    for part in (data, data.subset([3, 3, 5, 40, 2, 2, 2]).concat(data)):
        for shuffle in (False, True):
            random.seed(0)
            np.random.seed(0)
            loader = SingleDatasetDataLoader(part, batch_size=8, shuffle=shuffle)
            fast = InMemoryLoader(loader)
            assert [bool(origin.steps) for origin in fast.samples.sources] == [image_by_image]
            if case == "all generators":  # both take the same numbers from all three
                states = random.getstate(), np.random.get_state()
                torch.manual_seed(0)
                expected = list(loader)
                random.setstate(states[0])
                np.random.set_state(states[1])
                torch.manual_seed(0)
                for batch, other in zip(expected, fast, strict=True):
                    assert_same_batch(batch, other)
            else:
                assert_same_passes(loader, fast)
    plain = SingleDatasetDataLoader(data.eval(), batch_size=8)
    first = torch.stack([image_data()[index][0] for index in range(8)])
    assert torch.equal(next(iter(InMemoryLoader(plain)))[0], first)


def test_tasks_augmented_in_different_ways_are_read_in_the_order_of_the_samples():
    crop, flip = v2.RandomCrop(8, padding=3), v2.RandomHorizontalFlip()
    images = load("digits", "train")
    parts = [
        with_task_label(image_data(images=images), label, transform)
        for label, transform in enumerate((crop, None, flip, crop))
    ]
    loader = SingleDatasetDataLoader(AvalancheDataset(parts), batch_size=9, shuffle=True)
    fast = InMemoryLoader(loader)
    assert [len(origin.steps) for origin in fast.samples.sources] == [1, 0, 1]
    assert_same_passes(loader, fast)


def test_every_image_of_a_batch_is_augmented_in_a_way_of_its_own():
    images = load("digits", "train")
    data = ImageDataset(images.images, torch.zeros(32, dtype=torch.int64), images.labels[:1].expand(32))
    made = with_task_label(data, 0, v2.RandomCrop(8, padding=4))
    loader = SingleDatasetDataLoader(made, batch_size=32)
    ((x, _, _),) = InMemoryLoader(loader)
    assert len({tuple(image.flatten().tolist()) for image in x}) > 10
    ((x, _, _),) = InMemoryLoader(loader, augment="batch")
    assert len({tuple(image.flatten().tolist()) for image in x}) == 1
    with pytest.raises(ValueError, match='augment must be "image" or "batch", got \'images\''):
        InMemoryBatches(augment="images")
    with pytest.raises(TypeError, match="on_device must be True or False, got 'no'"):
        InMemoryBatches(on_device="no")


CROP = v2.Compose([v2.RandomCrop(8, padding=2), v2.RandomHorizontalFlip()])
CENTRED = v2.Normalize([0.3], [0.4])


def test_augmented_training_is_bit_identical_with_and_without():
    benchmark = split_digits(train_transform=CROP, eval_transform=CENTRED, validation=0.2)
    ours = run(benchmark, [InMemoryBatches()])
    assert_identical(ours, run(benchmark, []))
    assert set(ours[0].loaders["train"]) == set(ours[0].loaders["eval"]) == {IN_MEMORY}
    again = run(benchmark, [InMemoryBatches(augment="batch")])
    assert set(again[0].loaders["train"]) == {IN_MEMORY}
    assert not torch.equal(again[0].batches[0][0], ours[0].batches[0][0])


def test_evaluation_and_validation_are_not_augmented():
    benchmark = split_digits(train_transform=CROP, eval_transform=CENTRED, validation=0.2)
    plain = split_digits(validation=0.2)
    for stream in ("train", "test", "valid"):
        theirs = getattr(plain, f"{stream}_stream")[2].dataset
        ours = getattr(benchmark, f"{stream}_stream")[2].dataset
        expected = CENTRED(torch.stack([x for x, _, _ in theirs]))
        given, evaluated = (torch.stack([x for x, _, _ in data]) for data in (ours, ours.eval()))
        assert torch.equal(evaluated, expected)
        assert torch.equal(given, expected) == (stream != "train")
        (x, _, _), *_ = InMemoryBatches().in_order(ours.eval(), 1000)
        assert torch.equal(x, expected)


@pytest.mark.parametrize("plugin", [OnlineEWCPlugin, MASPlugin])
def test_importances_are_measured_without_augmentation(plugin):
    """At a learning rate of 0 the model stays as it is, whatever it sees in training."""

    def importance(memory, **transforms):
        benchmark = split_digits(**transforms)
        torch.manual_seed(0)
        model = MLP(64, (8,), 2)
        method = plugin(1.0)
        plugins = [method, *memory]
        trainer = naive(model, torch.optim.SGD(model.parameters(), lr=0.0), plugins)
        trainer.train(benchmark.train_stream[0], eval_streams=[])
        return method.importance

    plain = importance([])
    for memory in ([], [InMemoryBatches()]):
        for name, value in importance(memory, train_transform=CROP).items():
            assert torch.equal(value, plain[name])
    assert any(
        not torch.equal(value, plain[name])
        for name, value in importance([InMemoryBatches()], eval_transform=CENTRED).items()
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (image_data(noise), "draws random numbers"),
        (image_data(numpy_noise), "draws random numbers"),
        (image_data(python_noise), "draws random numbers"),
        (image_data(v2.Compose([scale, v2.RandomHorizontalFlip()])), "draws random numbers"),
        (image_data(centred), "another value in a batch than alone"),
        (image_data(stretched), "another value in a batch than alone"),
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


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda plugin: pickle.loads(pickle.dumps(plugin))])
def test_copies_of_the_plugin_hold_no_images(duplicate):
    """They are known by identity, which other tensors have in another process or once the original is gone."""
    plugin, images = InMemoryBatches(on_device=True), torch.zeros(3)
    plugin._place(torch.device("cpu"))(images)
    assert duplicate(plugin)._copies == {}
    assert len(plugin._copies) == 1


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
    benchmark = split_mnist(dataset_root=real_data, validation=0.1, seed=0)
    for stream in benchmark.streams.values():
        loader = TaskBalancedDataLoader(stream[3].dataset, batch_size=64, shuffle=True)
        first, _ = assert_same_passes(loader, InMemoryLoader(loader))
        assert sum(len(y) for _, y, _ in first) == len(stream[3].dataset)

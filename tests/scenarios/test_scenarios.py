"""What one benchmark is under each scenario, and of users' own data."""

import itertools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from training import naive

from avsi import InMemoryBatches, SIPlugin
from avsi.data import ImageSet, load
from avsi.data.dataset import scale
from avsi.data.photographs import load_photographs
from avsi.experiment.provenance import describe_data
from avsi.models import MLP, GrowingHead, MultiHead
from avsi.scenarios import (
    Source,
    Task,
    build,
    imbalance,
    imbalanced_permuted_mnist,
    mnist_background,
    on_backgrounds,
    permute,
    permuted,
    permuted_digits,
    permuted_mnist,
    photographs,
    remove_at_random,
    sequence,
    split,
    split_cifar,
    split_cifar10,
    split_cifar100,
    split_digits,
    split_fashion_mnist,
    split_mnist,
)
from avsi.scenarios.build import select_classes

SCENARIOS = ("task", "domain", "class")


def samples(experience):
    (x, y, t), *rest = DataLoader(experience.dataset, batch_size=10**6)
    assert not rest
    return x, y, t


@pytest.mark.parametrize("stream", ["train", "valid", "test"])
def test_split_in_each_scenario(stream):
    """Van de Ven & Tolias: the same images, labelled within the task or over all tasks, told the task or not."""
    made = {s: getattr(split_digits(scenario=s, validation=0.2, seed=1), f"{stream}_stream") for s in SCENARIOS}
    for task in range(5):
        x, y, _ = samples(made["task"][task])
        for scenario in SCENARIOS:
            experience = made[scenario][task]
            other_x, other_y, other_t = samples(experience)
            assert torch.equal(other_x, x)
            assert torch.equal(other_y, y + 2 * task * (scenario == "class"))
            assert other_t.unique().tolist() == [task if scenario == "task" else 0]
            classes = [2 * task, 2 * task + 1] if scenario == "class" else [0, 1]
            assert experience.classes_in_this_experience == classes
            assert experience.task_labels == [task if scenario == "task" else 0]
            assert sorted(set(experience.dataset.targets)) == classes


def test_permuted_in_each_scenario():
    for scenario in SCENARIOS:
        benchmark = permuted_digits(3, scenario=scenario, seed=2)
        assert [e.task_label for e in benchmark.train_stream] == ([0, 1, 2] if scenario == "task" else [0, 0, 0])
        first = [10 * task * (scenario == "class") for task in range(3)]
        assert [e.classes_in_this_experience for e in benchmark.test_stream] == [[*range(f, f + 10)] for f in first]
        plain = permuted_digits(3, seed=2)
        assert torch.equal(samples(benchmark.train_stream[2])[0], samples(plain.train_stream[2])[0])


def test_class_order_decides_which_classes_come_when():
    digits = load("digits", "train")
    order = [7, 1, 3, 9, 0, 2]
    benchmark = split_digits(3, class_order=order, scenario="class")
    for task, experience in enumerate(benchmark.train_stream):
        x, y, _ = samples(experience)
        for position in (2 * task, 2 * task + 1):
            assert torch.equal(x[y == position], scale(digits.images[digits.labels == order[position]]))
    assert benchmark.classes == {"digits": sorted(order)}
    shuffled = torch.randperm(10)
    assert len(split_digits(2, class_order=shuffled.tolist()).train_stream) == 2
    assert len(split_digits(np.int64(2), class_order=np.arange(4)).train_stream) == 2


def test_numbers_of_every_library_are_taken():
    plain = split_digits(2, validation=0.5, seed=3)
    for kind in (np.array, torch.tensor):
        other = split_digits(kind(2), validation=kind(0.5), seed=kind(3))
        assert torch.equal(samples(other.valid_stream[0])[0], samples(plain.valid_stream[0])[0])


@pytest.mark.parametrize(("scenario", "head"), [("task", MultiHead), ("domain", 2), ("class", GrowingHead)])
def test_each_scenario_trains_with_the_head_the_guide_names(scenario, head):
    benchmark = split_digits(scenario=scenario)
    torch.manual_seed(0)
    model = MLP(64, (32,), head)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    trainer = naive(model, optimizer, [SIPlugin(1.0), InMemoryBatches()], epochs=3)
    right = {}
    for task, experience in enumerate(benchmark.train_stream):
        trainer.train(experience, eval_streams=[])
        x, y, t = samples(benchmark.test_stream[task])
        with torch.no_grad():
            model.eval()
            logits = model(x, t) if scenario == "task" else model(x)
        right[task] = float((logits.argmax(1) == y).float().mean())
    assert min(right.values()) > 0.8
    if scenario == "class":
        assert model.head.head.out_features == 10
        with torch.no_grad():
            old = model(samples(benchmark.test_stream[0])[0]).argmax(1)
        assert (old > 1).float().mean() > 0.8, "class-incremental failure is expected"


# Seeds


BUILDERS = {
    "split": lambda **o: split_digits(**o),
    "permuted": lambda **o: permuted_digits(2, **o),
    "pieces": lambda **o: build(imbalance(permute(Source.load("digits"), tasks=2), [[50] * 10] * 2), **o),
}


@pytest.mark.parametrize("builder", BUILDERS)
def test_two_seeds_give_two_validation_splits(builder):
    x = [samples(BUILDERS[builder](validation=0.2, seed=seed).valid_stream[0])[0] for seed in (0, 1, 0)]
    assert not torch.equal(x[0], x[1])
    assert torch.equal(x[0], x[2])


def test_split_mnist_passes_its_seed_on(real_data):
    x = [samples(split_mnist(seed=s, validation=0.01, dataset_root=real_data).valid_stream[0])[0] for s in (0, 1)]
    assert x[0].shape == x[1].shape
    assert not torch.equal(*x)


def test_one_permuted_task_may_be_permuted_or_not():
    digits = scale(load("digits", "train").images)
    for first in (False, True):
        (task,) = permute(Source.load("digits"), tasks=1, permute_first=first, seed=3)
        train = task.datasets()[0]
        assert torch.equal(train.transform(train.images[train.rows]), digits) == (not first)


# Composition


def counts(benchmark, stream="train"):
    return [samples(e)[1].bincount(minlength=10).tolist() for e in getattr(benchmark, f"{stream}_stream")]


def test_what_is_thinned_out_can_be_thinned_out_further():
    tasks = permute(Source.load("digits"), tasks=2, seed=1)
    once = imbalance(tasks, [[100] * 10, [30] * 10], seed=1, thin_test=True)
    twice = imbalance(once, [[50] * 10, [0, *range(1, 10)]], seed=1, thin_test=True)
    assert counts(build(twice)) == [[50] * 10, [0, *range(1, 10)]]
    before, after = (
        [{tuple(row) for row in samples(e)[0].flatten(1).tolist()} for e in build(t).train_stream]
        for t in (once, twice)
    )
    assert all(late < early for late, early in zip(after, before, strict=True))
    tests = [counts(build(t), "test") for t in (once, twice)]
    train, test = (counts(build(tasks), stream)[0] for stream in ("train", "test"))
    assert tests[0][0] == [round(100 * b / a) for a, b in zip(train, test, strict=True)]
    assert tests[1][0] == [round(50 * count / 100) for count in tests[0][0]]
    with pytest.raises(ValueError, match="task 1 asks for 31 images of class 2, and the task has 30"):
        imbalance(once, [[1] * 10, [1, 1, 31] + [1] * 7])


def test_images_are_removed_at_random_from_what_a_task_has():
    tasks = imbalance(permute(Source.load("digits"), tasks=2), [[100] * 10, [40] * 10])
    kept = counts(build(remove_at_random(tasks, [[0.5] * 10, [0.0] * 10])))
    assert kept[1] == [40] * 10
    assert 400 < sum(kept[0]) < 600
    again = counts(build(remove_at_random(remove_at_random(tasks, [[0.5] * 10] * 2), [[0.5] * 10] * 2)))
    assert 200 < sum(again[0]) < 300


def test_a_second_draw_with_the_same_seed_is_independent_of_the_first():
    """The images that survive both of two draws of one half each lie anywhere: their positions have the mean they
    should, whether the image at that position survived the first draw or not."""
    x = np.arange(400, dtype=np.float32)[:, None]
    source = Source.from_arrays((x, np.zeros(400, dtype=np.int64)), (x[:1], np.zeros(1, dtype=np.int64)))
    kept_after_kept, total = 0, 0
    for seed in range(40):
        once = imbalance(permute(source, tasks=1), [[200]], seed=seed)
        (first,) = (t.datasets()[0].rows.tolist() for t in once)
        (second,) = (t.datasets()[0].rows.tolist() for t in imbalance(once, [[100]], seed=seed))
        early = {row for j, row in enumerate(first) if j in set(first)}  # j-th survivor where image j survived too
        kept_after_kept += len(early & set(second))
        total += len(early)
    assert abs(kept_after_kept / total - 0.5) < 0.03


# A user's own arrays


@pytest.mark.parametrize("shape", [(3,), (4, 5), (2, 4, 5), (2, 3, 2, 2)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "float16"])
def test_own_arrays_of_any_shape(shape, dtype):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (60, *shape)).astype(dtype)
    y = np.arange(60, dtype=np.int32) % 6
    for train, test in (((x, y), (x[::5], y[::5])), ((torch.tensor(x), torch.tensor(y)),) * 2):
        mine = Source.from_arrays(train, test, name="mine")
        benchmark = split(mine, 3, scenario="class")
        expected = x.astype(np.float32) / np.float32(255) if dtype == "uint8" else x.astype(np.float32)
        for task, experience in enumerate(benchmark.train_stream):
            got, labels, _ = samples(experience)
            rows = np.isin(y, [2 * task, 2 * task + 1])
            assert got.dtype == torch.float32
            assert np.array_equal(got.numpy(), expected[rows])
            assert labels.tolist() == y[rows].tolist()
        (shuffled,) = permuted(mine, 1, permute_first=True).train_stream
        got = samples(shuffled)[0].flatten(2 if len(shape) > 2 else 1)
        whole = torch.from_numpy(expected).flatten(2 if len(shape) > 2 else 1)
        assert torch.equal(got.sort(-1).values, whole.sort(-1).values)
        assert not torch.equal(got, whole)
    assert [row["complete"] for row in describe_data(benchmark)] == [True, True]
    assert describe_data(benchmark)[0]["images"] == 60


def test_own_arrays_need_not_be_contiguous_writable_or_of_this_library():
    x, y = np.zeros((4, 3), dtype=np.uint8), np.array([0, 1, 0, 1])
    x.flags.writeable = False
    for given in (x, x[::-1], x.tolist()):
        if isinstance(given, list):
            given = np.array(given, dtype="uint8")
        assert Source.from_arrays((given, y.tolist()), (given, y)).classes == (0, 1)
    for kind in (np.uint8, np.uint16, np.uint32, np.uint64):
        assert Source.from_arrays((x, y.astype(kind)), (x, y)).classes == (0, 1)
    parameter = torch.nn.Parameter(torch.rand(4, 3))
    assert not Source.from_arrays((parameter, y), (parameter, y)).train.images.requires_grad


def test_own_arrays_train(digits):
    x = np.random.default_rng(0).normal(size=(200, 20)) + 3 * (np.arange(200) % 4)[:, None]
    source = Source.from_arrays((x, np.arange(200) % 4), (x, np.arange(200) % 4))
    benchmark = split(source, 2)
    model = MLP(20, (16,), MultiHead)
    memory = InMemoryBatches()
    trainer = naive(model, torch.optim.Adam(model.parameters(), lr=0.01), [memory], epochs=20)
    trainer.train(benchmark.train_stream[0], eval_streams=[])
    assert memory.reason == ""
    x, y, t = samples(benchmark.test_stream[0])
    assert (model(x, t).argmax(1) == y).float().mean() > 0.9


def test_two_data_sets_must_not_have_one_name():
    x, y = np.zeros((2, 3, 4, 4), dtype=np.uint8), np.array([0, 1])
    sources = [Source.from_arrays((x, y), (x, y)) for _ in range(2)]
    digits = Source.load("digits")
    part = ImageSet("digits", "train", digits.train.images[:200], digits.train.labels[:200], digits.train.metadata)
    assert build([Task(digits, (0, 1)), Task(Source.load("digits"), (2, 3))]).train_stream
    with pytest.raises(ValueError, match="two data sets are called 'digits'"):
        build([Task(digits, (0, 1)), Task(Source(part, digits.test), (0, 1))])
    with pytest.raises(ValueError, match="two data sets are called 'arrays': give each a name of its own"):
        build(sequence([Source.from_arrays((x + 1, y), (x, y)), sources[0]]))
    assert len(build(sequence([sources[0], sources[0]])).train_stream) == 2


def test_own_arrays_do_not_take_a_published_name():
    """Results would take them for these."""
    x, y = np.zeros((2, 3), dtype=np.uint8), np.array([0, 1])
    with pytest.raises(ValueError, match=r"'mnist' is a data set of avsi\.data; give yours a name of its own"):
        Source.from_arrays((x, y), (x, y), name="mnist")


def test_tasks_may_come_one_by_one():
    source = Source.load("digits")
    benchmark = build(Task(source, classes) for classes in ((0, 1), (2, 3)))
    assert [image_set.name for image_set in benchmark.image_sets] == ["digits", "digits"]
    assert benchmark.classes == {"digits": [0, 1, 2, 3]}


def test_classes_with_large_numbers_and_gaps():
    x, y = np.zeros((6, 2), dtype=np.uint8), np.array([5, 10**9, 7] * 2)
    source = Source.from_arrays((x, y), (x, y))
    assert source.classes == (5, 7, 10**9)
    assert [e.classes_in_this_experience for e in split(source, 3, scenario="class").train_stream] == [[0], [1], [2]]
    assert describe_data(split(source, 3))[0]["images"] == 6  # and takes no memory for all numbers below
    with pytest.raises(ValueError, match=r"arrays \(test\) has no image of class 6"):
        select_classes(source.test, [5, 6])


# Photographs


def test_photographs_are_cut_into_tiles_that_share_no_pixel():
    from sklearn.datasets import load_sample_image

    train, test = load_photographs()
    assert train.images.shape[1:] == test.images.shape[1:] == (3, 64, 64)
    assert train.name.startswith("photographs (china, flower")
    china = torch.from_numpy(load_sample_image("china.jpg").copy())
    rows, columns = china.shape[0] // 64, china.shape[1] // 64
    tiles = [
        china[64 * r : 64 * r + 64, 64 * c : 64 * c + 64].permute(2, 0, 1)
        for r, c in itertools.product(range(rows), range(columns))
    ]
    assert torch.equal(test.images[test.labels == 0], torch.stack(tiles[4::5]))
    del tiles[4::5]
    assert torch.equal(train.images[train.labels == 0], torch.stack(tiles))


def test_mnist_background_of_photographs_is_called_a_rebuild(real_data):
    benchmark = mnist_background(dataset_root=real_data, images_per_class=3)
    (note,) = benchmark.notes
    assert note.startswith("rebuild: mnist on patches of photographs (china, flower")
    assert [len(e.dataset) for e in benchmark.train_stream] == [60_000, 30]
    name = next(name for name in benchmark.classes if name.startswith("photographs"))
    assert {row["name"] for row in describe_data(benchmark)} == {"mnist", name}
    for i in range(0, 1000, 50):
        digit, with_background = (benchmark.test_stream[task].dataset[i][0] for task in (0, 1))
        assert (with_background >= digit).all()
    assert with_background.mean() > digit.mean() + 0.05


# Further data sets


SHORT = {
    (split_digits, "split"): "digits",
    (split_mnist, "split"): "mnist",
    (split_fashion_mnist, "split"): "fashion_mnist",
    (split_cifar10, "split"): "cifar10",
    (split_cifar100, "split"): "cifar100",
    (permuted_digits, "permuted"): "digits",
    (permuted_mnist, "permuted"): "mnist",
}


@pytest.mark.parametrize(("builder", "generic"), SHORT)
def test_short_names_pass_everything_on(builder, generic, monkeypatch):
    monkeypatch.setitem(builder.__globals__, generic, lambda *args, **options: (args, options))
    options = {"seed": 3, "validation": 0.1, "dataset_root": "here", "download": False, "train_transform": abs}
    expected = (SHORT[builder, generic], 7), {"scenario": "class", **options}
    assert builder(7, scenario="class", **options) == expected
    (name, n), given = builder()
    assert (name, given["scenario"]) == (SHORT[builder, generic], "task" if generic == "split" else "domain")
    assert n == (5 if generic == "split" and name != "cifar100" else 10)


def test_other_split_builders(real_data):
    assert [len(e.dataset) for e in split_fashion_mnist(dataset_root=real_data).train_stream] == [12_000] * 5
    ten = split_cifar10(dataset_root=real_data, scenario="class")
    assert [e.classes_in_this_experience for e in ten.train_stream] == [[2 * i, 2 * i + 1] for i in range(5)]
    assert [len(e.dataset) for e in ten.test_stream] == [2_000] * 5
    present = sorted(load("cifar100", "train", dataset_root=real_data).labels.unique().tolist())
    hundred = split_cifar100(5, dataset_root=real_data)
    assert [len(e.dataset) for e in hundred.train_stream] == [len(present) * 100] * 5
    partial = len(present) < 100
    assert hundred.notes == ((f"partial: {len(present)} of the 100 classes of cifar100",) if partial else ())
    assert split_cifar100(2, class_order=present[:20], dataset_root=real_data).notes == ()


def test_split_cifar_in_other_lengths_and_orders(real_data):
    benchmark = split_cifar(3, class_order=range(20, 40), dataset_root=real_data, scenario="class")
    assert [e.classes_in_this_experience[0] for e in benchmark.train_stream] == [0, 10, 20]
    assert benchmark.classes == {"cifar10": list(range(10)), "cifar100": list(range(20, 40))}
    with pytest.raises(ValueError, match="class_order holds 10 classes of CIFAR-100, and n_experiences=3 needs 20"):
        split_cifar(3, class_order=range(10), dataset_root=real_data)
    with pytest.raises(ValueError, match="n_experiences must be at least 2, got 1"):
        split_cifar(1)


def test_an_image_set_of_a_users_own_may_lack_metadata():
    images = ImageSet("mine", "train", torch.zeros(3, 4), torch.tensor([0, 1, 0]), {})
    assert not images.complete
    assert len(build([*permute(Source(images, images), tasks=1)]).train_stream) == 1


def test_what_is_written_wrongly_is_said_where_it_is_written():
    digits = Source.load("digits")
    tasks = permute(digits, tasks=1)
    grey = torch.zeros(20, 1, 8, 8, dtype=torch.uint8), torch.arange(20) % 2
    two_channels = Source.from_arrays(
        (grey[0].expand(-1, 2, -1, -1), grey[1]), (grey[0].expand(-1, 2, -1, -1), grey[1])
    )
    for call, error, message in (
        (lambda: build("digits"), TypeError, "built of tasks"),
        (lambda: build([digits]), TypeError, "built of tasks"),
        (lambda: sequence("digits"), TypeError, "must be a list of data sets"),
        (lambda: sequence(["digits"], normalise={"digits": (0.1, 0.2)}), TypeError, "gives 0.1 for 'digits'"),
        (lambda: imbalance(tasks, [5]), TypeError, "counts must be a row of numbers for each task"),
        (lambda: remove_at_random(tasks, 0.5), TypeError, "probabilities must be a row of numbers for each task"),
        (lambda: imbalance(tasks, [[5] * 10], seed=1.5), TypeError, "seed must be a whole number"),
        (lambda: remove_at_random(tasks, [[0.5] * 10], seed=-1), ValueError, "seed must not be negative"),
        (lambda: on_backgrounds(digits, two_channels), ValueError, "grey or colour"),
        (lambda: imbalanced_permuted_mnist(11), ValueError, "has numbers for 10 experiences"),
        (lambda: imbalanced_permuted_mnist(removal_seed=-1), ValueError, "removal_seed must not be negative"),
        (lambda: mnist_background(background_seed=-3), ValueError, "background_seed must not be negative"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert on_backgrounds("digits", photographs()).train.images.shape[1:] == (1, 8, 8)
    assert len(imbalance(tasks, np.full((1, 10), 3))[0].datasets()[0]) == 30


def test_a_constant_channel_of_floats_cannot_be_normalised():
    images, labels = torch.rand(20, 2, 8, 8, dtype=torch.float64), torch.arange(20) % 2
    images[:, 1] = 0.3
    with pytest.raises(ValueError, match=r"channel 1 of .* has the same value everywhere"):
        sequence([Source.from_arrays((images, labels), (images, labels))], normalise=True)

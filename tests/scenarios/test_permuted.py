import collections
import random

import numpy as np
import pytest
import torch

from avsi.data import load, published_counts
from avsi.scenarios import (
    Source,
    build,
    imbalance,
    imbalanced_permuted_mnist,
    permute,
    permuted_digits,
    permuted_mnist,
    remove_at_random,
)
from avsi.scenarios.draws import Purpose, permutation

# Appendix A.2, as the table is printed there: a row for each digit, a column for each task; then the totals.
TABLE_2 = """
4459 3780 1847 3820 5867 122 1013 4608 908 3933
1872 3637 1316 6592 1934 1774 5533 2569 831 886
2391 4125 2434 4966 5245 4593 4834 4432 3207 3555
4433 1907 1682 278 3027 2315 5761 3293 2545 3749
186 2728 2002 151 1435 5829 1284 3910 4593 927
4292 2472 2924 1369 4094 4858 2265 3289 1134 1413
2339 3403 4771 5569 1414 2851 2921 4074 336 3993
4717 3090 4800 2574 4086 1065 3520 4705 5400 3650
3295 5493 76 4184 2034 4672 682 196 2409 1709
2625 3880 4735 1647 2645 3921 901 4546 4649 2045
30609 34515 26587 31120 31781 32000 28714 35622 26012 25860
"""


def batch(experience):
    """All samples of an experience, by Avalanche's own indexing."""
    samples = [experience.dataset[i] for i in range(len(experience.dataset))]
    return torch.stack([x for x, _, _ in samples]), torch.tensor([y for _, y, _ in samples]), {t for _, _, t in samples}


def class_counts(experience):
    counts = collections.Counter(experience.dataset.targets)
    return [counts[label] for label in range(10)]


def test_permuted_digits_against_numpy():
    benchmark = permuted_digits(n_experiences=3, seed=7)
    for split in ("train", "test"):
        images = load("digits", split)
        for task, experience in enumerate(getattr(benchmark, f"{split}_stream")):
            x, y, task_labels = batch(experience)
            flat = images.images.numpy().reshape(-1, 64)
            if task:
                flat = flat[:, permutation(64, 7, Purpose.PERMUTATION, task).numpy()]
            assert np.array_equal(x.numpy(), flat.reshape(-1, 1, 8, 8).astype(np.float32) / np.float32(255))
            assert torch.equal(y, images.labels)
            assert task_labels == {0}
            assert experience.task_labels == [0]
            assert experience.classes_in_this_experience == list(range(10))
    assert benchmark.notes == ()
    assert benchmark.classes == {"digits": list(range(10))}
    assert [(i.name, i.split) for i in benchmark.image_sets] == [("digits", "train"), ("digits", "test")]


def test_permutations_differ_by_task_and_seed_and_not_by_the_number_of_tasks():
    def seen(benchmark):
        return [tuple(experience.dataset[3][0].flatten().tolist()) for experience in benchmark.train_stream]

    short, long, other = (
        permuted_digits(n_experiences=3),
        permuted_digits(n_experiences=5),
        permuted_digits(n_experiences=3, seed=1),
    )
    first = permuted_digits(n_experiences=3, permute_first=True)
    assert seen(long)[:3] == seen(short) == seen(permuted_digits(n_experiences=3))
    assert len({*seen(long), *seen(other)}) == 7  # the first task is the same one
    assert seen(first)[1:] == seen(short)[1:]
    assert seen(first)[0] != seen(short)[0]
    assert sorted(seen(first)[0]) == sorted(seen(short)[0])


def test_no_task_and_negative_seeds_are_refused():
    with pytest.raises(ValueError, match="n_experiences must be at least 1, got 0"):
        permuted_digits(n_experiences=0)
    with pytest.raises(ValueError, match="seed must not be negative"):
        permuted_digits(seed=-1)
    with pytest.raises(ValueError, match="at least one task"):
        build([])


def test_global_random_state_is_left_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    tasks = remove_at_random(permute(Source.load("digits"), tasks=2), torch.full((2, 10), 0.5))
    build(tasks, validation=0.1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]


def test_imbalance_keeps_so_many_of_each_class_in_order():
    counts = [[10 * c for c in range(10)], [140] * 10]
    source = Source.load("digits")
    benchmarks = [
        build(imbalance(permute(source, tasks=2, seed=2), counts, seed=seed), scenario="domain") for seed in (0, 0, 1)
    ]
    for task in range(2):
        whole = {
            tuple(x) for x in batch(permuted_digits(n_experiences=2, seed=2).train_stream[task])[0].flatten(1).tolist()
        }
        x, y, _ = (batch(b.train_stream[task]) for b in benchmarks)
        for found in (x, y):
            assert found[1].bincount(minlength=10).tolist() == counts[task]
            assert {tuple(image) for image in found[0].flatten(1).tolist()} <= whole
        assert torch.equal(x[0], y[0])
        assert not torch.equal(x[0], batch(benchmarks[2].train_stream[task])[0])
        assert len(benchmarks[0].test_stream[task].dataset) == 355
    rows = benchmarks[0].train_stream[0].dataset
    positions = [load("digits", "train").images.flatten(1).tolist().index(x) for x in unscaled(rows)]
    assert positions == sorted(positions)
    assert benchmarks[0].train_stream[0].classes_in_this_experience == list(range(1, 10))


def unscaled(dataset):
    return [(dataset[i][0] * 255).round().int().flatten().tolist() for i in range(len(dataset))]


def test_imbalance_says_what_does_not_fit():
    tasks = permute(Source.load("digits"), tasks=2)
    with pytest.raises(ValueError, match="counts of 1 tasks, but there are 2 tasks"):
        imbalance(tasks, [[1] * 10])
    with pytest.raises(ValueError, match="task 1 has 10 classes, but its counts are"):
        imbalance(tasks, [[1] * 10, [1] * 9])
    with pytest.raises(ValueError, match=r"task 1 asks for 144 images of class 0, and digits \(train\) has 143"):
        imbalance(tasks, [[1] * 10, [144] + [1] * 9])
    with pytest.raises(ValueError, match="every count must be at least 0, got -1"):
        imbalance(tasks, [[1] * 10, [-1] * 10])


def test_removal_by_probability():
    tasks = permute(Source.load("digits"), tasks=2)
    probabilities = [[0.0, 1.0] + [0.5] * 8, [0.9] * 10]
    counts = [class_counts(e) for e in build(remove_at_random(tasks, probabilities)).train_stream]
    whole = published_counts("digits", "train")
    assert counts[0][:2] == [whole[0], 0]
    for task, p in ((0, 0.5), (1, 0.1)):
        total, size = sum(counts[task][2:]), sum(whole[2:])
        assert abs(total - p * size) < 4 * (size * p * (1 - p)) ** 0.5


# Real MNIST


def test_permuted_mnist(real_data):
    benchmark = permuted_mnist(dataset_root=real_data, validation=0.1, seed=3)
    assert [len(e.dataset) for e in benchmark.test_stream] == [10_000] * 10
    train, valid = (sum(len(e.dataset) for e in stream) for stream in (benchmark.train_stream, benchmark.valid_stream))
    held_out = sum(round(0.1 * count) for count in published_counts("mnist", "train"))
    assert (train, valid) == (10 * (60_000 - held_out), 10 * held_out)
    mnist = load("mnist", "test", dataset_root=real_data)
    for task, experience in enumerate(benchmark.test_stream):
        assert list(experience.dataset.targets) == mnist.labels.tolist()
        flat = mnist.images[4321].numpy().flatten()
        expected = flat[permutation(784, 3, 0, task).numpy()] if task else flat
        x, y, task_label = experience.dataset[4321]
        assert x.shape == (1, 28, 28)
        assert np.array_equal(x.numpy().flatten(), expected.astype(np.float32) / np.float32(255))
        assert (y, task_label) == (int(mnist.labels[4321]), 0)


def test_table_2(real_data):
    *rows, totals = [[int(number) for number in line.split()] for line in TABLE_2.strip().splitlines()]
    columns = [list(column) for column in zip(*rows, strict=True)]
    # The paper's total of task 4 is not the sum of its own numbers.
    assert [sum(column) - total for column, total in zip(columns, totals, strict=True)] == [
        0,
        0,
        0,
        30,
        0,
        0,
        0,
        0,
        0,
        0,
    ]
    benchmark = imbalanced_permuted_mnist(dataset_root=real_data)
    assert [class_counts(experience) for experience in benchmark.train_stream] == columns
    assert [class_counts(e) for e in benchmark.test_stream] == [list(published_counts("mnist", "test"))] * 10
    assert {e.task_label for e in benchmark.train_stream} == {0}
    valid = imbalanced_permuted_mnist(dataset_root=real_data, n_experiences=2, validation=0.2)
    for task in range(2):
        held_out = class_counts(valid.valid_stream[task])
        assert held_out == [round(0.2 * count) for count in columns[task]]
        assert [a + b for a, b in zip(held_out, class_counts(valid.train_stream[task]), strict=True)] == columns[task]
    # Inputs are those of permuted MNIST.
    x, y, _ = benchmark.train_stream[4].dataset[0]
    whole = permuted_mnist(dataset_root=real_data, n_experiences=5).train_stream[4].dataset
    assert any(torch.equal(x, whole[i][0]) for i in range(20) if whole[i][1] == y)


def test_imbalanced_permuted_mnist_by_probability_and_by_hand(real_data):
    first, again, other = (
        [
            class_counts(e)
            for e in imbalanced_permuted_mnist(
                dataset_root=real_data, n_experiences=2, counts="random", removal_seed=removal, seed=seed
            ).train_stream
        ]
        for removal, seed in ((0, 0), (0, 1), (1, 0))
    )
    # The same probabilities, other images: counts differ by chance alone.
    pairs = list(zip(first[0] + first[1], again[0] + again[1], other[0] + other[1], strict=True))
    assert max(abs(a - b) for a, b, _ in pairs) < 5 * (2 * 6742 / 4) ** 0.5
    assert max(abs(a - c) for a, _, c in pairs) > 1000
    by_hand = imbalanced_permuted_mnist(dataset_root=real_data, n_experiences=1, counts=[range(10)])
    assert class_counts(by_hand.train_stream[0]) == list(range(10))
    with pytest.raises(ValueError, match='counts must be "table2", "random" or a row'):
        imbalanced_permuted_mnist(dataset_root=real_data, counts="table3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has numbers for 10 experiences, n_experiences is 11"):
        imbalanced_permuted_mnist(dataset_root=real_data, n_experiences=11)


def test_thinned_test_sets_have_the_proportions_of_the_training_sets(real_data):
    """Of Table 2's first task: 4459 of 5923 zeros leave 738 of 980 in the test set."""
    whole, thinned = (
        imbalanced_permuted_mnist(dataset_root=real_data, n_experiences=2, thin_test=thin) for thin in (False, True)
    )
    assert [class_counts(e) for e in thinned.train_stream] == [class_counts(e) for e in whole.train_stream]
    assert class_counts(thinned.test_stream[0]) == [738, 315, 414, 730, 31, 706, 379, 774, 549, 445]
    assert class_counts(thinned.test_stream[1])[:3] == [625, 612, 715]

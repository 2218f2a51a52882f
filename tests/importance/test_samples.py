"""Batches: which samples are chosen, what is a batch, and what each task is given."""

import numpy as np
import pytest
import torch

from avsi.importance.samples import split_by_task, subset, unpack


def numbered(*sizes, task=None):
    """Batches whose inputs count the samples."""
    x = torch.arange(sum(sizes))
    tasks = [task] * len(sizes) if task is None or isinstance(task, int) else task
    return [(part, part % 3, *([] if t is None else [t])) for part, t in zip(x.split(sizes), tasks, strict=True)]


def chosen(batches, count, seed=0):
    return list(subset(batches, count, torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("sizes", [(40,), (1,) * 40, (7, 7, 7, 7, 7, 5), (3, 30, 7)])
def test_subsets_keep_the_order_of_the_data_and_the_size_of_batches(sizes):
    got = chosen(numbered(*sizes), 25)
    rows = torch.cat([x for x, _, _ in got])
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert len(rows) == 25
    assert torch.equal(rows, chosen(numbered(40), 25)[0][0])  # whatever the batches
    assert all(torch.equal(y, x % 3) for x, y, _ in got)
    largest = max(sizes)
    assert [len(x) for x, _, _ in got] == [largest] * (25 // largest) + [25 % largest] * (25 % largest > 0)


def test_subsets_differ_with_the_seed_and_hold_all_there_is_of_less():
    assert chosen(numbered(40), 25, seed=1)[0][0].tolist() != chosen(numbered(40), 25)[0][0].tolist()
    assert torch.cat([x for x, _, _ in chosen(numbered(4, 4), 25)]).tolist() == list(range(8))
    assert chosen([], 3) == []


def test_samples_of_a_subset_are_copies():
    buffer = torch.zeros(1, 2)  # which a loader fills anew for each batch
    got = chosen(((buffer.fill_(batch), None) for batch in range(6)), 6)
    assert torch.cat([x for x, _, _ in got])[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_samples_of_several_shapes_do_not_share_a_batch():
    batches = [(torch.zeros(rows, length), None) for rows, length in ((2, 3), (4, 5), (1, 3))]
    got = chosen(batches, 8)
    assert [tuple(x.shape) for x, _, _ in got] == [(2, 3), (4, 5), (1, 3)]
    assert all(y is None for _, y, _ in got)


def test_samples_with_other_task_numbers_do_not_share_a_batch():
    got = chosen(numbered(1, 1, 4, task=[7, 7, 8]), 8)
    assert [(x.tolist(), task) for x, _, task in got] == [([0, 1], 7), ([2, 3, 4, 5], 8)]


def test_samples_with_task_labels_of_their_own_do():
    labels = [torch.tensor([0, 1]), torch.tensor([1, 0])]
    got = chosen(numbered(2, 2, task=labels), 4)
    assert [task.tolist() for _, _, task in got] == [[0, 1], [1, 0]]


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor])
def test_task_labels_in_a_list(kind):
    _, _, task = unpack((torch.zeros(3), torch.zeros(3), kind([2, 0, 2])))
    assert torch.equal(task, torch.tensor([2, 0, 2]))
    parts = list(split_by_task(torch.arange(3), torch.tensor([5, 6, 7]), task, torch.device("cpu")))
    assert [(p.inputs.tolist(), p.targets.tolist(), p.task.tolist(), p.task_label) for p in parts] == [
        ([1], [6], [0], 0),
        ([0, 2], [5, 7], [2, 2], 2),
    ]


def test_a_list_of_too_few_task_labels():
    with pytest.raises(ValueError, match="3 inputs but 2 task labels"):
        unpack((torch.zeros(3), torch.zeros(3), [0, 1]))


def test_one_task_label_for_all():
    for task in (4, torch.tensor(4), np.int64(4)):
        assert unpack((torch.zeros(3), None, task))[2] == 4
    assert unpack((torch.zeros(3), None))[2] is None
    (part,) = split_by_task(torch.arange(3), None, 4, torch.device("cpu"))
    assert (part.task, part.task_label, part.targets) == (4, 4, None)
    (part,) = split_by_task(torch.arange(3), None, None, torch.device("cpu"))
    assert (part.task, part.task_label) == (None, None)


@pytest.mark.parametrize(
    "bad", [["a", 0, 1], [0.5, 1.0, 2.0], "a", 1.5, True, torch.tensor(0.5), torch.zeros(3, 1).long()]
)
def test_bad_task_labels(bad):
    with pytest.raises(TypeError, match="task labels must be integers, one per sample or one for all, got"):
        unpack((torch.zeros(3), torch.zeros(3), bad))


def test_parts_of_a_batch():
    (batch,) = split_by_task(torch.arange(5), torch.arange(5, 10), torch.full((5,), 3), torch.device("cpu"))
    assert batch.part(slice(0, 5)) is batch
    part = batch.part(slice(3, 8))
    assert (part.inputs.tolist(), part.targets.tolist(), part.task.tolist(), part.task_label) == (
        [3, 4],
        [8, 9],
        [3, 3],
        3,
    )
    seen = []
    part.call(lambda x, task: seen.append((x.tolist(), task.tolist())), torch.arange(3))
    assert seen == [([0, 1, 2], [3, 3, 3])]


def test_tensors_of_inference_mode_are_copied():
    with torch.inference_mode():
        x = torch.zeros(2, 2)
    (batch,) = split_by_task(x, None, None, torch.device("cpu"))
    assert not batch.inputs.is_inference()

import pytest
import torch
from avalanche.benchmarks.scenarios import CLScenario
from avalanche.models import MultiHeadClassifier, SimpleMLP
from avalanche.models.dynamic_modules import MultiTaskModule
from avalanche.training import Replay
from torch import nn
from training import naive

from avsi.data import load, published_counts
from avsi.scenarios import Source, Task, build, imbalance, split_cifar, split_digits, split_mnist
from avsi.scenarios.build import select_classes, split_stratified


def samples(dataset):
    rows = [dataset[i] for i in range(len(dataset))]
    return torch.stack([row[0] for row in rows]), torch.tensor([row[1] for row in rows]), [row[2] for row in rows]


def test_split_digits_holds_each_image_once_in_its_task(digits):
    assert isinstance(digits, CLScenario)
    for split in ("train", "test"):
        images = load("digits", split)
        stream = getattr(digits, f"{split}_stream")
        assert len(stream) == 5
        for task, experience in enumerate(stream):
            assert experience.task_label == task
            assert experience.task_labels == [task]
            assert experience.classes_in_this_experience == [0, 1]
            assert experience.current_experience == task
            x, y, t = samples(experience.dataset)
            mine = (images.labels == 2 * task) | (images.labels == 2 * task + 1)
            assert torch.equal(x, images.images[mine].float() / 255)
            assert torch.equal(y, images.labels[mine] - 2 * task)
            assert set(t) == {task}
            assert list(experience.dataset.targets) == y.tolist()


def test_validation_is_stratified_disjoint_and_seeded():
    full = split_digits()
    first, again, other = (split_digits(validation=0.2, seed=seed) for seed in (1, 1, 2))
    differs = False
    for task in range(5):
        x, y, _ = samples(full.train_stream[task].dataset)
        train, _, _ = samples(first.train_stream[task].dataset)
        valid, y_valid, _ = samples(first.valid_stream[task].dataset)
        for label in (0, 1):
            assert (y_valid == label).sum() == round(0.2 * (y == label).sum().item())
        together = torch.cat([train, valid]).flatten(1)
        assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, x.flatten(1).tolist()))
        assert torch.equal(valid, samples(again.valid_stream[task].dataset)[0])
        differs |= not torch.equal(valid, samples(other.valid_stream[task].dataset)[0])
        assert first.valid_stream[task].task_label == task
    assert differs
    assert "valid" not in full.streams


def test_validation_has_at_least_one_image_of_each_class_that_has_two():
    (task,) = imbalance([Task(Source.load("digits"), (0, 1, 2, 3))], [[50, 4, 2, 1]])
    benchmark = build([task], validation=0.1)
    counts = [stream[0].dataset for stream in (benchmark.train_stream, benchmark.valid_stream)]
    assert [samples(data)[1].bincount().tolist() for data in counts] == [[45, 3, 1, 1], [5, 1, 1]]


@pytest.mark.parametrize("validation", [-0.1, 1.0, 2])
def test_validation_out_of_range(validation):
    with pytest.raises(ValueError, match=r"validation must be a fraction in \[0, 1\)"):
        split_digits(validation=validation)


def test_building_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    split_digits(validation=0.5, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_class_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"digits \(test\) has no image of class 12"):
        select_classes(load("digits", "test"), [3, 12])


def test_what_is_held_out_and_what_is_kept_are_all():
    data = select_classes(load("digits", "train"), [7, 2])
    kept, held = split_stratified(data, 0.25, seed=0)
    assert len(kept) + len(held) == len(data)


class StockMultiHead(MultiTaskModule):
    """Avalanche's own multi-head classifier, masking on."""

    def __init__(self):
        super().__init__()
        self.body = SimpleMLP(input_size=64, hidden_size=16, num_classes=16)
        self.classifier = MultiHeadClassifier(16)

    def forward(self, x, task_labels):
        return self.classifier(self.body(x.flatten(1)), task_labels)


def test_avalanches_own_multi_head_classifier_and_replay_work_on_it(digits):
    model = StockMultiHead()
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.05), strategy=Replay, mem_size=50)
    for experience in digits.train_stream[:3]:
        strategy.train(experience, eval_streams=[])
    strategy.eval(digits.test_stream)
    assert len(model.classifier.classifiers) == 5
    assert isinstance(model.classifier.classifiers["4"].classifier, nn.Linear)


def test_split_mnist(real_data):
    benchmark = split_mnist(dataset_root=real_data, validation=0.1)
    counts = {split: published_counts("mnist", split) for split in ("train", "test")}
    for task in range(5):
        total = sum(counts["train"][2 * task : 2 * task + 2])
        valid = sum(round(0.1 * count) for count in counts["train"][2 * task : 2 * task + 2])
        assert len(benchmark.train_stream[task].dataset) == total - valid
        assert len(benchmark.valid_stream[task].dataset) == valid
        assert len(benchmark.test_stream[task].dataset) == sum(counts["test"][2 * task : 2 * task + 2])
        assert benchmark.train_stream[task].classes_in_this_experience == [0, 1]
        x, y, t = benchmark.train_stream[task].dataset[0]
        assert x.shape == (1, 28, 28)
        assert 0 <= x.min() <= x.max() <= 1
        assert t == task
        assert y in (0, 1)


def test_split_cifar(real_data):
    benchmark = split_cifar(dataset_root=real_data)
    assert [len(e.dataset) for e in benchmark.train_stream] == [50_000] + 5 * [5_000]
    assert [len(e.dataset) for e in benchmark.test_stream] == [10_000] + 5 * [1_000]
    cifar100 = load("cifar100", "train", dataset_root=real_data)
    for task, experience in enumerate(benchmark.train_stream):
        assert experience.classes_in_this_experience == list(range(10))
        assert experience.task_label == task
    first_of_30 = int(torch.nonzero(cifar100.labels == 30)[0])
    batch = benchmark.train_stream[4].dataset
    index = batch.targets.val_to_idx[0][0]
    assert torch.equal(batch[index][0], cifar100.images[first_of_30].float() / 255)


def test_random_order_of_classes_is_the_seeds():
    def order(seed):
        stream = split_digits(class_order="random", seed=seed, scenario="class").train_stream
        pictures = [experience.dataset[0][0].sum().item() for experience in stream]
        return pictures, [len(experience.dataset) for experience in stream]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert sum(order(1)[1]) == sum(len(experience.dataset) for experience in split_digits().train_stream)

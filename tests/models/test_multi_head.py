import numpy as np
import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline, with_task_labels
from avalanche.models import IncrementalClassifier, avalanche_forward
from avalanche.models.dynamic_modules import avalanche_model_adaptation
from avalanche.training import JointTraining, LwF, Replay
from torch import nn
from training import naive, seeded_mlp

from avsi.data.dataset import ImageDataset
from avsi.models import MLP, GrowingHead, MultiHead, SplitCIFARNet
from avsi.scenarios import split_digits
from avsi.scenarios.build import with_task_label


def test_heads_appear_with_their_tasks_and_have_just_their_classes(digits):
    model = seeded_mlp()
    assert len(model.head.heads) == 0
    for task, experience in enumerate(digits.train_stream):
        avalanche_model_adaptation(model, experience)
        assert list(model.head.heads) == [str(t) for t in range(task + 1)]
        assert model.head.heads[str(task)].weight.shape == (2, 16)


def test_avalanche_is_told_of_tasks_and_classes(digits):
    """Its base class counts them; plugins and forward_all_tasks look there."""
    head = MultiHead(64)
    avalanche_model_adaptation(head, digits.train_stream[0])
    assert head.known_train_tasks_labels == {0}
    assert head.max_class_label == 2
    head.eval()
    avalanche_model_adaptation(head, digits.train_stream[1])
    assert head.known_train_tasks_labels == {0}
    assert list(head.heads) == ["0", "1"]


def test_tasks_of_one_experience_have_heads_of_their_own_sizes():
    images = split_digits().image_sets[0]

    def data(task, classes):
        rows = torch.nonzero(images.labels < classes).flatten()
        return with_task_label(ImageDataset(images.images, rows, images.labels[rows]), task)

    both = benchmark_from_datasets(train=[data(0, 2).concat(data(1, 5))])
    head = MultiHead(64)
    avalanche_model_adaptation(head, with_classes_timeline(with_task_labels(both)).train_stream[0])
    assert {task: len(layer.weight) for task, layer in head.heads.items()} == {"0": 2, "1": 5}


def test_single_task_batches_use_their_own_head_without_padding():
    head = MultiHead(4)
    head.resize(0, 2)
    head.resize(1, 5)
    x = torch.randn(3, 4)
    assert torch.equal(head(x, torch.ones(3, dtype=torch.int64)), head.heads["1"](x))
    assert torch.equal(head(x, 0), head.heads["0"](x))
    assert head(x, torch.zeros(3, dtype=torch.int64)).shape == (3, 2)


def test_mixed_batches_never_choose_a_padded_class_and_give_it_no_probability():
    head = MultiHead(4)
    head.resize(0, 2)
    head.resize(3, 5)
    x = torch.randn(6, 4)
    tasks = torch.tensor([0, 3, 0, 3, 3, 0])
    out = head(x, tasks)
    assert out.shape == (6, 5)
    for i, task in enumerate(tasks.tolist()):
        single = head.heads[str(task)](x[i : i + 1])[0]
        torch.testing.assert_close(out[i, : len(single)], single)
        probabilities = out[i].softmax(0)
        torch.testing.assert_close(probabilities[: len(single)], single.softmax(0))
        assert (probabilities[len(single) :] == 0).all()
        assert (out[i, len(single) :] == -1000).all()  # finite under label smoothing, which takes a share of each
    # Gradients are those of separate batches: nothing flows through padding.
    loss = nn.functional.cross_entropy(out, torch.tensor([0, 4, 1, 0, 2, 1]), reduction="sum")
    mixed = torch.autograd.grad(loss, list(head.parameters()))
    apart = sum(
        nn.functional.cross_entropy(head(x[tasks == t], t), y, reduction="sum")
        for t, y in ((0, torch.tensor([0, 1, 1])), (3, torch.tensor([4, 0, 2])))
    )
    for a, b in zip(mixed, torch.autograd.grad(apart, list(head.parameters())), strict=True):
        torch.testing.assert_close(a, b)


def test_without_task_labels_every_heads_output():
    head = MultiHead(4)
    head.resize(0, 2)
    head.resize(1, 3)
    out = head(torch.randn(5, 4), None)
    assert {task: tuple(o.shape) for task, o in out.items()} == {0: (5, 2), 1: (5, 3)}


def test_growing_a_head_keeps_its_outputs():
    head = MultiHead(4)
    head.resize(0, 2)
    x = torch.randn(3, 4)
    before = head(x, 0)
    head.resize(0, 5)
    after = head(x, 0)
    assert after.shape == (3, 5)
    torch.testing.assert_close(after[:, :2], before)
    weight = head.heads["0"].weight
    head.resize(0, 3)
    assert head.heads["0"].weight is weight


def test_new_heads_follow_device_and_dtype():
    head = MultiHead(4).to(torch.float64)
    head.resize(0, 2)
    assert head.heads["0"].weight.dtype == torch.float64


def test_works_under_autocast():
    head = MultiHead(4)
    head.resize(0, 2)
    head.resize(1, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = head(torch.randn(4, 4), torch.tensor([0, 1, 1, 0]))
    assert out.dtype == torch.bfloat16


def test_unknown_task_is_named():
    head = MultiHead(4)
    head.resize(0, 2)
    with pytest.raises(KeyError, match=r"no head for task 7; known tasks: 0"):
        head(torch.randn(2, 4), 7)


@pytest.mark.parametrize("task", [1, np.int64(1), torch.tensor(1)])
def test_one_task_label_for_all_may_be_a_number_of_any_library(task):
    heads = MultiHead(4)
    heads.resize(1, 3)
    assert heads(torch.rand(2, 4), task).shape == (2, 3)


def test_an_empty_batch_has_no_task():
    head = MultiHead(4)
    head.resize(0, 2)
    with pytest.raises(ValueError, match="the batch is empty, so no task's head can be chosen"):
        head(torch.randn(0, 4), torch.empty(0, dtype=torch.int64))
    assert head(torch.randn(0, 4), 0).shape == (0, 2)


KIND, RANGE = (TypeError, "must be a whole number"), (ValueError, "must be at least 1")


@pytest.mark.parametrize(("size", "answer"), [(0, RANGE), (-1, RANGE), (2.0, KIND), (True, KIND)])
def test_bad_sizes(size, answer):
    error, message = answer
    with pytest.raises(error, match=f"in_features {message}, got {size}"):
        MultiHead(size)
    with pytest.raises(error, match=f"a hidden layer's size {message}, got {size}"):
        MLP(4, (size,))


@pytest.mark.parametrize(("size", "answer"), [(0, RANGE), (-2, RANGE), (2.0, KIND), (None, KIND), ("3", KIND)])
def test_bad_resizing(size, answer):
    head = MultiHead(4)
    error, message = answer
    with pytest.raises(error, match=f"classes {message}, got {size!r}"):
        head.resize(5, size)
    with pytest.raises(TypeError, match=r"a task label must be a whole number, got 1\.5"):
        head.resize(1.5, 2)
    assert len(head.heads) == 0


@pytest.mark.parametrize(
    ("head", "answer"), [(0, RANGE), (-1, RANGE), (2.5, KIND), ("10", KIND), (None, KIND), (True, KIND)]
)
def test_bad_heads(head, answer):
    error, message = answer
    with pytest.raises(error, match=f"head, as a number of classes, {message}, got {head!r}"):
        MLP(4, (4,), head)


def test_a_head_that_is_built_is_refused_at_once():
    with pytest.raises(TypeError, match=r"head must be a number of classes, or .* got a Linear that is built"):
        MLP(4, (4,), nn.Linear(4, 2))


def hidden(features, classes):
    return nn.Sequential(nn.Linear(features, 8), nn.ReLU(), nn.Linear(8, classes))


def test_a_head_with_hidden_layers_is_refused_where_it_would_have_to_grow():
    """It was left as it is, since its first layer has more rows than classes were wanted."""
    heads = MultiHead(4, hidden)
    for classes in (3, 2, 3):
        heads.resize(0, classes)
    assert heads(torch.zeros(1, 4), 0).shape == (1, 3)
    heads.load_state_dict({name: value + 1 for name, value in heads.state_dict().items()})
    with pytest.raises(ValueError, match="of 3 classes, Sequential's first parameter has 8 rows"):
        heads.resize(0, 4)


def test_numbers_of_every_kind_are_taken():
    for kind in (np.int64, torch.tensor):
        model = MLP(kind(6), (kind(5),), kind(3), dropout=np.float32(0.5))
        assert [tuple(p.shape) for p in model.parameters()] == [(5, 6), (5,), (3, 5), (3,)]
        head = MultiHead(kind(4))
        head.resize(kind(7), kind(2))
        assert head(torch.zeros(1, 4), 7).shape == (1, 2)
        growing = GrowingHead(kind(4), initial_classes=kind(2), mask_value=np.float32(-5))
        growing.resize(kind(3))
        assert growing(torch.zeros(1, 4)).tolist() == [[-5.0] * 3]


def test_bad_dropout():
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\), got 1"):
        MLP(4, (4,), dropout=1)


@pytest.mark.parametrize(("strategy", "arguments"), [(Replay, {"mem_size": 40}), (JointTraining, {})])
def test_strategies_that_mix_tasks_in_a_batch(digits, strategy, arguments):
    model = seeded_mlp()
    trainer = naive(model, torch.optim.Adam(model.parameters(), lr=1e-2), strategy=strategy, epochs=4, **arguments)
    if strategy is JointTraining:
        trainer.train(digits.train_stream, eval_streams=[])
    else:
        for experience in digits.train_stream[:3]:
            trainer.train(experience, eval_streams=[])
    for experience in digits.test_stream[:3]:
        samples = [experience.dataset[i] for i in range(len(experience.dataset))]
        x = torch.stack([sample[0] for sample in samples])
        y = torch.tensor([sample[1] for sample in samples])
        right = (model(x, experience.task_label).argmax(1) == y).float().mean().item()
        assert right > 0.85


def test_single_head_models_ignore_task_labels():
    model = MLP(64, (8,), 10)
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(avalanche_forward(model, x, torch.tensor([0, 1, 2])), model(x))
    assert model(x).shape == (3, 10)


def test_learning_without_forgetting_works_with_a_single_head(digits):
    """It asks a multi-task module for all its outputs."""
    model = seeded_mlp(head=2)
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(model(x, None)[0], model(x))
    trainer = naive(model, torch.optim.SGD(model.parameters(), lr=0.01), strategy=LwF, alpha=1.0, temperature=2.0)
    before = model.features[1].weight.clone()
    for experience in digits.train_stream[:2]:
        trainer.train(experience, eval_streams=[])
    assert not torch.equal(model.features[1].weight, before)


def test_incremental_classifier_as_head(digits):
    model = MLP(64, (8,), IncrementalClassifier)
    avalanche_model_adaptation(model, digits.train_stream[0])
    assert model(torch.randn(3, 1, 8, 8), torch.zeros(3, dtype=torch.int64)).shape == (3, 2)


def test_split_cifar_net_is_the_papers():
    model = SplitCIFARNet(10)
    shapes = [tuple(p.shape) for p in model.parameters()]
    assert shapes == [
        (32, 3, 3, 3), (32,), (32, 32, 3, 3), (32,),
        (64, 32, 3, 3), (64,), (64, 64, 3, 3), (64,),
        (512, 2304), (512,), (10, 512), (10,),
    ]  # fmt: skip
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.25, 0.25, 0.5]
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert isinstance(SplitCIFARNet().head, MultiHead)


def test_heads_with_hidden_layers_are_loaded():
    def head(features, classes):
        return nn.Sequential(nn.Linear(features, 32), nn.ReLU(), nn.Linear(32, classes))

    saved, loaded = MultiHead(16, head=head), MultiHead(16, head=head)
    for task, classes in ((0, 2), (1, 40)):
        saved.resize(task, classes)
    state = torch.get_rng_state()
    assert saved._count_classes(saved.heads["1"].state_dict()) == 40
    assert torch.equal(torch.get_rng_state(), state)
    loaded.load_state_dict(saved.state_dict())
    x = torch.randn(3, 16)
    assert [loaded(x, task).shape[1] for task in (0, 1)] == [2, 40]
    assert all(torch.equal(loaded(x, task), saved(x, task)) for task in (0, 1))


def test_task_labels_that_are_not_one_for_each_sample_or_no_whole_number_are_refused():
    heads = MultiHead(4)
    heads.resize(1, 2)
    with pytest.raises(TypeError, match=r"whole number, got 1\.7"):
        heads(torch.zeros(2, 4), 1.7)
    with pytest.raises(ValueError, match=r"one task label for each of 6 samples, got 2"):
        heads(torch.zeros(6, 4), torch.ones(2, dtype=torch.int64))

import copy
from functools import partial

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.models.dynamic_modules import avalanche_model_adaptation
from oracles import importance as oracle_importance
from torch import nn
from torch.utils.data import TensorDataset
from training import default_dtype, naive, seeded_mlp

from avsi import DHPPlugin, MASPlugin, fisher_diagonal, mas_importance
from avsi.models import MLP, DHPLinear, GrowingHead, MatchedLinear, MultiHead, SplitCIFARNet


@pytest.fixture(scope="module")
def class_incremental():
    torch.manual_seed(0)
    y = torch.arange(300) % 6
    data = TensorDataset(torch.randn(300, 64) + 2 * nn.functional.one_hot(y, 64), y)
    data.targets = y
    return nc_benchmark(data, data, 3, task_labels=False, fixed_class_order=[0, 1, 2, 5, 3, 4])


@pytest.mark.parametrize("per_connection", [False, True])
@pytest.mark.parametrize("container", [MultiHead, GrowingHead])
def test_growing_keeps_old_classes_and_starts_new_ones_without_traces(container, per_connection):
    head = container(4, head=partial(DHPLinear, eta=0.5, per_connection_eta=per_connection)).to(torch.float64)
    resize = head.resize if container is GrowingHead else partial(head.resize, 0)
    get = (lambda: head.head) if container is GrowingHead else (lambda: head.heads["0"])
    resize(2)
    layer = get()
    layer(torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 2)
    with torch.no_grad():
        layer.eta.add_(torch.rand_like(layer.eta) / 10)
    layer.eta.requires_grad_(False)
    resize(5)
    grown = get()
    assert grown is not layer
    for name, old in layer.state_dict().items():
        new = grown.state_dict()[name]
        assert new.dtype == torch.float64
        assert torch.equal(new[:2] if new.dim() else new, old)
    assert grown.hebb.shape == grown.alpha.shape == grown.weight.shape == (5, 4)
    assert (grown.hebb[:2] != 0).all()
    assert (grown.hebb[2:] == 0).all()
    assert (grown.alpha[2:] > 0).all()
    if per_connection:
        torch.testing.assert_close(grown.eta[2:], torch.full((3, 4), 0.5, dtype=torch.float64))
    assert not grown.eta.requires_grad
    assert grown.weight.requires_grad
    resize(3)
    assert get() is grown


def test_growing_heads_have_no_hidden_layers():
    with pytest.raises(ValueError, match="of 2 classes, Sequential's first parameter has 8 rows"):
        GrowingHead(4, lambda features, classes: nn.Sequential(nn.Linear(features, 8), nn.Linear(8, classes)))


@pytest.mark.parametrize("head", [nn.Linear, MatchedLinear, DHPLinear])
def test_growing_head_follows_a_class_incremental_stream(class_incremental, head):
    torch.manual_seed(0)
    model = MLP(64, (16,), partial(GrowingHead, head=head))
    plugins = [DHPPlugin()] if head is DHPLinear else []
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.1), plugins, epochs=5, eval_every=1)
    for experience, seen in zip(class_incremental.train_stream, ([0, 1], [0, 1, 2, 5], range(6)), strict=True):
        strategy.train(experience, eval_streams=[class_incremental.test_stream])  # which grows the head to all classes
        strategy.eval(class_incremental.test_stream)
        logits = model.eval()(torch.randn(4, 64))
        assert logits.shape == (4, 6)
        unseen = [c for c in range(6) if c not in seen]
        assert (logits[:, unseen] == -1000).all()
        assert (logits[:, list(seen)] != -1000).all()
        x, y = (torch.stack([torch.as_tensor(s[i]) for s in experience.dataset]) for i in (0, 1))
        assert (model(x).argmax(1) == y).float().mean() > 0.8
    assert model.head.seen.all()


def test_growing_head_without_mask(class_incremental):
    head = GrowingHead(64, mask_value=None)
    avalanche_model_adaptation(head, class_incremental.train_stream[1])
    assert (head(torch.randn(3, 64)) != -1000).all()


def test_the_state_of_a_grown_head_loads_into_a_fresh_one():
    head = GrowingHead(4, DHPLinear)
    head.resize(7)
    head.seen[:5] = True
    fresh = nn.Sequential(GrowingHead(4, DHPLinear))
    fresh.load_state_dict({f"0.{name}": value for name, value in head.state_dict().items()})
    x = torch.randn(3, 4)
    assert torch.equal(fresh.eval()(x), head.eval()(x))


def test_classes_that_were_seen_stay_seen_as_the_head_grows(class_incremental):
    head = GrowingHead(64)
    avalanche_model_adaptation(head, class_incremental.train_stream[0])
    assert head.seen.tolist() == [True, True]
    head.resize(4)
    assert head.seen.tolist() == [True, True, False, False]
    x = torch.randn(3, 64)
    assert (head(x)[:, :2] != -1000).all()
    assert (head(x)[:, 2:] == -1000).all()
    avalanche_model_adaptation(head, class_incremental.train_stream[1])
    assert head.seen.tolist() == [True, True, True, False, False, True]


def two_layers(features, classes):
    return nn.Sequential(nn.Linear(features, classes), nn.BatchNorm1d(classes))


@pytest.mark.parametrize("size", [0, 3])
@pytest.mark.parametrize("head", [nn.Linear, two_layers, MatchedLinear, partial(DHPLinear, per_connection_eta=True)])
def test_the_state_of_other_heads_loads_into_a_multi_head(head, size):
    old = nn.Sequential(MultiHead(4, head))
    for task, classes in ((3, 2), (0, 5), (12, 1), (-1, 2)):
        old[0].resize(task, classes)
    new = nn.Sequential(MultiHead(4, head)).double().eval()
    if size:  # one that is to grow
        new[0].resize(0, size)
    new.load_state_dict(old.state_dict())
    assert set(new[0].heads) == {"3", "0", "12", "-1"}
    assert not any(module.training for module in new.modules())
    for name, value in old.state_dict().items():
        assert torch.equal(new.state_dict()[name], value.to(new.state_dict()[name].dtype))
    x = torch.randn(2, 4)
    assert torch.equal(new.float()[0](x, 0), old.eval()[0](x, 0))


def test_the_state_of_smaller_heads_is_refused_and_so_is_a_foreign_one():
    head = MultiHead(4)
    head.resize(0, 2)
    state = head.state_dict()
    head.resize(0, 3)
    with pytest.raises(RuntimeError, match=r"size mismatch for heads\.0\.weight"):
        head.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*heads\.a\.weight"):
        head.load_state_dict({"heads.a.weight": torch.zeros(2, 4)}, strict=True)


@pytest.mark.parametrize(
    ("bad", "error", "message"), [(0, ValueError, "must be at least 1"), (1.5, TypeError, "must be a whole number")]
)
def test_bad_growing_heads(bad, error, message):
    with pytest.raises(error, match=f"in_features {message}"):
        GrowingHead(bad)
    with pytest.raises(error, match=f"initial_classes {message}"):
        GrowingHead(4, initial_classes=bad)
    with pytest.raises(error, match=f"classes {message}, got {bad}"):
        GrowingHead(4).resize(bad)


@pytest.mark.parametrize("bad", [float("nan"), float("-inf"), "0", True])
def test_bad_masks(bad):
    with pytest.raises((TypeError, ValueError), match=f"mask_value must be a finite number or None, got {bad!r}"):
        GrowingHead(4, mask_value=bad)


@pytest.mark.parametrize("head", [MatchedLinear, DHPLinear])
def test_multi_head_of_every_kind_learns(digits, head):
    model = seeded_mlp(head=partial(MultiHead, head=head))
    plugins = [DHPPlugin()] if head is DHPLinear else []
    strategy = naive(model, torch.optim.Adam(model.parameters(), lr=1e-2), plugins, epochs=8)
    strategy.train(digits.train_stream[0], eval_streams=[])
    experience = digits.test_stream[0]
    x, y = (torch.stack([torch.as_tensor(s[i]) for s in experience.dataset]) for i in (0, 1))
    assert (model.eval()(x, 0).argmax(1) == y).float().mean() > 0.8
    assert {name.rsplit(".", 1)[-1] for name, _ in model.head.named_parameters()} == {
        name for name, _ in head(3, 2).named_parameters()
    }


@pytest.mark.parametrize("measure", [fisher_diagonal, mas_importance])
@pytest.mark.parametrize("head", [MatchedLinear, partial(DHPLinear, eta=0.5)])
def test_importances_in_mixed_batches_of_a_multi_head(measure, head):
    with default_dtype(torch.float64):
        model = seeded_mlp(head=partial(MultiHead, head=head), dtype=torch.float64)
        for task in (0, 1):
            model.head.resize(task, 3)
    x, y, task = torch.randn(12, 64, dtype=torch.float64), torch.arange(12) % 3, torch.arange(12) % 2
    with torch.no_grad():
        model(x, task, y)
    before = copy.deepcopy(model.state_dict())
    names = [name for name, _ in model.named_parameters() if not name.endswith("eta")]
    ours = measure(model, [(x, y, task)], parameters=names)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    if measure is mas_importance:
        expected = oracle_importance.mas(model, [(x, y, task)], names)
    else:
        expected = oracle_importance.fisher(model, [(x, y, task)], "empirical", names)
    for name in names:
        assert expected[name].max() > 0
        torch.testing.assert_close(ours[name], expected[name])


def test_consolidation_of_a_growing_head(class_incremental):
    torch.manual_seed(0)
    model = MLP(64, (16,), partial(GrowingHead, head=partial(DHPLinear, eta=0.1)))
    mas = MASPlugin(0.1)
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.05), [DHPPlugin(), mas])
    for experience in class_incremental.train_stream:
        strategy.train(experience, eval_streams=[])
    assert mas.importance["head.head.weight"].shape == (6, 16)
    assert (mas.importance["head.head.weight"].amax(1) > 0).all()


def test_papers_networks_take_every_head():
    for head in (partial(DHPLinear, out_features=10), partial(MatchedLinear, out_features=10)):
        model = SplitCIFARNet(head).eval()
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    model = SplitCIFARNet(partial(DHPLinear, out_features=10))
    assert model(torch.zeros(2, 3, 32, 32), targets=torch.tensor([0, 9])).shape == (2, 10)
    assert (model.head.hebb.abs().amax(1) > 0).nonzero().flatten().tolist() == [0, 9]

"""Online EWC and MAS: what they add to the shared penalty is how importance is measured."""

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline, with_task_labels
from avalanche.training import Cumulative, JointTraining, Replay
from avalanche.training.plugins import SupervisedPlugin
from oracles import importance as oracle
from torch import nn
from training import default_dtype, naive, seeded_mlp

from avsi import MASPlugin, OnlineEWCPlugin, SIPlugin
from avsi.models import HeadedModel, MultiHead
from avsi.plugins.evaluation_pass import show_if_long
from avsi.scenarios import split_digits

PLUGINS = {
    "ewc": lambda strength: OnlineEWCPlugin(strength),
    "ewc-sampled": lambda strength: OnlineEWCPlugin(strength, gamma=0.5, labels="sampled"),
    "ewc-exact": lambda strength: OnlineEWCPlugin(strength, labels="exact"),
    "mas": lambda strength: MASPlugin(strength),
}


def tensors(experience):
    samples = [experience.dataset[i] for i in range(len(experience.dataset))]
    return torch.stack([s[0] for s in samples]), torch.tensor([s[1] for s in samples])


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)


def train(digits, plugins, *, tasks=2, model=None, **kwargs):
    model = model or seeded_mlp()
    strategy = naive(model, sgd(model), plugins, **kwargs)
    for experience in digits.train_stream[:tasks]:
        strategy.train(experience, eval_streams=[])
    return model


@pytest.mark.parametrize("name", ["ewc-decayed", "ewc-exact", "mas"])
def test_importance_follows_its_definition_over_two_tasks(digits, name):
    """In float64 against loops over single samples, at the parameters where each task ended."""
    with default_dtype(torch.float64):
        gamma = 0.7 if name == "ewc-decayed" else 1.0
        plugin = {
            "ewc-decayed": OnlineEWCPlugin(3.0, gamma=gamma),
            "ewc-exact": OnlineEWCPlugin(3.0, labels="exact"),
            "mas": MASPlugin(0.1),
        }[name]
        model = seeded_mlp(hidden=(6,), dtype=torch.float64)
        strategy = naive(model, sgd(model), [plugin])
        expected = {}
        for task, experience in enumerate(digits.train_stream[:2]):
            strategy.train(experience, eval_streams=[])
            x, y = tensors(experience)
            batch = [(x, y, torch.full_like(y, task))]
            model.eval()
            if name == "mas":
                measured = oracle.mas(model, batch)
            else:
                measured = oracle.fisher(model, batch, "exact" if name == "ewc-exact" else "empirical")
            for key, value in measured.items():
                expected[key] = gamma * expected.get(key, torch.zeros_like(value)) + value
            for key, value in expected.items():
                torch.testing.assert_close(plugin.importance[key], value, rtol=1e-9, atol=1e-15)
                torch.testing.assert_close(plugin.anchor[key], dict(model.named_parameters())[key].detach())
        assert plugin.importance["features.1.weight"].sum() > 0
        assert plugin.importance["head.heads.0.weight"].sum() > 0


@pytest.mark.parametrize("name", PLUGINS)
def test_strength_zero_is_naive_bit_for_bit_and_strength_above_zero_is_not(digits, name):
    """With dropout and batch norm: the importance pass leaves mode, statistics and random state alone."""

    def model():
        torch.manual_seed(0)
        layers = [nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3)]
        return HeadedModel(nn.Sequential(*layers), 16, MultiHead)

    plugins = ([], [PLUGINS[name](0.0)], [PLUGINS[name](5.0)])
    plain, zero, active = (train(digits, p, model=model(), batch_size=40).state_dict() for p in plugins)
    assert plain.keys() == zero.keys()
    assert all(torch.equal(plain[key], zero[key]) for key in plain)
    assert not torch.equal(plain["features.1.weight"], active["features.1.weight"])


@pytest.mark.parametrize("name", PLUGINS)
def test_importance_does_not_depend_on_the_batch_size_it_is_measured_with(digits, name):
    importances = []
    for size in (7, 512):
        plugin = PLUGINS[name](0.0)
        model = seeded_mlp()
        strategy = naive(model, sgd(model), [plugin])
        strategy.eval_mb_size = size
        strategy.train(digits.train_stream[0], eval_streams=[])
        importances.append(plugin.importance)
    for key, value in importances[0].items():
        torch.testing.assert_close(importances[1][key], value, rtol=1e-4, atol=1e-9)


def test_augmentation_and_shuffling_do_not_enter(digits):
    """Training images are inverted at random; the Fisher information is that of the images as they are."""
    data = digits.train_stream[0].dataset
    augmented = data.replace_current_transform_group((lambda x: 1 - x if torch.rand(()) < 0.5 else x, None))
    stream = with_classes_timeline(with_task_labels(benchmark_from_datasets(train=[augmented]))).train_stream
    backgrounds = {stream[0].dataset[0][0].flatten()[0].item() for _ in range(50)}
    assert backgrounds == {0.0, 1.0}  # training does see the augmentation
    plugin = OnlineEWCPlugin(0.0)
    model = seeded_mlp()
    naive(model, sgd(model), [plugin]).train(stream, eval_streams=[])
    x, y = tensors(digits.train_stream[0])
    expected = oracle.fisher(model, [(x, y, torch.zeros_like(y))], "empirical")
    for key, value in expected.items():
        torch.testing.assert_close(plugin.importance[key], value, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(("strategy", "arguments"), [(Replay, {"mem_size": 100}), (Cumulative, {})])
def test_samples_of_other_tasks_in_the_training_data_do_not_enter(digits, strategy, arguments):
    plugin = OnlineEWCPlugin(0.0, gamma=0.0)
    model = train(digits, [plugin], strategy=strategy, **arguments)
    x, y = tensors(digits.train_stream[1])
    for key, value in oracle.fisher(model, [(x, y, torch.ones_like(y))], "empirical").items():
        torch.testing.assert_close(plugin.importance[key], value, rtol=1e-4, atol=1e-9)
    assert (plugin.importance["head.heads.0.weight"] == 0).all()


def test_joint_training_measures_all_tasks(digits):
    plugin = MASPlugin(1.0)
    model = seeded_mlp()
    strategy = naive(model, sgd(model), [plugin], strategy=JointTraining)
    strategy.train(digits.train_stream, eval_streams=[])
    assert all(plugin.importance[f"head.heads.{task}.weight"].sum() > 0 for task in range(5))


def test_sampled_labels_differ_from_task_to_task(digits):
    """The same task twice, without training in between: only the drawn labels can differ."""
    plugin = OnlineEWCPlugin(0.0, gamma=0.0, labels="sampled")
    model = seeded_mlp()
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.0), [plugin])
    importances = []
    for _ in range(2):
        strategy.train(digits.train_stream[0], eval_streams=[])
        importances.append(plugin.importance["features.1.weight"].clone())
    assert not torch.equal(*importances)


@pytest.mark.parametrize("name", PLUGINS)
def test_old_heads_do_not_move(digits, name):
    model = seeded_mlp()
    strategy = naive(model, sgd(model), [PLUGINS[name](10.0)])
    strategy.train(digits.train_stream[0], eval_streams=[])
    old = model.head.heads["0"].weight.clone()
    strategy.train(digits.train_stream[1], eval_streams=[])
    assert torch.equal(model.head.heads["0"].weight, old)


@pytest.mark.parametrize("name", PLUGINS)
def test_order_beside_si_is_irrelevant(digits, name):
    outcomes = []
    for si_first in (True, False):
        other, si = PLUGINS[name](1.0), SIPlugin(0.5, damping=1e-3)
        train(digits, [si, other] if si_first else [other, si])
        outcomes.append((si.importance, other.importance))
    for a, b in zip(*outcomes, strict=True):
        for key, value in a.items():
            torch.testing.assert_close(b[key], value, rtol=1e-4, atol=1e-8)


def test_frozen_and_excluded_parameters_have_no_importance(digits):
    model = seeded_mlp()
    model.features[1].weight.requires_grad_(False)
    plugin = MASPlugin(1.0, exclude=["*.bias"])
    train(digits, [plugin], model=model)
    assert set(plugin.importance) == {"head.heads.0.weight", "head.heads.1.weight"}
    assert not model.features[1].weight.requires_grad


@pytest.mark.parametrize("name", PLUGINS)
def test_state_survives_a_file(digits, tmp_path, name):
    plugin = PLUGINS[name](1.0)
    train(digits, [plugin])
    torch.save(plugin.state_dict(), tmp_path / "state.pt")
    resumed = PLUGINS[name](1.0)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.experiences_seen == 2
    for key, value in plugin.importance.items():
        assert torch.equal(resumed.importance[key], value)


def test_single_head_models_are_called_without_task_labels(digits):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    plugin = OnlineEWCPlugin(1.0)
    train(digits, [plugin], model=model)
    assert plugin.importance["1.weight"].sum() > 0


def test_progress_of_the_pass_can_be_followed(digits):
    plugin = MASPlugin(1.0)
    seen = []

    def track(batches, description, total):
        for batch in batches:
            seen.append((description, total))
            yield batch

    plugin.track = track
    train(digits, [plugin], tasks=1)
    assert seen == [("output sensitivity", 1)]
    assert list(show_if_long([1, 2, 3], "x", 3)) == [1, 2, 3]


def test_importance_pass_that_fails_is_not_hidden(digits):
    class Break(SupervisedPlugin):
        def after_training_epoch(self, strategy, **kwargs):
            with torch.no_grad():
                strategy.model.features[1].weight.fill_(float("nan"))

    with pytest.raises((FloatingPointError, ValueError), match="finite"):
        train(digits, [Break(), OnlineEWCPlugin(1.0)])


def test_single_classes_are_refused_before_they_are_trained_on():
    stream, model = split_digits(10).train_stream, seeded_mlp()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"single output in experience 0, .* softmax over one class"):
        naive(model, sgd(model), [OnlineEWCPlugin(1.0)]).train(stream[0], eval_streams=[])
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    naive(model, sgd(model), [OnlineEWCPlugin(1.0, labels="gaussian")]).train(stream[0], eval_streams=[])


@pytest.mark.parametrize("gamma", [-0.1, 1.5, float("nan")])
def test_gamma_out_of_range(gamma):
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\], got"):
        OnlineEWCPlugin(1.0, gamma=gamma)


def test_gamma_of_the_wrong_type():
    with pytest.raises(TypeError, match=r"gamma must be in \[0, 1\], got '1'"):
        OnlineEWCPlugin(1.0, gamma="1")


def test_unknown_labels():
    with pytest.raises(
        ValueError, match="labels must be one of empirical, sampled, exact, predicted, reversed, gaussian, got 'true'"
    ):
        OnlineEWCPlugin(1.0, labels="true")


@pytest.mark.parametrize("plugin", [OnlineEWCPlugin, MASPlugin])
def test_strength_is_checked(plugin):
    with pytest.raises(ValueError, match="strength must be finite and at least 0, got -1"):
        plugin(-1)

import pytest
import torch
from avalanche.training import JointTraining
from avalanche.training.plugins import SupervisedPlugin
from training import naive, seeded_mlp

from avsi import MASPlugin, SIPlugin
from avsi.models import MLP, GrowingHead, MultiHead
from avsi.plugins import early_stopping
from avsi.plugins.early_stopping import EarlyStopping, validation_error
from avsi.plugins.stop_after import StopAfter
from avsi.scenarios import split_digits


@pytest.fixture(scope="module")
def benchmark():
    return split_digits(validation=0.2)


class FreezeAfterOneEpoch(SupervisedPlugin):
    def after_training_epoch(self, strategy, **kwargs):
        strategy.model.features.requires_grad_(False)


def test_importance_of_what_was_frozen_is_measured_after_going_back(benchmark, monkeypatch):
    given = iter([0.5, 0.4, 0.6])
    monkeypatch.setattr(early_stopping, "validation_error", lambda *_: next(given))
    si, model = SIPlugin(1.0, damping=1e-3), seeded_mlp()
    stopping = EarlyStopping(benchmark.valid_stream, 1, 1)
    strategy = naive(
        model, torch.optim.SGD(model.parameters(), lr=0.1), [si, FreezeAfterOneEpoch(), stopping], epochs=9
    )
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    frozen = {name: p for name, p in model.named_parameters() if name.startswith("features")}
    assert frozen
    for name, parameter in frozen.items():
        assert si.importance[name].any()
        assert torch.equal(si.anchor[name], parameter)


@pytest.mark.parametrize("stream", [None, 3])
def test_what_is_no_stream_is_refused(stream):
    with pytest.raises(TypeError, match=r"stream must be a stream of experiences, such as benchmark\.valid_stream"):
        EarlyStopping(stream)


class Snapshots(SupervisedPlugin):
    """Keeps weights and path integrals as they were when each epoch's training ended."""

    def __init__(self, si):
        super().__init__()
        self.si, self.weights, self.omega = si, [], []

    def after_training_iteration(self, strategy, **kwargs):
        if strategy.clock.train_epoch_iterations + 1 == len(strategy.dataloader):
            self.weights.append({k: v.clone() for k, v in strategy.model.state_dict().items()})
            self.omega.append({k: v.clone() for k, v in self.si.path_integral.items()})


def run(benchmark, monkeypatch, errors, patience, epochs, plugins=()):
    """Train one task with validation errors given in advance."""
    given = iter(errors)
    monkeypatch.setattr(early_stopping, "validation_error", lambda *_: next(given))
    si = SIPlugin(0.0, damping=1e-3)
    snapshots = Snapshots(si)
    stopping = EarlyStopping(benchmark.valid_stream, *patience)
    model = seeded_mlp()
    strategy = naive(
        model,
        torch.optim.Adam(model.parameters(), lr=1e-2),
        [si, MASPlugin(0.0), snapshots, *plugins, stopping],
        epochs=epochs,
    )
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    return model, si, snapshots, stopping


@pytest.mark.parametrize(
    ("errors", "patience", "epochs", "ran", "best"),
    [
        ([5, 4, 3, 3, 3, 2, 1], (2, 1), 7, 5, 3),  # an equal error is no improvement
        ([5, 4, 3, 6, 6, 6, 6], (2, 6), 7, 6, 3),  # at least six epochs
        ([5, 4, 3, 2, 1, 6, 6], (5, 1), 7, 7, 5),  # the last epoch comes first
        ([5, 4, 3, 2], (2, 1), 4, 4, 4),  # the last epoch is the best
    ],
)
def test_stops_in_time_and_goes_back_to_the_best_epoch(benchmark, monkeypatch, errors, patience, epochs, ran, best):
    model, si, snapshots, stopping = run(benchmark, monkeypatch, errors, patience, epochs)
    assert len(snapshots.weights) == ran
    assert stopping.errors == [errors[:ran]]
    for name, value in model.state_dict().items():
        assert torch.equal(value, snapshots.weights[best - 1][name])
        assert torch.equal(si.anchor[name], value)
    # Omega is that of the path to the restored weights.
    torch.manual_seed(0)
    start = seeded_mlp()
    start.head.resize(0, 2)
    omega = snapshots.omega[best - 1]["features.1.weight"]
    delta = model.features[1].weight.detach() - start.features[1].weight.detach()
    expected = (omega / (delta**2 + 1e-3)).clamp(min=0)
    torch.testing.assert_close(si.importance["features.1.weight"], expected)


def test_goes_back_when_something_else_ends_training(benchmark, monkeypatch):
    model, si, snapshots, stopping = run(benchmark, monkeypatch, [1, 5, 5, 5], (9, 9), 9, [StopAfter(22)])
    assert stopping.errors == [[1, 5, 5]]  # in the middle of the third epoch
    for name, value in model.state_dict().items():
        assert torch.equal(value, snapshots.weights[0][name])
        assert torch.equal(si.anchor[name], value)


def test_validation_error_is_the_share_of_wrong_answers(benchmark):
    model = seeded_mlp()
    strategy = naive(model, torch.optim.Adam(model.parameters(), lr=1e-3))
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    experience = benchmark.valid_stream[0]
    samples = [experience.dataset[i] for i in range(len(experience.dataset))]
    outputs = model.eval()(torch.stack([s[0] for s in samples]), 0)
    wrong = (outputs.argmax(1) != torch.tensor([s[1] for s in samples])).double().mean().item()
    model.train()
    assert validation_error(strategy, [experience]) == pytest.approx(wrong)
    assert model.training


def test_watching_changes_nothing(benchmark):
    """With more patience than epochs and the last epoch the best, training is bit for bit as without it."""
    weights = []
    for watched in (False, True):
        stopping = EarlyStopping(benchmark.valid_stream, patience=99)
        stopping._state = lambda strategy: {
            "model": strategy.model.state_dict(),
            "plugins": [],
        }  # live: never goes back
        model = seeded_mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        strategy = naive(model, optimizer, [stopping] if watched else [], epochs=2)
        strategy.train(benchmark.train_stream[0], eval_streams=[])
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_each_task_starts_counting_anew(benchmark, monkeypatch):
    given = iter([1, 1, 9, 9])
    monkeypatch.setattr(early_stopping, "validation_error", lambda *_: next(given))
    stopping = EarlyStopping(benchmark.valid_stream, 1, 1)
    model = seeded_mlp()
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.01), [stopping], epochs=5)
    for experience in benchmark.train_stream[:2]:
        strategy.train(experience, eval_streams=[])
    assert stopping.errors == [[1, 1], [9, 9]]


def test_a_stop_in_the_last_epoch_does_not_skip_the_next_experience(benchmark, monkeypatch):
    given = iter([1, 1] * 3)
    monkeypatch.setattr(early_stopping, "validation_error", lambda *_: next(given))
    model, stopping = seeded_mlp(), EarlyStopping(benchmark.valid_stream, 1, 2)
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.01), [stopping], epochs=2)
    strategy.train(benchmark.train_stream[:3], eval_streams=[])
    assert stopping.errors == [[1, 1]] * 3


def test_experiences_are_found_by_their_number(benchmark, monkeypatch):
    """Of slices of the two streams, too."""
    seen = []
    monkeypatch.setattr(early_stopping, "validation_error", lambda _, e, *__: seen.append(e[0].current_experience) or 1)
    model, stopping = seeded_mlp(), EarlyStopping(benchmark.valid_stream[2:], 1, 1)
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.01), [stopping], epochs=1)
    strategy.train(benchmark.train_stream[2:], eval_streams=[])
    assert seen == [2, 3, 4]


def test_a_layer_held_in_evaluation_mode_stays_so(benchmark):
    model = seeded_mlp()
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.1), [])
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    model.train()
    held = next(layer for layer in model.modules() if isinstance(layer, torch.nn.Linear))
    held.eval()
    validation_error(strategy, [benchmark.valid_stream[0]])
    assert not held.training
    assert all(layer.training for layer in model.modules() if layer is not held)

    def broken(*_):
        raise KeyboardInterrupt

    held.register_forward_pre_hook(broken)
    with pytest.raises(KeyboardInterrupt):
        validation_error(strategy, [benchmark.valid_stream[0]])
    assert not held.training
    assert all(layer.training for layer in model.modules() if layer is not held)


def test_a_stream_without_the_experience_is_refused_before_training(benchmark):
    stopping = EarlyStopping(benchmark.valid_stream[:1])
    model = seeded_mlp()
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.01), [stopping], epochs=2)
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"experience 1 has no validation data: the stream .* has experiences 0; give one"
    ):
        strategy.train(benchmark.train_stream[1], eval_streams=[])
    after = model.state_dict()  # which has a head more
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_joint_training_needs_validation_data_of_every_experience(benchmark):
    model = seeded_mlp()
    stopping = EarlyStopping(benchmark.valid_stream[:2])
    strategy = JointTraining(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=32,
        plugins=[stopping],
        evaluator=None,
    )
    with pytest.raises(
        ValueError, match=r"experience 2 has no validation data: the stream .* has experiences 0, 1; give one"
    ):
        strategy.train(benchmark.train_stream)


@pytest.mark.parametrize("name", ["patience", "at_least"])
def test_epochs_are_positive_integers(benchmark, name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        EarlyStopping(benchmark.valid_stream, **{name: 0})


@pytest.mark.parametrize(("scenario", "head"), [("class", GrowingHead), ("task", MultiHead)])
def test_goes_back_also_where_an_evaluation_has_grown_the_model_since(monkeypatch, scenario, head):
    class Evaluate(SupervisedPlugin):
        def after_training_epoch(self, strategy, **kwargs):
            kept.append({name: value.clone() for name, value in model.state_dict().items()})
            strategy.eval(benchmark.test_stream)

    kept, errors = [], iter([1, 2])
    monkeypatch.setattr(early_stopping, "validation_error", lambda *_: next(errors))
    benchmark = split_digits(scenario=scenario, validation=0.2)
    model, si = MLP(64, (16,), head), SIPlugin(0.0)
    stopping = EarlyStopping(benchmark.valid_stream, patience=1, at_least=1)
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.1), [stopping, Evaluate(), si], epochs=9)
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    state = model.state_dict()
    assert len(state) > len(kept[0]) or state["head.seen"].shape == (10,)  # it has grown
    for name, value in kept[0].items():
        assert torch.equal(state[name][tuple(slice(size) for size in value.shape)], value)


def test_buffers_outside_of_the_state_dict_go_back_too(benchmark, monkeypatch):
    class Centred(MLP):
        def __init__(self):
            super().__init__(64, (16,), 2)
            self.register_buffer("centre", torch.zeros(64), persistent=False)

        def forward(self, x, *rest):
            if self.training:
                self.centre += x.flatten(1).mean(0)
            return super().forward(x.flatten(1) - self.centre / 100, *rest)

    class Note(SupervisedPlugin):
        def after_training_epoch(self, strategy, **kwargs):
            kept.append(model.centre.clone())

    errors, kept, model = iter([3, 1, 2, 2]), [], Centred()
    monkeypatch.setattr(early_stopping, "validation_error", lambda *_: next(errors))
    plugins = [Note(), EarlyStopping(benchmark.valid_stream, patience=2, at_least=1)]
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.1), plugins, epochs=9)
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    assert len(kept) == 4
    assert torch.equal(model.centre, kept[1])
    assert not torch.equal(model.centre, kept[3])

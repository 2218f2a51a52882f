"""Consolidation and DHP in training loops of every kind, over two tasks each."""

import copy
from functools import partial

import pytest
import torch
from avalanche.benchmarks import (
    benchmark_from_datasets,
    nc_benchmark,
    split_online_stream,
    with_classes_timeline,
    with_task_labels,
)
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.models import MlpVAE, SCRModel
from avalanche.models.generator import VAE_loss
from avalanche.training import AR1, LFL, MER, SCR, CoPE, CWRStar, ICaRL, Naive, StreamingLDA, VAETraining
from avalanche.training.plugins import CoPEPlugin, CWRStarPlugin, EvaluationPlugin, LFLPlugin, SupervisedPlugin
from oracles import importance as oracle
from torch import nn
from torch.utils.data import TensorDataset
from training import naive, seeded_mlp

from avsi import DHPPlugin, MASPlugin, OnlineEWCPlugin, SIPlugin
from avsi.data.dataset import ImageDataset
from avsi.models import MLP, DHPLinear, MultiHead
from avsi.plugins import ConsolidationPlugin
from avsi.plugins.evaluation_pass import trained_classifier
from avsi.scenarios import split_digits
from avsi.scenarios.build import with_task_label

PLUGINS = {
    "si": lambda strength=1.0: SIPlugin(strength, damping=1e-2),
    "ewc": lambda strength=1.0: OnlineEWCPlugin(strength),
    "mas": lambda strength=0.01: MASPlugin(strength),
}


def sgd(model, lr=0.02):
    return torch.optim.SGD(model.parameters(), lr=lr)


def tensors(experience):
    samples = [experience.dataset[i] for i in range(len(experience.dataset))]
    return torch.stack([s[0] for s in samples]), torch.tensor([s[1] for s in samples])


def assert_same(measured, expected, rtol=1e-4, atol=1e-8):
    for name, value in expected.items():
        torch.testing.assert_close(measured[name], value, rtol=rtol, atol=atol)


@pytest.fixture(scope="module")
def classes():
    """A class-incremental benchmark of two experiences of two classes, in Avalanche's old style, which iCaRL needs."""
    torch.manual_seed(0)
    y = torch.arange(160) % 4
    data = TensorDataset(torch.randn(160, 1, 8, 8) + y[:, None, None, None], y)
    data.targets = y
    return nc_benchmark(data, data, 2, task_labels=False, fixed_class_order=[0, 1, 2, 3])


# Loops without steps of an optimizer, or without announcing them


class Silent(Naive):
    """Its own epoch, without the hooks around the step."""

    def training_epoch(self, **kwargs):
        for self.mbatch in self.dataloader:  # noqa: B020 (as Avalanche does)
            self._unpack_minibatch()
            self._before_training_iteration(**kwargs)
            self.optimizer.zero_grad()
            self.mb_output = self.forward()
            self.loss = self.criterion()
            self.loss.backward()
            self.optimizer.step()
            self._after_training_iteration(**kwargs)


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.parametrize("strategy", [MER, Silent])
def test_a_loop_that_announces_no_step_is_reported_after_its_first_epoch(digits, name, strategy):
    model = seeded_mlp(head=2)
    arguments = {"mem_size": 20, "n_inner_steps": 1} if strategy is MER else {}
    trainer = naive(model, sgd(model), [PLUGINS[name]()], strategy=strategy, epochs=2, **arguments)
    with pytest.raises(RuntimeError, match=rf"{strategy.__name__} trained for \d+ iterations without"):
        trainer.train(digits.train_stream[0], eval_streams=[])
    assert trainer.clock.train_exp_epochs == 0


@pytest.mark.parametrize("name", PLUGINS)
def test_an_experience_without_an_iteration_is_not_consolidated(digits, name):
    model, plugin = MLP(64, (8,), MultiHead), PLUGINS[name]()
    strategy = naive(model, sgd(model), [plugin])
    first, second = digits.train_stream[:2]
    strategy.train(first, eval_streams=[])
    strategy.train_mb_size = 10_000
    with pytest.raises(RuntimeError, match=r"experience 1 was trained for no iteration.*drop_last"):
        strategy.train(second, eval_streams=[], drop_last=True)
    assert plugin.experiences_seen == 1


@pytest.mark.parametrize("name", PLUGINS)
def test_a_strategy_without_an_optimizer_is_refused(digits, name):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    strategy = StreamingLDA(
        slda_model=model, criterion=nn.CrossEntropyLoss(), input_size=8, num_classes=10, plugins=[PLUGINS[name]()]
    )
    with pytest.raises(TypeError, match="StreamingLDA, which has no optimizer"):
        strategy.train(digits.train_stream[0], eval_streams=[])


def vae(plugins):
    torch.manual_seed(0)
    model = MlpVAE((1, 8, 8), nhid=4, device="cpu")
    return model, VAETraining(
        model=model, optimizer=torch.optim.Adam(model.parameters(), lr=1e-3), train_mb_size=64, plugins=plugins
    )


@pytest.mark.parametrize("name", ["ewc", "mas"])
def test_importances_of_outputs_refuse_a_model_without_logits(digits, name):
    _, strategy = vae([PLUGINS[name]()])
    with pytest.raises(TypeError, match="logits of a classifier, and the model of VAETraining returns a tuple"):
        strategy.train(digits.train_stream[0], eval_streams=[])


CLASSES = torch.arange(60) % 3
MEAN = lambda outputs, labels: outputs.mean()  # noqa: E731
LATE = {
    "real labels": (nn.Linear(6, 2), nn.MSELoss(), torch.randn(60, 2), "ewc", TypeError, "needs class indices"),
    "one hot": (nn.Linear(6, 3), nn.CrossEntropyLoss(), torch.eye(3)[CLASSES], "ewc", TypeError, "argmax"),
    "a sequence": (nn.Conv1d(1, 3, 3), MEAN, CLASSES, "mas", ValueError, r"got \(\d+, 3, 4"),
    "mixed samples": (
        nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3, track_running_stats=False)), nn.CrossEntropyLoss(), CLASSES,
        "mas", ValueError, "mixes the samples",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", LATE)
def test_what_cannot_be_measured_is_refused_before_the_first_step(what):
    model, criterion, labels, name, error, message = LATE[what]
    inputs = torch.randn(60, 1, 6) if isinstance(model, nn.Conv1d) else torch.randn(60, 6)
    data = TensorDataset(inputs, labels)
    data.targets = [0] * 60
    stream = benchmark_from_datasets(train=[AvalancheDataset([data])]).train_stream
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.1), [PLUGINS[name]()], criterion=criterion)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(error, match=message):
        strategy.train(stream[0], eval_streams=[])
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))


class Pairs(torch.utils.data.Dataset):
    """Inputs of two tensors, as transformers take them."""

    targets = (0, 1) * 30

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return {"tokens": torch.ones(6), "mask": torch.ones(6)}, self.targets[index], 0


class OfPairs(nn.Linear):
    def forward(self, x):
        return super().forward(x["tokens"] * x["mask"])


class TrainingOnPairs(Naive):
    def _unpack_minibatch(self):
        pass


@pytest.mark.parametrize("name", PLUGINS)
def test_inputs_that_are_no_tensor_are_refused_before_the_first_step_where_they_have_to_be_measured(name):
    stream = benchmark_from_datasets(train=[AvalancheDataset([Pairs()])]).train_stream
    model, plugin = OfPairs(6, 2), PLUGINS[name]()
    strategy = naive(model, sgd(model), [plugin], strategy=TrainingOnPairs)
    if name == "si":
        strategy.train(stream[0], eval_streams=[])
        assert plugin.experiences_seen == 1
        return
    before = model.weight.detach().clone()
    with pytest.raises(TypeError, match=r"inputs of a batch must be a tensor with samples first, got \{'tokens'"):
        strategy.train(stream[0], eval_streams=[])
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("name", PLUGINS)
def test_a_single_head_needs_neither_task_labels_nor_a_timeline_of_classes(digits, name):
    """It trains as a model of plain layers does, and is measured as that is."""
    experience = digits.train_stream[0]
    x = torch.stack([experience.dataset[i][0] for i in range(60)])
    data = TensorDataset(x, torch.tensor([experience.dataset[i][1] for i in range(60)]))
    data.targets = data.tensors[1].tolist()
    outcomes = []
    for plain in (False, True):
        model = seeded_mlp(head=2)
        if plain:
            model = nn.Sequential(*model.features, model.head)
        plugin, stream = PLUGINS[name](), benchmark_from_datasets(train=[AvalancheDataset([data])]).train_stream
        strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.1), [plugin])
        torch.manual_seed(0)
        strategy.train(stream[0], eval_streams=[])
        outcomes.append([*model.parameters(), *plugin.importance.values()])
    assert all(torch.equal(*pair) for pair in zip(*outcomes, strict=True))


def test_a_head_per_task_on_a_stream_without_task_labels_is_explained(digits):
    model = seeded_mlp()
    stream = split_online_stream(digits.train_stream[:1], experience_size=100, access_task_boundaries=True)
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.1), [PLUGINS["ewc"]()])
    with pytest.raises(TypeError, match="give the stream some with"):
        strategy.train(next(iter(stream)), eval_streams=[])


def test_si_of_an_autoencoder_sums_to_the_drop_of_its_loss(digits):
    """The loss draws noise, so a step's drop is that between two passes with the same noise."""

    class Drop(SupervisedPlugin):
        total = 0.0

        def before_forward(self, strategy, **_):
            self.noise = torch.get_rng_state()

        @torch.no_grad()
        def after_update(self, strategy, **_):
            later = torch.get_rng_state()
            torch.set_rng_state(self.noise)
            self.total += float(strategy.loss - VAE_loss(strategy.mb_x, strategy.model(strategy.mb_x)))
            torch.set_rng_state(later)

        def after_training_epoch(self, strategy, **_):
            self.omega = sum(float(omega.sum()) for omega in plugin.path_integral.values())

    plugin, drop = PLUGINS["si"](0.0), Drop()
    model, strategy = vae([plugin, drop])
    strategy.optimizer = sgd(model, lr=1e-6)  # small: what is left out is of second order
    for experience in digits.train_stream[:2]:
        drop.total = 0.0
        strategy.train(experience, eval_streams=[])
        assert drop.omega == pytest.approx(drop.total, rel=0.01)
    assert plugin.experiences_seen == 2


@pytest.mark.parametrize("name", PLUGINS)
def test_strength_0_leaves_random_numbers_to_evaluation_transforms(name):
    ends = []
    for plugins in ([], [PLUGINS[name](0.0)]):
        benchmark = split_digits(eval_transform=lambda x: x + 0.1 * torch.randn_like(x))
        model = seeded_mlp()
        strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.1), plugins, epochs=1)
        for experience in benchmark.train_stream[:2]:
            strategy.train(experience, eval_streams=[])
        ends.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(*ends)


# Classifiers that are swapped in evaluation mode


@pytest.mark.parametrize("name", PLUGINS)
def test_icarl_is_measured_through_the_classifier_that_was_trained(classes, name):
    torch.manual_seed(0)
    features = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU())
    classifier = nn.Linear(8, 4)
    plugin = PLUGINS[name]()
    if name != "si":
        plugin.core.strengths = (0.0,)
    strategy = ICaRL(
        feature_extractor=features,
        classifier=classifier,
        optimizer=torch.optim.SGD([*features.parameters(), *classifier.parameters()], lr=0.05),
        memory_size=20,
        buffer_transform=None,
        fixed_memory=True,
        train_mb_size=20,
        eval_mb_size=20,
        plugins=[plugin],
    )
    whole, expected = nn.Sequential(features, classifier), {}
    for experience in classes.train_stream:
        strategy.train(experience, eval_streams=[])
        x, y = tensors(experience)
        if name != "si":
            measured = oracle.fisher(whole, [(x, y)], "empirical") if name == "ewc" else oracle.mas(whole, [(x, y)])
            expected = {key: expected.get(key, 0) + value for key, value in measured.items()}
    assert plugin.importance["train_classifier.weight"].sum() > 0
    own = {key.replace("0.", "feature_extractor.", 1) if key[0] == "0" else key.replace("1.", "train_classifier.", 1): v
           for key, v in expected.items()}  # fmt: skip
    assert_same(plugin.importance, own)
    assert type(strategy.model.eval_classifier).__name__ == "NCMClassifier"


def scr(plugins):
    torch.manual_seed(0)
    model = SCRModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU()), nn.Linear(8, 6))
    return model, SCR(
        model=model,
        optimizer=sgd(model),
        augmentations=lambda x: x.flip(-1),
        mem_size=20,
        train_mb_size=20,
        batch_size_mem=10,
        eval_mb_size=20,
        plugins=plugins,
        evaluator=EvaluationPlugin(),  # accuracies of embeddings would not be defined
    )


@pytest.mark.parametrize("name", ["si", "mas"])
def test_scr_is_measured_through_its_projection(classes, name):
    plugin = PLUGINS[name](0.0)
    model, strategy = scr([plugin])
    expected = 0.0
    for experience in classes.train_stream:
        strategy.train(experience, eval_streams=[])
        model.eval()
        with trained_classifier(model):
            expected = expected + oracle.mas(model, [tensors(experience)])["train_classifier.weight"]
        model.train()
    assert plugin.importance["train_classifier.weight"].sum() > 0
    if name == "mas":
        assert_same(plugin.importance, {"train_classifier.weight": expected})


def test_scr_has_no_likelihood_for_ewc(classes):
    with pytest.raises(TypeError, match="SCR, whose contrastive loss trains embeddings"):
        scr([PLUGINS["ewc"]()])[1].train(classes.train_stream[0], eval_streams=[])


# Batches


class Dicts(torch.utils.data.Dataset):
    def __init__(self, experience):
        self.x, self.y = tensors(experience)
        self.targets = self.y.tolist()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"pixels": self.x[index], "digit": self.y[index]}


class OfDicts(Naive):
    """Takes batches apart in its own way."""

    def _unpack_minibatch(self):
        self.mbatch = [self.mbatch["pixels"].to(self.device), self.mbatch["digit"].to(self.device)]

    def make_train_dataloader(self, **kwargs):
        self.dataloader = torch.utils.data.DataLoader(
            self.adapted_dataset, batch_size=self.train_mb_size, shuffle=False
        )


@pytest.mark.parametrize("name", PLUGINS)
def test_batches_that_are_dicts_give_the_importances_of_tuples(digits, name):
    outcomes = []
    for kind in ("tuples", "dicts"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
        plugin = PLUGINS[name]()
        if kind == "dicts":
            data = [AvalancheDataset([Dicts(experience)]) for experience in digits.train_stream[:2]]
            stream = benchmark_from_datasets(train=data).train_stream
            strategy = naive(model, sgd(model), [plugin], strategy=OfDicts)
            for experience in stream:
                strategy.train(experience, eval_streams=[])
        else:
            strategy = naive(model, sgd(model), [plugin])
            for experience in digits.train_stream[:2]:
                strategy.train(experience, eval_streams=[], shuffle=False)
        outcomes.append((plugin.importance, dict(model.named_parameters())))
    for tuples, dicts in zip(*outcomes, strict=True):
        assert_same(dicts, tuples, rtol=1e-5)


@pytest.mark.parametrize("name", ["ewc", "mas"])
def test_an_order_of_ones_own_in_a_batch(digits, name):
    class Swapped(Naive):
        """Its data sets give (y, x, task label)."""

        @property
        def mb_x(self):
            return self.mbatch[1]

        @property
        def mb_y(self):
            return self.mbatch[0]

    def swapped(experience):
        x, y = tensors(experience)
        data = AvalancheDataset([TensorDataset(y, x, torch.full_like(y, experience.current_experience))])
        data.targets = y
        return data

    model = seeded_mlp()
    plugin = PLUGINS[name](0.0)
    strategy = naive(model, sgd(model), [plugin], strategy=Swapped)
    expected = {}
    for experience in digits.train_stream[:2]:
        strategy.make_train_dataloader = lambda strategy=strategy, **_: setattr(
            strategy, "dataloader", torch.utils.data.DataLoader(strategy.adapted_dataset, batch_size=32)
        )
        task = experience.current_experience
        original = experience.dataset
        experience._dataset = swapped(experience)
        strategy.train(experience, eval_streams=[])
        experience._dataset = original
        x, y = tensors(experience)
        batch = [(x, y, torch.full_like(y, task))]
        measured = oracle.fisher(model, batch, "empirical") if name == "ewc" else oracle.mas(model, batch)
        expected = {key: expected.get(key, 0) + value for key, value in measured.items()}
    assert_same(plugin.importance, expected)


# Online streams, and several task labels in an experience


@pytest.mark.parametrize("boundaries", [True, False])
@pytest.mark.parametrize("name", PLUGINS)
def test_a_task_cut_into_pieces_is_consolidated_like_the_same_steps_uncut(digits, name, boundaries):
    outcomes = []
    for cut in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
        plugin = PLUGINS[name]()
        strategy = naive(model, sgd(model), [plugin], batch_size=20)
        for number, experience in enumerate(digits.train_stream[:2]):
            pieces = [experience]
            if cut:
                pieces = split_online_stream([experience], 100, shuffle=False, access_task_boundaries=boundaries)
            for piece in pieces:
                strategy.train(piece, eval_streams=[], shuffle=False)
            if cut and boundaries:
                assert plugin.experiences_seen == number + 1
        outcomes.append((plugin.importance, plugin.anchor, dict(model.named_parameters())))
    (importance, anchor, theta), (expected, *others) = outcomes
    for mine, whole in zip((importance, anchor, theta), (expected, *others), strict=True):
        same = all(torch.equal(mine[key], whole[key]) for key in whole)
        assert same is boundaries


def test_the_path_integral_grows_over_the_pieces_of_a_task(digits):
    model, plugin, sums = seeded_mlp(head=10), PLUGINS["si"](), []

    class Keep(SupervisedPlugin):
        def after_training_epoch(self, strategy, **kwargs):
            sums.append(plugin.core.steps_seen)

    strategy = naive(model, sgd(model), [plugin, Keep()], batch_size=50)
    for piece in split_online_stream(digits.train_stream[:1], 100, access_task_boundaries=True):
        strategy.train(piece, eval_streams=[])
    assert sums == sorted(sums)
    assert sums[:3] == [2, 4, 6]


@pytest.mark.parametrize("name", ["ewc", "mas"])
def test_the_whole_task_of_an_online_stream_is_measured(digits, name):
    model = seeded_mlp(head=10)
    plugin = PLUGINS[name](0.0)
    strategy = naive(model, sgd(model), [plugin])
    expected = {}
    for experience in digits.train_stream[:2]:
        for piece in split_online_stream([experience], 100, access_task_boundaries=True):
            strategy.train(piece, eval_streams=[])
        batch = [tensors(experience)]
        measured = oracle.fisher(model, batch, "empirical") if name == "ewc" else oracle.mas(model, batch)
        expected = {key: expected.get(key, 0) + value for key, value in measured.items()}
    assert_same(plugin.importance, expected)


@pytest.mark.parametrize("name", PLUGINS)
def test_an_experience_with_several_task_labels(digits, name):
    images = digits.image_sets[0]

    def data(tasks):
        parts = []
        for task in tasks:
            rows = torch.nonzero(images.labels // 2 == task).flatten()
            parts.append(with_task_label(ImageDataset(images.images, rows, images.labels[rows] % 2), task))
        return parts[0].concat(parts[1])

    stream = with_classes_timeline(with_task_labels(benchmark_from_datasets(train=[data((0, 1)), data((2, 3))])))
    model = seeded_mlp()
    plugin = PLUGINS[name](0.0)
    strategy = naive(model, sgd(model), [plugin])
    expected = {}
    for experience in stream.train_stream:
        strategy.train(experience, eval_streams=[])
        samples = list(experience.dataset)
        x, y, t = (torch.stack([torch.as_tensor(s[i]) for s in samples]) for i in range(3))
        if name != "si":
            batches = [(x[t == task], y[t == task], t[t == task]) for task in t.unique()]
            measured = oracle.fisher(model, batches, "empirical") if name == "ewc" else oracle.mas(model, batches)
            expected = {key: expected.get(key, 0) + value for key, value in measured.items()}
    assert_same(plugin.importance, expected)
    assert all(plugin.importance[f"head.heads.{task}.weight"].sum() > 0 for task in range(4))


# Strategies that look for the last linear layer


@pytest.mark.parametrize("plugin", [CoPEPlugin, CWRStarPlugin, LFLPlugin])
def test_dhp_says_why_not_where_another_plugin_looks_for_the_last_linear_layer(digits, plugin):
    model = seeded_mlp(head=partial(DHPLinear, out_features=2))
    other = {CoPEPlugin: lambda: CoPEPlugin(p_size=2), CWRStarPlugin: lambda: CWRStarPlugin(model),
             LFLPlugin: lambda: LFLPlugin(1.0)}[plugin]()  # fmt: skip
    other.before_training = lambda *_, **__: None  # CoPE's would rewrite the model, LFL's wants a class of model
    strategy = naive(model, sgd(model), [DHPPlugin(), other])
    with pytest.raises(TypeError, match=rf"{plugin.__name__} works on the last torch\.nn\.Linear.*take a hidden layer"):
        strategy.train(digits.train_stream[0], eval_streams=[])


@pytest.mark.parametrize("strategy", [CoPE, CWRStar, LFL, AR1])
def test_ready_made_strategies_of_that_kind_hold_one_of_these_plugins(strategy):
    """So that the check above catches them."""
    import inspect

    source = inspect.getsource(inspect.getmodule(strategy))
    assert any(name in source for name in ("CoPEPlugin", "CWRStarPlugin", "LFLPlugin"))


def test_dhp_works_with_cwr_star_where_the_layer_is_named(digits):
    model = seeded_mlp(head=partial(DHPLinear, out_features=10, eta=0.1))
    plugins = [DHPPlugin(), CWRStarPlugin(model, cwr_layer_name="head", freeze_remaining_model=False)]
    strategy = naive(model, sgd(model), plugins)
    images = digits.image_sets[0]
    parts = []
    for task in range(2):
        rows = torch.nonzero(images.labels // 2 == task).flatten()
        parts.append(with_task_label(ImageDataset(images.images, rows, images.labels[rows]), 0))
    stream = with_classes_timeline(with_task_labels(benchmark_from_datasets(train=parts))).train_stream
    for experience in stream:
        strategy.train(experience, eval_streams=[])
    assert (model.head.hebb[:4].abs().sum(1) > 0).all()
    assert model.saved_weights.keys() == {0, 1, 2, 3}  # CWR*'s own, from the DHP layer's slow weights


# Misuse


@pytest.mark.parametrize("name", PLUGINS)
def test_the_same_plugin_twice(digits, name):
    model, plugin = seeded_mlp(), PLUGINS[name]()
    strategy = naive(model, sgd(model), [plugin, plugin])
    with pytest.raises(ValueError, match=f"the same {type(plugin).__name__} is in the strategy's plugins twice"):
        strategy.train(digits.train_stream[0], eval_streams=[])


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_that_learned_from_another_model(digits, name):
    """It would hold the new one near the weights of the old."""
    model, plugin = seeded_mlp(head=2), PLUGINS[name]()

    def train(model, plugins, task):
        strategy = naive(model, sgd(model), plugins)
        strategy.train(digits.train_stream[task], eval_streams=[])
        return strategy

    strategy = train(model, [plugin], 0)
    before = copy.deepcopy(plugin.state_dict())
    with pytest.raises(ValueError, match=rf"this {type(plugin).__name__} has learned from another model"):
        train(seeded_mlp(seed=1, head=2), [plugin], 1)
    assert all(torch.equal(value, before["anchor"][key]) for key, value in plugin.anchor.items())
    copied = copy.deepcopy(model)
    with pytest.raises(ValueError, match=r"another model.*plugin\.core\.bind\(model\)"):
        train(copied, [plugin], 1)
    # The same model, bare or compiled, in another strategy; a strategy that was copied whole; a state that was loaded.
    train(torch.compile(model, backend="eager"), [plugin], 1)
    copied = copy.deepcopy(strategy)
    copied.train(digits.train_stream[2], eval_streams=[])
    assert (plugin.experiences_seen, copied.plugins[0].experiences_seen) == (2, 3)
    loaded = PLUGINS[name]()
    loaded.load_state_dict(plugin.state_dict())
    train(copy.deepcopy(model), [loaded], 2)
    copied = copy.deepcopy(model)
    plugin.core.bind(copied)
    train(copied, [plugin], 2)
    assert loaded.experiences_seen == plugin.experiences_seen == 3


def test_a_plugin_takes_any_penalty_and_nothing_else(digits):
    from avsi.consolidation import QuadraticPenalty

    class Uniform(QuadraticPenalty):
        """L2 towards the last task's weights."""

        def new_importance(self, parameters, batches):
            return {name: torch.ones_like(parameter) for name, parameter in parameters.items()}

    plugin = ConsolidationPlugin(Uniform(None, 0.5))
    model = seeded_mlp()
    strategy = naive(model, sgd(model), [plugin])
    for experience in digits.train_stream[:2]:
        strategy.train(experience, eval_streams=[])
    assert (plugin.importance["features.1.weight"] == 1).all()
    with pytest.raises(TypeError, match="core must be a QuadraticPenalty"):
        ConsolidationPlugin(1.0)


def test_fields_of_an_exclude_reach_the_importance_pass(digits):
    """What is left out of the penalty is not measured either."""
    model = MLP(64, (8,), MultiHead)
    for name in ("ewc", "mas"):
        plugin = PLUGINS[name]()
        plugin.core.exclude = ("features.*",)
        strategy = naive(model, sgd(model), [plugin])
        strategy.train(digits.train_stream[0], eval_streams=[])
        assert plugin.importance.keys() == {"head.heads.0.weight", "head.heads.0.bias"}

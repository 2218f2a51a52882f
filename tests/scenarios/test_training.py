"""Every benchmark takes stock Avalanche strategies, replay and avsi's own, and Avalanche's metrics."""

import math

import pytest
import torch
from avalanche.evaluation.metrics import accuracy_metrics, bwt_metrics
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin, SupervisedPlugin
from torch import nn

from avsi import SIPlugin, scenarios
from avsi.metrics import accuracy_row, check_against_avalanche, evaluation_metrics
from avsi.models import MLP, MultiHead

SINGLE_HEAD = {
    "permuted_digits": {"n_experiences": 2},
    "permuted_mnist": {"n_experiences": 2},
    "imbalanced_permuted_mnist": {"n_experiences": 2},
}
SEPARATE_HEADS = {
    "split_digits": {},
    "split_mnist": {},
    "split_cifar": {},
    "five_vision": {"datasets": ("mnist", "notmnist", "fashion_mnist", "cifar10")},
    "cifar_transfer": {},
    "mnist_background": {},
}
BUILDERS = SINGLE_HEAD | SEPARATE_HEADS


class OneStep(SupervisedPlugin):
    """Ends training after the first step."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def after_training_iteration(self, strategy, **kwargs):
        self.batches.append((strategy.mb_x, strategy.mb_y, strategy.mb_task_id))
        strategy.stop_training()


@pytest.fixture(scope="module")
def benchmark(request):
    needs_no_data = "digits" in request.param
    root = None if needs_no_data else request.getfixturevalue("real_data")
    return request.param, getattr(scenarios, request.param)(
        dataset_root=root, download=False, **BUILDERS[request.param]
    )


@pytest.mark.parametrize("plugin", [None, ReplayPlugin, SIPlugin])
@pytest.mark.parametrize("benchmark", BUILDERS, indirect=True)
def test_one_step_of_training(benchmark, plugin):
    name, benchmark = benchmark
    features = math.prod(benchmark.train_stream[0].dataset[0][0].shape)
    torch.manual_seed(0)
    model = (
        MLP(features, (16,), MultiHead) if name in SEPARATE_HEADS else MLP(features, (16,), lambda n: nn.Linear(n, 10))
    )
    one_step = OneStep()
    plugins = (
        [{ReplayPlugin: lambda: ReplayPlugin(mem_size=50), SIPlugin: lambda: SIPlugin(0.1)}[plugin]()] if plugin else []
    )
    strategy = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=32,
        eval_mb_size=500,
        train_epochs=1,
        evaluator=EvaluationPlugin(accuracy_metrics(experience=True, stream=True), bwt_metrics(stream=True)),
        plugins=[*plugins, one_step],
    )
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for experience in benchmark.train_stream[:2]:
        strategy.train(experience, eval_streams=[])
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items() if key in before)
    for (x, y, task_labels), experience in zip(one_step.batches, benchmark.train_stream[:2], strict=True):
        assert x.dtype == torch.float32
        assert set(y.tolist()) <= set(range(10))
        assert experience.task_label in task_labels.tolist()
    if plugin is ReplayPlugin:
        assert len(one_step.batches[1][0]) == 64, "as many from the memory as from the experience"
        if name in SEPARATE_HEADS:
            assert set(one_step.batches[1][2].tolist()) == {0, 1}


@pytest.mark.parametrize("benchmark", ["permuted_digits", "split_digits"], indirect=True)
def test_avalanches_metrics_tell_the_experiences_apart(benchmark):
    name, benchmark = benchmark
    torch.manual_seed(0)
    model = MLP(64, (32,), MultiHead)  # with one task label for all, it has one head
    strategy = Naive(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=0.01),
        train_mb_size=32,
        eval_mb_size=500,
        train_epochs=2,
        evaluator=EvaluationPlugin(*evaluation_metrics()),
    )
    matrix, results = [], {}
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[])
        results = strategy.eval(benchmark.test_stream)
        matrix.append(accuracy_row(results, benchmark.test_stream))
    check_against_avalanche(matrix, results, benchmark.test_stream)
    assert len(matrix[-1]) == len(benchmark.test_stream)
    assert matrix[-1][-1] > 0.8
    assert matrix[-1][0] != matrix[-1][1]
    assert len(list(model.head.heads)) == (1 if name in SINGLE_HEAD else 5)

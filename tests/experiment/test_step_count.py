"""Adam reset as the SI authors' code does it, against Keras's formula."""

import math
from dataclasses import replace

import pytest
import torch
from avalanche.training import Naive
from avalanche.training.plugins import SupervisedPlugin

from avsi.experiment.methods import authors_reset
from avsi.experiment.step_count import KeepStepCount
from avsi.models import MLP, MultiHead
from avsi.plugins.evaluation import silent_evaluator
from tests.experiment.test_trial import run


class Steps(SupervisedPlugin):
    """Holds every step against Keras 2.0.5's Adam, whose moments are zero before an experience's first step."""

    def __init__(self):
        super().__init__()
        self.count = 0  # of steps since training began
        self.checked = 0

    def before_training_exp(self, strategy, *args, **kwargs):
        self.moments = {}

    def before_update(self, strategy, *args, **kwargs):
        self.count += 1
        self.before = {
            name: (parameter.detach().clone(), parameter.grad.clone())
            for name, parameter in strategy.model.named_parameters()
            if parameter.grad is not None
        }

    def after_update(self, strategy, *args, **kwargs):
        complete = math.sqrt(1 - 0.999**self.count)
        now = dict(strategy.model.named_parameters())
        for name, (old, gradient) in self.before.items():
            first, second = self.moments.get(name, (0.0, 0.0))
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            self.moments[name] = first, second
            # Keras adds epsilon to the moment as it is; PyTorch to the corrected one, as here.
            length = 0.01 * complete / (1 - 0.9**self.count) * first / (second.sqrt() + 1e-8 * complete)
            torch.testing.assert_close(now[name], old - length, rtol=1e-9, atol=1e-12)
            self.checked += gradient.numel()


def train(digits, plugins, **options):
    model = MLP(64, (16,), MultiHead).double()
    model.register_forward_pre_hook(lambda module, given: (given[0].double(), *given[1:]))
    adam = torch.optim.Adam(model.parameters(), lr=0.01, **options)
    steps = Steps()
    strategy = Naive(
        model=model, optimizer=adam, train_mb_size=32, plugins=[*plugins, steps], evaluator=silent_evaluator()
    )
    for experience in digits.train_stream[:3]:
        strategy.train(experience, reset_optimizer_state=True)
    return steps


@pytest.mark.parametrize("fused", [False, True])
def test_every_step_is_that_of_keras(digits, fused):
    steps = train(digits, [KeepStepCount()], fused=fused)
    assert steps.count > 20
    assert steps.checked > 10_000


def test_a_whole_reset_is_not(digits):
    with pytest.raises(AssertionError, match="not close"):
        train(digits, [])


def test_it_changes_what_follows_the_first_task(experiment):
    whole, authors = experiment.methods[0], authors_reset(experiment.methods[0])
    both = replace(experiment, methods=(whole, authors))
    ours, theirs = run(both, "finetune"), run(both, "finetune_authors")
    assert ours["accuracy_matrix"][0][0] == theirs["accuracy_matrix"][0][0]
    assert ours["weights"][0] == theirs["weights"][0]
    assert ours["weights"][1] != theirs["weights"][1]


@pytest.mark.parametrize(
    ("optimizer", "options"), [(torch.optim.SGD, {}), (torch.optim.Adam, {"amsgrad": True}), (torch.optim.Adagrad, {})]
)
def test_other_optimizers_are_refused(digits, optimizer, options):
    model = MLP(64, (16,), MultiHead)
    strategy = Naive(
        model=model, optimizer=optimizer(model.parameters(), lr=0.01, **options), plugins=[KeepStepCount()]
    )
    with pytest.raises(TypeError, match=f"got {optimizer.__name__}"):
        strategy.train(digits.train_stream[0])

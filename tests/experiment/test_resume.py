"""Trials that are cut and go on end bit for bit as uncut ones."""

import json
import os
import random
import runpy
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from avalanche.training import Cumulative
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor, nn
from torch.nn import CrossEntropyLoss
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from avsi.experiment import Experiment, Method, Patience, Setting, Trial, trainer
from avsi.experiment.events import Said
from avsi.experiment.methods import (
    authors_reset,
    avalanche_ewc,
    avalanche_mas,
    avalanche_si,
    dhp,
    dropout,
    feature_extraction,
    finetune,
    joint,
    mas,
    online_ewc,
    scratch,
    si,
    with_dhp,
)
from avsi.experiment.progress import TrialProgress
from avsi.experiment.strategy_state import fingerprint
from avsi.launch import cli
from avsi.launch.loop import checkpoint_path
from avsi.models import MLP, DHPLinear, GrowingHead, MultiHead
from avsi.plugins import ConsolidationPlugin
from avsi.results.store import SCHEMA
from avsi.scenarios import permuted_digits, split_digits
from avsi.scenarios.build import Source, Task, build

TIMES = {"started", "wall_time_s", "train_time_s", "resumed"}


class CutError(Exception):
    """Stands for whatever ends a process."""


class Watch(TrialProgress):
    """Cuts a trial after the second batch of an experience, and keeps the strategy at hand."""

    def __init__(self, cut_in=None):
        self.events = []
        super().__init__(self.events.append)
        self.cut_in, self.strategies, self.batches = cut_in, [], 0

    def before_training_exp(self, strategy, *args, **kwargs):
        super().before_training_exp(strategy, *args, **kwargs)
        self.experience = strategy.experience.current_experience
        if strategy not in self.strategies:
            self.strategies.append(strategy)

    def after_training_iteration(self, strategy, *args, **kwargs):
        super().after_training_iteration(strategy, *args, **kwargs)
        self.batches += 1
        if self.experience == self.cut_in and strategy.clock.train_exp_iterations == 2:
            raise CutError


def run(experiment, name, checkpoint=None, cut_in=None):
    """Run a trial; return its result, its last strategy, and the random states that it leaves."""
    torch.manual_seed(random.randrange(1000))  # whatever came before must not matter
    watch = Watch(cut_in)
    result = Trial(experiment, experiment.method(name), 1).run(Setting(), watch, checkpoint)
    return result, watch, (torch.get_rng_state(), np.random.get_state(), random.getstate())


def differences(ours, theirs, path=""):
    """Yield where two objects differ in anything that can be reached from them, bit for bit."""
    if type(ours) is not type(theirs):
        yield path
    elif isinstance(ours, Tensor):
        same = (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        if not same or ours.detach().numpy().tobytes() != theirs.detach().numpy().tobytes():
            yield path
        if isinstance(ours, nn.Parameter):
            yield from differences((ours.requires_grad, ours.grad), (theirs.requires_grad, theirs.grad), f"{path}.grad")
    elif isinstance(ours, np.ndarray):
        if ours.tobytes() != theirs.tobytes():
            yield path
    elif isinstance(ours, Mapping):
        if list(ours) != list(theirs):
            yield f"{path}.keys"
        for key in ours.keys() & theirs.keys():
            yield from differences(ours[key], theirs[key], f"{path}.{key}")
    elif isinstance(ours, list | tuple):
        if len(ours) != len(theirs):
            yield f"{path}.length"
        for index, pair in enumerate(zip(ours, theirs, strict=False)):
            yield from differences(*pair, f"{path}[{index}]")
    elif isinstance(ours, nn.Module):
        for part in ("named_parameters", "named_buffers"):
            yield from differences(dict(getattr(ours, part)()), dict(getattr(theirs, part)()), path)
        flags = ("training", "known_train_tasks_labels", "max_class_label")
        for (name, a), (_, b) in zip(ours.named_modules(), theirs.named_modules(), strict=True):
            yield from differences(*([getattr(m, flag, None) for flag in flags] for m in (a, b)), f"{path}.{name}")
    elif isinstance(ours, Optimizer):
        yield from differences(ours.state_dict(), theirs.state_dict(), path)
        lists = ([group["params"] for group in optimizer.param_groups] for optimizer in (ours, theirs))
        yield from differences(*lists, f"{path}.params")
    elif isinstance(ours, ConsolidationPlugin):
        yield from differences(ours.state_dict(), theirs.state_dict(), path)
    elif isinstance(ours, Watch) or callable(ours):
        return
    elif hasattr(ours, "__dict__"):
        members = ({k: v for k, v in vars(value).items() if k != "stream"} for value in (ours, theirs))  # stream: data
        yield from differences(*members, path)
    elif ours != theirs:
        yield path


def without_times(result):
    return {key: value for key, value in result.items() if key not in TIMES}


def assert_same_end(one, other):
    (result, watch, randomness), (result_2, watch_2, randomness_2) = one, other
    assert not list(differences(watch.strategies[-1], watch_2.strategies[-1], "strategy"))
    assert not list(differences(randomness, randomness_2, "random"))
    assert without_times(result) == without_times(result_2)
    assert len(result["train_time_s"]) == len(result_2["train_time_s"])


PLASTIC = partial(MLP, 64, (8,), partial(MultiHead, head=DHPLinear))
SI = si(1.0, damping=1e-3)
SPLIT = Experiment(
    name="split",
    title="Split",
    source="No paper.",
    scenario=split_digits,
    model=partial(MLP, 64, (8,), MultiHead),
    optimizer=partial(Adam, lr=1e-2),
    epochs=2,
    batch_size=64,
    reset_optimizer=True,
    methods=(
        finetune(),
        SI,
        online_ewc(1e3),
        replace(online_ewc(1e3, labels="sampled"), name="online_ewc_sampled"),
        mas(0.5),
        dropout(partial(MLP, 64, (8,), MultiHead, dropout=0.5)),
        dhp(PLASTIC),
        with_dhp(SI, PLASTIC),
        feature_extraction(),
        authors_reset(SI),
        avalanche_si(1.0, damping=1e-3),
        avalanche_ewc(1e3),
        avalanche_mas(0.5),
        scratch(),
        joint(),
    ),
    trials=1,
)
KEPT = replace(SPLIT, name="kept", reset_optimizer=False, epochs=1)
MOMENTUM = replace(KEPT, name="momentum", optimizer=partial(SGD, lr=0.05, momentum=0.9, foreach=True))
PERMUTED = replace(
    MOMENTUM,
    name="permuted",
    scenario=partial(permuted_digits, n_experiences=4),
    model=partial(MLP, 64, (8,), 10),
    methods=(
        *(
            method
            for method in SPLIT.methods
            if method.model is None and method.name not in {"online_ewc_sampled", "si_authors"}
        ),
        replace(online_ewc(10.0, labels="sampled"), name="online_ewc_sampled"),  # which stays finite here
        dhp(partial(MLP, 64, (8,), partial(DHPLinear, out_features=10))),
    ),
    batch_size=256,
)


def growing_digits(*, seed, dataset_root=None):
    """Each task has the classes of the one before and two more; evaluation meets them all from the start."""
    source = Source.load("digits")
    return build([Task(source, tuple(range(2 * task + 2))) for task in range(4)], scenario="domain")


GROWING = replace(KEPT, name="growing", scenario=growing_digits, model=partial(MLP, 64, (8,), GrowingHead))


class Warming(MLP):
    """Its outputs grow with the batches that it has seen; the count is no part of its state_dict."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x, task_labels, targets=None):
        self.seen += self.training
        return super().forward(x, task_labels, targets) * self.seen / 10


class WarmingLoss(CrossEntropyLoss):
    """Grows with the batches that it has seen, too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, outputs, targets):
        self.seen += outputs.requires_grad
        return super().forward(outputs, targets) * self.seen / 10


OWN_LOSS = replace(MOMENTUM, name="own_loss", criterion=WarmingLoss)


class Noise:
    """Draws from generators of its own, of every kind."""

    def __init__(self, seed):
        self.torch, self.python = torch.Generator().manual_seed(seed), random.Random(seed)
        self.numpy = np.random.Generator(np.random.MT19937(seed)), np.random.RandomState(seed)

    def __call__(self, x):
        draw = self.python.random() + sum(generator.uniform() for generator in self.numpy)
        return x + draw / 10 * torch.randn(x.shape, generator=self.torch)


class NoisyLayers(MLP):
    """So does this one."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.noise = Noise(3)

    def forward(self, x, task_labels, targets=None):
        return super().forward(self.noise(x), task_labels, targets)


class Annealed(MLP):
    """Its outputs grow with the batches that it has seen; it counts in attributes of Python."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.seen, self.scale, self.log = 0, torch.ones(1), []

    def forward(self, x, task_labels, targets=None):
        if self.training:
            self.seen += 1
            self.scale = self.scale + 0.1
            self.log.append(self.seen)
        return super().forward(x, task_labels, targets) * self.scale * len(self.log) / (1 + self.seen)


class AnnealedLoss:
    """No layer, and it counts too."""

    def __init__(self):
        self.seen = 0

    def __call__(self, outputs, targets):
        self.seen += outputs.requires_grad
        return nn.functional.cross_entropy(outputs, targets) * self.seen / 10


class Decaying(SGD):
    """Counts its steps, and draws noise, outside of its state_dict."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, lr)
        self.count, self.noise = 0, torch.Generator().manual_seed(1)

    def step(self, closure=None):
        self.count += 1
        for group in self.param_groups:
            group["lr"] = 0.3 / (1 + self.count / 10)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad += torch.randn(parameter.shape, generator=self.noise) / 100
        return super().step(closure)


class Remembering(MLP):
    """Keeps what cannot be in a checkpoint; of that, `seen` changes, if it is told to."""

    def __init__(self, *arguments, changes=True):
        super().__init__(*arguments)
        self.constant, self.layers, self.seen, self.changes = np.ones(3), {"first": [self.features]}, set(), changes
        self.activation = partial(nn.functional.relu, inplace=False)

    def forward(self, x, task_labels, targets=None):
        if self.training and self.changes:
            self.seen.add(len(self.seen))
        return super().forward(x, task_labels, targets)


def noisy_digits(**arguments):
    return split_digits(train_transform=Noise(0), **arguments)


NOISY_DATA = replace(MOMENTUM, name="noisy_data", scenario=noisy_digits)
ANNEALED = replace(MOMENTUM, name="annealed", model=partial(Annealed, 64, (8,), MultiHead))
ANNEALED_LOSS = replace(MOMENTUM, name="annealed_loss", criterion=AnnealedLoss)
DECAYING = replace(KEPT, name="decaying", optimizer=partial(Decaying, lr=0.3))
CONSTANT = replace(KEPT, name="constant", model=partial(Remembering, 64, (8,), MultiHead, changes=False))
NOISY_MODEL = replace(MOMENTUM, name="noisy_model", model=partial(NoisyLayers, 64, (8,), MultiHead))
WARMING = replace(KEPT, name="warming", model=partial(Warming, 64, (8,), MultiHead))
RECORDED = replace(SPLIT, name="recorded", batch_size=8)  # dynamics are recorded every 100 steps
SCHEDULED = replace(KEPT, name="scheduled", epochs=3, scheduler=partial(CosineAnnealingLR, T_max=3))
STOPPING = replace(SPLIT, name="stopping", epochs=4, patience=Patience(epochs=1, at_least=1, validation=0.2))

CASES = [
    *((SPLIT, method.name) for method in SPLIT.methods if method.name != "joint"),
    *((KEPT, name) for name in ("finetune", "online_ewc", "dhp+si", "feature_extraction")),
    *((MOMENTUM, name) for name in ("finetune", "si", "mas")),
    *((PERMUTED, name) for name in ("finetune", "si", "online_ewc_sampled", "dhp", "avalanche_si", "avalanche_ewc")),
    *((GROWING, name) for name in ("finetune", "si", "online_ewc")),
    *((NOISY_DATA, name) for name in ("finetune", "scratch")),
    (NOISY_MODEL, "finetune"),
    *((ANNEALED, name) for name in ("finetune", "scratch")),
    (ANNEALED_LOSS, "finetune"),
    *((DECAYING, name) for name in ("finetune", "online_ewc")),
    (CONSTANT, "finetune"),
    (WARMING, "finetune"),
    (OWN_LOSS, "finetune"),
    (RECORDED, "dhp"),
    (SCHEDULED, "si"),
    *((STOPPING, name) for name in ("finetune", "dhp+si", "scratch")),
]


@pytest.mark.parametrize(("experiment", "name"), CASES, ids=lambda value: getattr(value, "name", value))
def test_a_trial_that_was_cut_twice_ends_as_an_uncut_one(experiment, name, tmp_path):
    uncut = run(experiment, name)
    file = tmp_path / "folder" / "seed-001.checkpoint"
    for cut_in in (1, 3):
        with pytest.raises(CutError):
            run(experiment, name, file, cut_in)
    resumed = run(experiment, name, file)
    assert_same_end(resumed, uncut)
    assert (resumed[0]["resumed"], uncut[0]["resumed"]) == (2, 0)
    experiences = len(uncut[0]["task_accuracy"])
    assert len(uncut[0]["state"]) == len(set(uncut[0]["state"])) == experiences
    assert len(uncut[0]["weights"]) == len(set(uncut[0]["weights"])) == experiences
    assert resumed[1].batches < uncut[1].batches
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_trial_cut_in_its_first_experience_starts_over(tmp_path):
    file = tmp_path / "seed-001.checkpoint"
    with pytest.raises(CutError):
        run(SPLIT, "si", file, cut_in=0)
    assert not file.exists()
    assert_same_end(run(SPLIT, "si", file), run(SPLIT, "si"))


@pytest.mark.parametrize(("experiment", "name"), [(STOPPING, "dhp+si"), (SPLIT, "avalanche_mas"), (SPLIT, "scratch")])
def test_a_trial_cut_after_its_last_experience_trains_no_more(experiment, name, tmp_path, monkeypatch):
    file = tmp_path / "seed-001.checkpoint"
    with monkeypatch.context() as patch:
        patch.setattr(trainer.metrics, "average_accuracy", lambda matrix: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(experiment, name, file)
    result, watch, _ = run(experiment, name, file)
    assert watch.batches == 0
    assert result["resumed"] == 1
    assert without_times(result) == without_times(run(experiment, name)[0])


def test_joint_training_starts_over(tmp_path):
    file = tmp_path / "seed-001.checkpoint"
    with pytest.raises(CutError):
        run(SPLIT, "joint", file, cut_in=0)
    result, uncut = run(SPLIT, "joint", file)[0], run(SPLIT, "joint")[0]
    assert without_times(result) == without_times(uncut)
    assert result["resumed"] == 0
    assert len(uncut["weights"]) == len(uncut["state"]) == 1
    assert not file.exists()


def test_times_add_up(tmp_path, monkeypatch):
    file = tmp_path / "seed-001.checkpoint"
    with pytest.raises(CutError):
        run(SPLIT, "finetune", file, cut_in=2)
    content = torch.load(file, weights_only=True)
    content["seconds"] += 1000
    content["sha256"] = fingerprint({key: value for key, value in content.items() if key != "sha256"})
    torch.save(content, file)
    result = run(SPLIT, "finetune", file)[0]
    assert result["wall_time_s"] > 1000
    assert result["started"] == content["started"]
    assert result["train_time_s"][:2] == content["state"]["finished"]["train_time_s"]


class Counter(SupervisedPlugin):
    """Has state and no state_dict."""

    def __init__(self):
        super().__init__()
        self.count = 0


class KeptCounter(Counter):
    """Its number of iterations so far decides the step size."""

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]

    def before_training_iteration(self, strategy, **kwargs):
        self.count += 1
        for group in strategy.optimizer.param_groups:
            group["lr"] = 1e-2 / self.count


class Hoarder(Counter):
    """Has a state_dict that is not plain data."""

    def state_dict(self):
        return {"count": range(3)}

    def load_state_dict(self, state):
        raise AssertionError(state)


class Freeze(SupervisedPlugin):
    """Freezes features for good when the second task begins."""

    def before_training_exp(self, strategy, **kwargs):
        if strategy.experience.current_experience == 1:
            strategy.model.features.requires_grad_(False)


@pytest.mark.parametrize("plugin", [KeptCounter, Freeze])
def test_what_a_plugin_keeps_or_does_to_the_model_is_kept(plugin, tmp_path):
    experiment = replace(SPLIT, methods=(replace(finetune(), plugins=(plugin,)),))
    file = tmp_path / "seed-001.checkpoint"
    with pytest.raises(CutError):
        run(experiment, "finetune", file, cut_in=2)
    assert_same_end(run(experiment, "finetune", file), run(experiment, "finetune"))


def said_of_starting_over(experiment, file):
    """The result of a trial that was cut in its third experience and kept nothing, and what it says of that."""
    with pytest.raises(CutError):
        run(experiment, "finetune", file, cut_in=2)
    assert not file.exists()
    result, watch, _ = run(experiment, "finetune", file)
    (said,) = (event.line for event in watch.events if isinstance(event, Said) and not event.detail)
    return result, said


@pytest.mark.parametrize(
    ("plugin", "named"), [(Counter, "plugin Counter, which has no state_dict"), (Hoarder, "a range")]
)
def test_a_trial_whose_state_cannot_be_kept_says_so_and_starts_over(plugin, named, tmp_path):
    experiment = replace(SPLIT, methods=(replace(finetune(), plugins=(plugin,)),))
    result, said = said_of_starting_over(experiment, tmp_path / "seed-001.checkpoint")
    assert said.startswith(f"starts over when it is interrupted, for it cannot keep {named}")
    assert result["state"] == [None] * 5
    assert result["weights"] == run(SPLIT, "finetune")[0]["weights"]


def test_a_model_that_changes_what_cannot_be_kept_says_so_and_starts_over(tmp_path):
    experiment = replace(KEPT, model=partial(Remembering, 64, (8,), MultiHead))
    _, said = said_of_starting_over(experiment, tmp_path / "seed-001.checkpoint")
    assert said == "starts over when it is interrupted, for it cannot keep model.seen, which training has changed"


def test_a_strategy_with_state_of_its_own_is_not_kept(tmp_path):
    experiment = replace(SPLIT, methods=(Method("cumulative", Cumulative),), epochs=1)
    result, watch, _ = run(experiment, "cumulative", tmp_path / "seed-001.checkpoint")
    assert any("attribute dataset of Cumulative" in event.line for event in watch.events if isinstance(event, Said))
    assert result["state"] == [None] * 5
    assert not list(tmp_path.iterdir())


ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # as here: a trial goes on with as many threads as it began with
SCRIPT = Path(__file__).parents[2] / "reproductions" / "split_digits.py"
KILLER = """
import json, os, runpy, signal, sys
from pathlib import Path
import torch
from avsi.launch.loop import checkpoint_path
from avsi.experiment.progress import TrialProgress
from avsi.models import MLP
from avsi.results import store

result, kills, script, *arguments = sys.argv[1:]


def run_until(point, count):
    owner, name = {
        "forward": (MLP, "forward"),
        "experience": (TrialProgress, "before_training_exp"),
        "write": (os, "fsync"),
        "result": (store, "write_trial"),
    }[point]
    real, calls = getattr(owner, name), []

    def kill(*args, **kwargs):
        calls.append(args)
        if len(calls) == count:
            if point == "result":  # it is written, and its checkpoint still there
                real(*args, **kwargs)
            if point == "write":  # half of it is on disk
                os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(owner, name, kill)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


kept = []
for point, count in json.loads(kills):
    process = os.fork()  # a new process for each, which need not import everything again
    if not process:
        run_until(point, count)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL, (point, count)
    checkpoint = torch.load(checkpoint_path(Path(result)), weights_only=True)
    kept.append([len(checkpoint["state"]["finished"]["rows"]), os.path.exists(result)])
print(json.dumps(kept))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_command_killed_again_and_again_ends_with_the_result_of_an_uncut_trial(tmp_path):
    experiment = runpy.run_path(str(SCRIPT))["EXPERIMENT"].with_epochs(1)
    method = experiment.method("dhp+si")
    result = tmp_path / Trial(experiment, method, 0).file
    options = ["--methods", method.name, "--trials", "1", "--epochs", "1", "--device", "cpu", "--out", str(tmp_path)]

    # After 19 batches and 5 evaluations some batches of the second task; before the third; its checkpoint half
    # written (before it the folder is tried and the experiment described); after three more checkpoints the result half
    # written; the result written, its checkpoint still there.
    kills = json.dumps([("forward", 30), ("experience", 2), ("write", 3), ("write", 6), ("result", 1)])
    command = [sys.executable, "-c", KILLER, str(result), kills, str(SCRIPT), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **ONE_THREAD})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[1, False], [2, False], [2, False], [5, False], [5, True]]

    expected = Trial(experiment, method, 0).run(Setting(), TrialProgress(lambda event: None))
    read = json.loads(result.read_text())
    assert without_times(read) == {"schema": SCHEMA} | without_times(json.loads(json.dumps(expected)))
    assert read["resumed"] == 3  # what went on after the second kill came to nothing
    # The checkpoint that was left does no harm, now or when the trial is run again.
    written = result.read_bytes()
    for again, trained in ((False, 0), (True, 5)):
        with pytest.MonkeyPatch.context() as patch:
            watch = Mock()
            patch.setattr(TrialProgress, "after_training_exp", watch)
            cli.run(experiment, cli.Options(methods=(method.name,), trials=1, device="cpu", out=tmp_path, rerun=again))
        assert watch.call_count == trained
        assert (result.read_bytes() == written) == (not again)
    assert without_times(json.loads(result.read_text())) == without_times(read)
    assert not checkpoint_path(result).exists()
    assert not list(result.parent.glob(".*"))

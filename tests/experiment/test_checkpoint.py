"""Checkpoint files that must not be gone on from, and the plain data that they hold."""

import math
from collections import OrderedDict
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from avalanche.training.plugins import SupervisedPlugin
from torch.optim import SGD

from avsi.experiment import ExperimentError, Patience, Setting, Trial, checkpoint
from avsi.experiment import running as trial
from avsi.experiment.checkpoint import Checkpoint
from avsi.experiment.description import differences
from avsi.experiment.progress import TrialProgress
from avsi.experiment.strategy_state import (
    NotKeptError,
    _unpack,
    fingerprint,
    pack,
    random_states,
    restore_random_states,
    restore_strategy,
    strategy_state,
)
from avsi.experiment.trainer import Trainer
from avsi.models import MLP, MultiHead


class Enough(KeyboardInterrupt):
    """Ends a trial."""


class Stop(TrialProgress):
    """Ends a trial when its second experience begins."""

    def before_training_exp(self, strategy, *args, **kwargs):
        super().before_training_exp(strategy, *args, **kwargs)
        if strategy.experience.current_experience == 1:
            raise Enough


def go_on(experiment, file, name="si", seed=0):
    return Trial(experiment, experiment.method(name), seed).run(Setting(), TrialProgress(lambda event: None), file)


@pytest.fixture
def file(experiment, tmp_path):
    """The checkpoint of a trial that was cut after its first experience."""
    path = tmp_path / "seed-000.checkpoint"
    with pytest.raises(Enough):
        Trial(experiment, experiment.method("si"), 0).run(Setting(), Stop(lambda event: None), path)
    return path


def test_it_holds_plain_data_and_counts_resumptions(tmp_path):
    path = tmp_path / "seed-000.checkpoint"
    first = Checkpoint(path, {"seed": 0})
    assert first.read() is None
    first.write({"t": torch.arange(3), "list": [1, 2.5, "x", None, (True,)]})
    second = Checkpoint(path, {"seed": 0})
    state = second.read()
    assert state["t"].tolist() == [0, 1, 2]
    assert state["list"] == [1, 2.5, "x", None, (True,)]
    second.write(state)
    third = Checkpoint(path, {"seed": 0})
    third.read()
    assert (first.resumed, second.resumed, third.resumed) == (0, 1, 2)
    assert third.started == first.started
    assert third.seconds >= second.earlier > 0
    assert Checkpoint(None, {}).read() is None
    Checkpoint(None, {}).write(state)


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_flipped_bit_is_noticed(experiment, file, part):
    content = bytearray(file.read_bytes())
    content[int(part * len(content))] ^= 1
    file.write_bytes(content)
    try:
        before = torch.load(file, weights_only=True)
    except Exception:
        before = None
    with pytest.raises(ExperimentError, match="delete the file to start the trial over") as error:
        go_on(experiment, file)
    assert str(file) in str(error.value)
    assert before is None or "is damaged" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{}", None])
def test_what_is_no_checkpoint_is_named(experiment, file, content):
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ExperimentError, match=r"cannot read the checkpoint .*seed-000.checkpoint .*; delete the file"):
        go_on(experiment, file)


def test_another_format_is_named(experiment, file, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    with pytest.raises(ExperimentError, match="is not a checkpoint of format 2; delete the file"):
        go_on(experiment, file)
    torch.save([1], file)
    with pytest.raises(ExperimentError, match="is not a checkpoint of format 2; delete the file"):
        go_on(experiment, file)


def test_another_trials_checkpoint_is_refused(experiment, file):
    with pytest.raises(ExperimentError, match="seed was 0 and is 1"):
        go_on(experiment, file, seed=1)
    with pytest.raises(ExperimentError, match=r"description.method.name was 'si' and is 'finetune'"):
        go_on(experiment, file, "finetune")
    with pytest.raises(ExperimentError, match=r"description.epochs was 2 and is 3; put that back as it was, or delete"):
        go_on(replace(experiment, epochs=3), file)


def test_other_data_and_other_software_are_refused(experiment, file, monkeypatch):
    with monkeypatch.context() as patch:
        real = trial.describe_data
        patch.setattr(trial, "describe_data", lambda b: [row | {"fingerprint": "f00"} for row in real(b)])
        with pytest.raises(ExperimentError, match=r"data\[0\].fingerprint was '.*' and is 'f00'"):
            go_on(experiment, file)
    here = trial.describe_environment("cpu")
    for key, value in {"torch": "1.0", "threads": 99, "cpu": "SSE", "device": "cuda:1 GPU"}.items():
        monkeypatch.setattr(trial, "describe_environment", lambda device, new={key: value}: here | new)
        with pytest.raises(ExperimentError, match=rf"environment.{key} was .* and is .*{str(value)[:4]}"):
            go_on(experiment, file)
    monkeypatch.setattr(trial, "describe_environment", lambda device: here | {"platform": "a newer kernel"})
    assert go_on(experiment, file)["resumed"] == 1


def test_another_gpu_of_the_same_kind_will_do(experiment, tmp_path, monkeypatch):
    file, here = tmp_path / "seed-000.checkpoint", trial.describe_environment("cpu")
    monkeypatch.setattr(trial, "describe_environment", lambda device: here | {"device": "cuda:0 GPU"})
    with pytest.raises(Enough):
        Trial(experiment, experiment.method("si"), 0).run(Setting(), Stop(lambda event: None), file)
    monkeypatch.setattr(trial, "describe_environment", lambda device: here | {"device": "cuda:1 GPU"})
    assert go_on(experiment, file)["resumed"] == 1
    monkeypatch.setattr(trial, "describe_environment", lambda device: here | {"device": "cuda:1 other"})
    with pytest.raises(ExperimentError, match=r"environment.device was 'cuda GPU' and is 'cuda other'"):
        go_on(experiment, file)


def test_other_code_does_not_go_on(experiment, file, monkeypatch):
    monkeypatch.setattr("avsi.experiment.checkpoint.code_fingerprint", lambda: "another")
    with pytest.raises(ExperimentError, match=r"code was .* and is 'another'"):
        go_on(experiment, file)


def trainer(experiment, benchmark):
    streams = {name: list(stream) for name, stream in benchmark.streams.items()}
    trial = Trial(experiment, experiment.method("si"), 0)
    return Trainer(trial, streams, "cpu", TrialProgress(lambda event: None), [], Checkpoint(None))


def test_a_state_is_not_loaded_into_another_strategy(experiment, digits):
    made = trainer(experiment, digits)
    strategy = made.strategy()
    strategy.train(digits.train_stream[0], eval_streams=[])
    strategy.eval(digits.test_stream)
    state = strategy_state(strategy, made.shared)
    restore_strategy(made.strategy(), state, digits.train_stream[:1], digits.test_stream, made.shared)
    wider = replace(experiment, model=partial(MLP, 64, (17,), MultiHead))
    other = replace(experiment, optimizer=partial(SGD, lr=0.1))
    for changed, done in ((wider, 1), (other, 1), (experiment, 0)):
        # With no task done the state's head is added, and the optimizer knows nothing of it.
        with pytest.raises(
            ValueError, match=r"does not fit the strategy|not the given one after|doesn't match the size"
        ):
            restore_strategy(
                trainer(changed, digits).strategy(), state, digits.train_stream[:done], digits.test_stream, made.shared
            )


def test_an_incomplete_restoration_is_an_error_of_the_trial(experiment, file, monkeypatch):
    monkeypatch.setattr(SGD, "load_state_dict", None)
    adam = experiment.optimizer.func
    monkeypatch.setattr(adam, "load_state_dict", lambda self, state: None)
    with pytest.raises(
        ExperimentError, match=r"cannot resume from the checkpoint .*: .*not the given one after loading"
    ):
        go_on(experiment, file)


def test_watchers_go_on_from_the_checkpoint(experiment, tmp_path):
    patient = replace(experiment, epochs=2, patience=Patience(epochs=5, at_least=1, validation=0.2))
    file = tmp_path / "seed-000.checkpoint"
    with pytest.raises(Enough):
        Trial(patient, patient.method("scratch"), 0).run(Setting(), Stop(lambda event: None), file)
    kept = torch.load(file, weights_only=True)["state"]
    assert "strategy" not in kept  # each task's is made afresh
    result = go_on(patient, file, "scratch")
    assert result["validation_error"][:1] == kept["watchers"]["early_stopping"]["errors"]
    assert len(result["validation_error"]) == 5


def test_random_states_return(monkeypatch):
    import random

    states = random_states("cpu")
    draws = [(random.random(), np.random.rand(), np.random.randn(), torch.rand(1).item()) for _ in range(2)]
    restore_random_states(states, "cpu")
    assert [(random.random(), np.random.rand(), np.random.randn(), torch.rand(1).item()) for _ in range(2)] == draws
    with pytest.raises(NotKeptError, match="random states of device mps"):
        random_states("mps")


def test_fingerprints_tell_any_two_states_apart():
    values = [
        torch.zeros(2),
        torch.zeros(2, 1),
        torch.zeros(2, dtype=torch.float64),
        torch.tensor([0.0, -0.0]),
        torch.tensor(0.0),
        torch.tensor(0, dtype=torch.int32),
        [0.0, 0.0],
        (0.0, 0.0),
        [0, 0],
        [False, 0],
        ["0", 0],
        ["0, 0"],
        [[0], 0],
        [0, [0]],
        {"a": 1, "b": 2},
        {"b": 2, "a": 1},
        {"a": {"b": 1}},
        {"a": {}, "b": 1},
        0.0,
        -0.0,
        0,
        None,
        "",
        "None",
        [],
        {},
    ]
    assert len({fingerprint(value) for value in values}) == len(values)
    x = torch.arange(6.0).reshape(2, 3)
    assert fingerprint(x.T) == fingerprint(x.T.contiguous()) != fingerprint(x)
    assert fingerprint(OrderedDict(a=1)) == fingerprint({"a": 1})
    assert fingerprint(math.nan) == fingerprint(float("nan"))
    assert fingerprint(torch.ones(2, dtype=torch.bfloat16)) != fingerprint(torch.ones(2, dtype=torch.float16))


@pytest.mark.parametrize("value", [{1, 2}, np.float64(1.0), np.zeros(1), object(), lambda: 0, [print]])
def test_only_plain_data_is_packed(value):
    with pytest.raises(NotKeptError):
        pack(value)


def test_packed_tensors_have_no_graph():
    weight = torch.nn.Parameter(torch.ones(2))
    packed = pack({"weight": weight, "product": [2 * weight]})
    assert not packed["weight"].requires_grad
    assert not packed["product"][0].requires_grad
    assert packed["weight"].data_ptr() == weight.data_ptr()


class WritesOnly(SupervisedPlugin):
    """Has a state that nobody can put back."""

    def __init__(self):
        super().__init__()
        self.steps = 0

    def state_dict(self):
        return {"steps": self.steps}


def test_a_plugin_that_cannot_load_its_state_is_not_kept(experiment, digits):
    strategy = trainer(experiment, digits).strategy()
    strategy.plugins.append(WritesOnly())
    with pytest.raises(NotKeptError, match="WritesOnly, which has no state_dict and load_state_dict"):
        strategy_state(strategy, trainer(experiment, digits).shared + strategy.plugins[:-1])


def test_lists_that_have_grown_are_put_back():
    assert _unpack([1, (2, [3])], torch.device("cpu"), []) == [1, (2, [3])]
    assert _unpack([1], torch.device("cpu"), [1, 2]) == [1]


def test_differences_are_named():
    then = {"a": [1, {"b": 2}], "c": 1, "d": [1]}
    now = {"a": [1, {"b": 3}], "e": 1, "d": [1, 2]}
    assert list(differences(then, now)) == [
        "a[1].b was 2 and is 3",
        "c was 1 and is None",
        "d was [1] and is [1, 2]",
        "e was None and is 1",
    ]

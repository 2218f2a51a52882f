import math
from dataclasses import replace
from functools import partial
from statistics import fmean

import pytest
import torch
from avalanche.training.plugins import SupervisedPlugin
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.optim import SGD

from avsi.experiment import ExperimentError, Patience, Setting, Trial, making, trainer
from avsi.experiment.events import Said, Step
from avsi.experiment.methods import dhp
from avsi.experiment.progress import TrialProgress
from avsi.experiment.provenance import describe_data
from avsi.metrics import average_accuracy, backward_transfer
from avsi.models import MLP, DHPLinear, MultiHead, SplitCIFARNet, glorot_uniform
from avsi.plugins.batches import InMemoryLoader
from avsi.plugins.early_stopping import EarlyStopping
from avsi.scenarios import Source, build, imbalance, sequence, split_digits
from avsi.scenarios.build import ImageScenario

VOLATILE = {"started", "wall_time_s", "train_time_s"}


def run(experiment, name, seed=0, tell=lambda event: None, **setting):
    return Trial(experiment, experiment.method(name), seed).run(Setting(**setting), TrialProgress(tell))


@pytest.mark.parametrize("name", ["finetune", "si"])
def test_sequential_trial(experiment, name):
    result = run(experiment, name)
    matrix = result["accuracy_matrix"]
    assert len(matrix) == 5
    assert all(len(row) == 5 for row in matrix)
    assert result["accuracy"] == average_accuracy(matrix)
    assert result["bwt"] == backward_transfer(matrix)
    assert result["task_accuracy"] == matrix[-1]
    assert all(matrix[t][t] > 0.8 for t in range(5))
    assert len(result["train_time_s"]) == 5
    assert result["wall_time_s"] > 0
    assert result["seed"] == 0
    assert result["description"]["method"]["name"] == name
    assert result["description"]["epochs"] == 2
    assert result["environment"]["torch"] == torch.__version__.split("+")[0]
    train, test = result["data"]
    assert (train["name"], train["split"], train["images"], train["complete"]) == ("digits", "train", 1442, True)
    assert (test["split"], test["images"], test["published"]) == ("test", 355, 355)
    assert len(train["fingerprint"]) == 64


def test_a_trial_is_a_function_of_its_description_and_seed(experiment):
    torch.manual_seed(123)
    first = run(experiment, "si", seed=3)
    torch.manual_seed(321)
    again = run(experiment, "si", seed=3)
    other = run(experiment, "si", seed=4)
    assert {k: v for k, v in first.items() if k not in VOLATILE} == {
        k: v for k, v in again.items() if k not in VOLATILE
    }
    assert first["accuracy_matrix"] != other["accuracy_matrix"]


@pytest.mark.parametrize("name", ["scratch", "joint"])
def test_bounds_have_accuracies_by_task_and_no_matrix(experiment, name):
    result = run(experiment, name)
    assert result["accuracy_matrix"] is None
    assert result["bwt"] is None
    assert len(result["task_accuracy"]) == 5
    assert result["accuracy"] == pytest.approx(math.fsum(result["task_accuracy"]) / 5)
    assert result["accuracy"] > 0.85


def test_from_scratch_models_are_fresh(experiment):
    """A model trained on one task alone cannot depend on the others: the first task's is that of fine-tuning."""
    scratch, finetune = run(experiment, "scratch"), run(experiment, "finetune")
    assert scratch["task_accuracy"][0] == finetune["accuracy_matrix"][0][0]
    assert len(scratch["train_time_s"]) == 5


def test_the_optimizer_is_reset_between_tasks_where_the_protocol_says_so(experiment):
    kept = replace(experiment, reset_optimizer=False)
    assert run(kept, "finetune")["accuracy_matrix"] != run(experiment, "finetune")["accuracy_matrix"]


SEEDS = []


def recording_scenario(*, seed, **arguments):
    SEEDS.append(seed)
    return split_digits(seed=seed, **arguments)


def test_the_trials_seed_is_the_benchmarks(experiment):
    run(replace(experiment, scenario=recording_scenario, epochs=1), "finetune", seed=11)
    assert SEEDS == [11]


def test_what_a_script_says_of_its_benchmark_is_so(experiment):
    """And what ``--set scenario.seed=3`` says: tables call the protocol changed by it."""
    given = []
    scenario = partial(lambda **arguments: given.append(arguments), seed=3, validation=0.5)
    patient = replace(experiment, scenario=scenario, patience=Patience(validation=0.1))
    with pytest.raises(ExperimentError, match="it must make an Avalanche benchmark"):
        making.make_benchmark(patient, 11, Setting())
    assert given == [{"seed": 3, "validation": 0.5, "download": True}]


def test_disagreement_with_avalanches_metrics_fails_the_trial(experiment, monkeypatch):
    def disagree(*arguments):
        raise RuntimeError("disagreement")

    monkeypatch.setattr(trainer.metrics, "check_against_avalanche", disagree)
    for name in ("finetune", "joint"):
        with pytest.raises(RuntimeError, match="disagreement"):
            run(replace(experiment, epochs=1), name)


def test_missing_images_are_counted(digits):
    train, test = digits.image_sets
    part = replace(train, images=train.images[:100], labels=train.labels[:100])
    rows = describe_data(ImageScenario(list(digits.streams.values()), [part, test], digits.classes))
    assert [(row["images"], row["published"], row["complete"]) for row in rows] == [
        (100, 1442, False),
        (355, 355, True),
    ]


def test_early_stopping_watches_the_validation_stream(experiment, monkeypatch):
    streams = []

    class Watch(EarlyStopping):
        def __init__(self, stream, *rest):
            streams.append(stream[0].origin_stream.name)
            super().__init__(stream, *rest)

    monkeypatch.setattr(trainer, "EarlyStopping", Watch)
    run(replace(experiment, epochs=1, patience=Patience()), "finetune")
    assert streams == ["valid"]


def test_progress_moves_through_the_trial(experiment, monkeypatch):
    monkeypatch.setattr(TrialProgress, "_due", lambda self: True)
    events = []
    result = run(experiment, "finetune", tell=events.append)
    steps = [event for event in events if isinstance(event, Step)]
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert len(set(fractions)) > 50
    assert (steps[0].task, steps[0].activity) == ("task 1/5", "epoch 1/2")
    ends = [event.line for event in events if isinstance(event, Said)]
    assert [line.partition(":")[0] for line in ends] == [f"task {task}/5" for task in range(1, 6)]
    assert f"accuracy {100 * result['accuracy']:.2f} %" in ends[-1]


LOADERS = set()


class WatchLoader(SupervisedPlugin):
    def after_training_iteration(self, strategy, **kwargs):
        LOADERS.add(type(strategy.dataloader))


def test_trials_are_fed_from_memory(experiment):
    si = replace(experiment.method("si"), plugins=(WatchLoader,))
    run(replace(experiment, epochs=1, methods=(si,)), "si")
    assert {InMemoryLoader} == LOADERS


def test_hebbian_dynamics_reach_the_result_and_tensorboard(experiment, tmp_path):
    plastic = dhp(partial(MLP, 64, (16,), partial(MultiHead, head=DHPLinear)))
    long = replace(experiment, epochs=6, methods=(plastic,))
    records = run(long, "dhp", tensorboard=tmp_path)["hebbian_dynamics"]
    assert records["head.heads.0"]["step"][0] == 100
    events = EventAccumulator(str(next(tmp_path.rglob("events.out.tfevents*")).parent)).Reload()
    for name, record in records.items():
        for key in ("eta", "hebb", "alpha"):
            scalars = events.Scalars(f"DHP/{name}/{key}")
            assert [s.step for s in scalars] == record["step"]
            assert [s.value for s in scalars] == pytest.approx(record[key], rel=1e-6)
    assert run(experiment, "finetune")["hebbian_dynamics"] == {}


def test_early_stopping_trains_at_least_and_at_most_so_long(experiment):
    stopping = replace(experiment, epochs=6, patience=Patience(epochs=1, at_least=2, validation=0.2))
    assert stopping.digest(experiment.method("si")) != replace(experiment, epochs=6).digest(experiment.method("si"))
    result = run(stopping, "si")
    assert result["description"]["patience"] == {"epochs": 1, "at_least": 2, "validation": 0.2}
    assert all(2 <= len(errors) <= 6 for errors in result["validation_error"])
    assert any(len(errors) < 6 for errors in result["validation_error"])
    assert "patience" not in run(experiment, "finetune")["description"]


def test_tensorboard_logs_on_request(experiment, tmp_path):
    run(experiment, "finetune", tensorboard=tmp_path / "logs")
    files = list((tmp_path / "logs").rglob("events.out.tfevents*"))
    assert files
    events = EventAccumulator(str(files[0].parent)).Reload()
    assert [len(events.Scalars(tag)) for tag in ("Loss/train_epoch", "accuracy")] == [10, 1]
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"optimizer.kwargs.lr" in content


@pytest.mark.parametrize("name", ["finetune", "scratch", "joint"])
def test_accuracy_by_class_and_on_training_data(experiment, name):
    """Weighted by the classes' test images, accuracies by class give the accuracies by task."""
    result = run(experiment, name)
    counts = [torch.tensor(e.dataset.targets).bincount() for e in split_digits().test_stream]
    for classes, count, accuracy in zip(result["class_accuracy"], counts, result["task_accuracy"], strict=True):
        assert len(classes) == len(count) == 2
        right = torch.tensor(classes, dtype=torch.double) @ count.double()
        assert float(right / count.sum()) == pytest.approx(accuracy)
    assert len(result["train_accuracy"]) == 5
    assert all(0.5 < accuracy <= 1 for accuracy in result["train_accuracy"])
    if name == "finetune":
        matrix = result["accuracy_matrix"]
        learned = [fmean(classes) for classes in result["learned_class_accuracy"]]
        assert learned == pytest.approx([matrix[task][task] for task in range(5)], abs=0.05)


def test_a_method_may_have_an_optimizer_of_its_own(experiment):
    finetune = experiment.method("finetune")
    own = replace(finetune, name="slow", optimizer=partial(SGD, lr=1e-9))
    result = run(replace(experiment, methods=(finetune, own)), "slow")
    assert result["description"]["optimizer"]["call"] == "torch.optim.SGD"
    assert result["accuracy"] < 0.8  # hardly trained


def test_channels_last_changes_the_memory_format_alone(experiment):
    """Of weights and activations; the numbers are equal but for rounding, and the description says it."""
    images = partial(SplitCIFARNet, init=glorot_uniform)
    small = replace(experiment, scenario=grey_as_colour, model=images, epochs=1)
    changed = replace(small, channels_last=True)
    assert "channels_last" not in small.describe(small.methods[0])
    assert changed.describe(changed.methods[0])["channels_last"] is True
    formats = []
    original = SplitCIFARNet.forward

    def forward(self, x, *arguments):
        formats.append(self.features[0].weight.is_contiguous(memory_format=torch.channels_last))
        return original(self, x, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SplitCIFARNet, "forward", forward)
        run(changed, "finetune")
    assert all(formats)


def grey_as_colour(**arguments):
    digits = Source.load("digits")
    pieces = sequence([digits], size=32, channels=3)
    return build(imbalance(pieces, [[8] * 10]), seed=arguments["seed"])

from dataclasses import replace

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.scenarios.generic_scenario import SequenceCLStream
from avalanche.benchmarks.utils import AvalancheDataset
from torch.utils.data import TensorDataset

from avsi.experiment import Patience, Setting, Trial
from avsi.experiment.events import Said, Step
from avsi.experiment.methods import batched_ewc, mas
from avsi.experiment.progress import TrialProgress, part_of


def told(experiment, method, **options):
    """Run a trial that tells everything it can."""
    events = []
    progress = TrialProgress(events.append)
    progress._due = lambda: True
    result = Trial(experiment, experiment.method(method), 0).run(Setting(), progress, **options)
    return events, result


def ends(events):
    return [event.line for event in events if isinstance(event, Said) and event.detail]


def steps(events):
    return [event for event in events if isinstance(event, Step)]


@pytest.mark.parametrize("method", ["finetune", "scratch"])
def test_a_trial_tells_task_epoch_speed_and_fraction(experiment, method):
    events, _ = told(experiment, method)
    trained = [step for step in steps(events) if step.activity.startswith("epoch")]
    seen = list(dict.fromkeys((step.task, step.activity) for step in trained))
    assert seen == [(f"task {task}/5", f"epoch {epoch}/2") for task in range(1, 6) for epoch in (1, 2)]
    fractions = [step.fraction for step in steps(events)]
    assert fractions[0] == 0
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert all(step.speed > 0 for step in trained[2:])
    middle = next(step for step in trained if (step.task, step.activity) == ("task 3/5", "epoch 2/2"))
    sizes = [len(experience.dataset) for experience in experiment.scenario(seed=0).train_stream]
    assert middle.fraction == pytest.approx((sum(sizes[:2]) + 0.5 * sizes[2]) / sum(sizes))
    assert any(step.activity == "evaluation" for step in steps(events))


def test_a_task_counts_by_its_samples():
    data = [AvalancheDataset([TensorDataset(torch.zeros(size, 2), torch.zeros(size))]) for size in (50, 30, 20)]
    stream = benchmark_from_datasets(train=data).train_stream
    assert [part_of(stream, index) for index in range(3)] == [(0, 0.5), (0.5, 0.8), (0.8, 1)]


class MadeWhenReached(SequenceCLStream):
    def _full_length(self):
        return 4

    def _make_experience(self, index):
        raise AssertionError(f"experience {index} was made for its size")


def test_experiences_that_are_made_when_they_are_reached_count_alike():
    stream = MadeWhenReached("train", benchmark=None)
    assert part_of(stream, 1) == (0.25, 0.5)
    assert part_of(stream[2:], 3) == (0.75, 1)


def test_joint_training_is_one_task(experiment):
    events, result = told(experiment, "joint")
    assert {step.task for step in steps(events)} == {"all tasks"}
    fractions = [step.fraction for step in steps(events)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert ends(events) == [f"all tasks: accuracy {100 * result['accuracy']:.2f} % (mean of 5 tasks)"]


def test_task_ends_tell_the_accuracy_on_the_tasks_learned_so_far(experiment):
    events, result = told(experiment, "si")
    rows = result["accuracy_matrix"]
    means = [100 * sum(row[: task + 1]) / (task + 1) for task, row in enumerate(rows)]
    counts = ["one task", *(f"mean of {count} tasks" for count in range(2, 6))]
    assert ends(events) == [
        f"task {task}/5: accuracy {mean:.2f} % ({count})"
        for task, (mean, count) in enumerate(zip(means, counts, strict=True), 1)
    ]


def test_early_stopping_shows_the_most_epochs_and_jumps_ahead(experiment):
    stopping = replace(experiment, epochs=20, patience=Patience(epochs=1, at_least=2))
    events, result = told(stopping, "finetune")
    epochs = [len(errors) for errors in result["validation_error"]]
    assert min(epochs) < 20
    fractions = [step.fraction for step in steps(events)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert steps(events)[0].activity == "epoch 1/≤20"


def test_telling_changes_nothing(experiment):
    _, result = told(experiment, "si")
    silent = TrialProgress(lambda event: None)
    silent._due = lambda: False
    again = Trial(experiment, experiment.method("si"), 0).run(Setting(), silent)
    assert again["accuracy_matrix"] == result["accuracy_matrix"]
    assert again["weights"] == result["weights"]


@pytest.mark.parametrize("method", [mas(1.0), batched_ewc(1.0)], ids=lambda method: method.name)
def test_importance_passes_are_told(experiment, method):
    events, _ = told(replace(experiment, methods=(method,)), method.name)
    activities = {step.activity.rsplit(" ", 1)[0] for step in steps(events)}
    assert len(activities - {"epoch", "learned", "evaluation", "validation"}) == 1


def test_a_resumed_trial_begins_at_its_fraction(experiment, tmp_path):
    class CutError(Exception):
        pass

    def cut(event):
        if isinstance(event, Step) and event.task == "task 3/5":
            raise CutError

    with pytest.raises(CutError):
        Trial(experiment, experiment.method("si"), 0).run(Setting(), TrialProgress(cut), tmp_path / "checkpoint")
    events, _ = told(experiment, "si", checkpoint=tmp_path / "checkpoint")
    assert steps(events)[0].task == "task 3/5"
    assert steps(events)[0].fraction == pytest.approx(2 / 5, abs=0.01)  # the tasks differ a little in size
    assert [line.partition(":")[0] for line in ends(events)] == ["task 3/5", "task 4/5", "task 5/5"]

import io
from dataclasses import replace

import pytest
from rich.console import Console

from avsi.experiment import Patience
from avsi.experiment.progress import Display, Said, Step, TaskEnd, TrialProgress
from avsi.experiment.trial import Setting, run_trial


def told(experiment, method, **options):
    """Run a trial that tells everything it can."""
    events = []
    progress = TrialProgress(events.append)
    progress._due = lambda: True
    result = run_trial(experiment, experiment.method(method), 0, Setting(), progress, **options)
    return events, result


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
    assert middle.fraction == pytest.approx((2 + 0.5) / 5)
    assert any(step.activity == "evaluation" for step in steps(events))


def test_joint_training_is_one_task(experiment):
    events, result = told(experiment, "joint")
    assert {step.task for step in steps(events)} == {"all tasks"}
    fractions = [step.fraction for step in steps(events)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert [event for event in events if isinstance(event, TaskEnd)] == [
        TaskEnd("all tasks", pytest.approx(result["accuracy"]), 5)
    ]


def test_task_ends_tell_the_accuracy_on_the_tasks_learned_so_far(experiment):
    events, result = told(experiment, "si")
    ends = [event for event in events if isinstance(event, TaskEnd)]
    rows = result["accuracy_matrix"]
    assert ends == [
        TaskEnd(f"task {task + 1}/5", pytest.approx(sum(row[: task + 1]) / (task + 1)), task + 1)
        for task, row in enumerate(rows)
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
    again = run_trial(experiment, experiment.method("si"), 0, Setting(), silent)
    assert again["accuracy_matrix"] == result["accuracy_matrix"]
    assert again["weights"] == result["weights"]


def test_importance_passes_are_told(experiment):
    from avsi.experiment.methods import mas

    events, _ = told(replace(experiment, methods=(mas(1.0),)), "mas")
    activities = {step.activity.rsplit(" ", 1)[0] for step in steps(events)}
    assert len(activities - {"epoch", "learned", "evaluation"}) == 1


def test_a_resumed_trial_begins_at_its_fraction(experiment, tmp_path):
    class CutError(Exception):
        pass

    def cut(event):
        if isinstance(event, Step) and event.task == "task 3/5":
            raise CutError

    with pytest.raises(CutError):
        run_trial(experiment, experiment.method("si"), 0, Setting(), TrialProgress(cut), tmp_path / "checkpoint")
    events, _ = told(experiment, "si", checkpoint=tmp_path / "checkpoint")
    assert steps(events)[0].task == "task 3/5"
    assert steps(events)[0].fraction == pytest.approx(2 / 5)
    assert [end.tasks for end in events if isinstance(end, TaskEnd)] == [3, 4, 5]


@pytest.fixture
def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=120, height=30)


def bars(display):
    return {task.description: task for task in display.live.tasks}


def test_a_terminal_shows_a_bar_for_each_running_trial_and_one_for_all(terminal):
    with Display(3, console=terminal) as display:
        display.start("si, seed 0")
        display.start("si, seed 1")
        display.show("si, seed 0", Step(0.25, "task 2/5", "epoch 1/4", 123.4))
        display.show("si, seed 1", Step(0.0, "task 1/5", "epoch 1/4"))
        display.live.refresh()
        assert list(bars(display)) == ["all trials", "si, seed 0", "si, seed 1"]
        assert bars(display)["si, seed 0"].completed == 0.25
        display.finish("si, seed 1", 0.875, 3.0)
        assert list(bars(display)) == ["all trials", "si, seed 0"]
    output = terminal.file.getvalue()
    assert "task 2/5, epoch 1/4" in output
    assert "123 it/s" in output
    assert "si, seed 1: accuracy 87.50 % (3 s)" in output


def test_time_left_counts_only_what_is_still_to_be_done(terminal):
    with Display(4, console=terminal) as display:
        everything = bars(display)["all trials"]
        display.start("a")
        display.show("a", Step(0.5, "", ""))  # resumed
        assert (everything.completed, everything.total) == (0, 3.5)
        display.show("a", Step(0.75, "", ""))
        assert (everything.completed, everything.total) == (0.25, 3.5)
        display.finish("a", 1.0, 1.0)
        assert (everything.completed, everything.total) == (0.5, 3.5)
        display.forget()
        display.start("b")
        display.fail("b", "RuntimeError: at once", "")
        assert (everything.completed, everything.total) == (0.5, 1.5)


@pytest.mark.parametrize(
    ("verbosity", "lines"),
    [
        ("quiet", ["a: a warning", "b: FAILED: reason"]),
        ("normal", ["a: a warning", "a: accuracy 50.00 % (2 s)", "b: FAILED: reason"]),
        (
            "verbose",
            [
                "a, task 1/2: accuracy 75.00 % (one task)",
                "a: a warning",
                "a, task 2/2: accuracy 50.00 % (mean of 2 tasks)",
                "a: accuracy 50.00 % (2 s)",
                "b: FAILED: reason",
            ],
        ),
    ],
)
def test_lines_where_there_is_no_terminal(verbosity, lines):
    console = Console(file=io.StringIO(), width=40)
    with Display(2, verbosity, console) as display:
        for trial in ("a", "b"):
            display.start(trial)
        display.show("a", Step(0.0, "task 1/2", "epoch 1/1", 10.0))
        display.show("a", TaskEnd("task 1/2", 0.75, 1))
        display.show("a", Said("a warning"))
        display.show("a", Said(""))
        display.show("a", TaskEnd("task 2/2", 0.5, 2))
        display.finish("a", 0.5, 2.0)
        display.fail("b", "reason", "Traceback\n  details\n")
    assert console.file.getvalue().splitlines() == lines
    display.show_failures()
    assert console.file.getvalue().splitlines()[len(lines) :] == ["", "b: FAILED", "Traceback", "  details"]


def test_quiet_shows_nothing_live(terminal):
    with Display(1, "quiet", terminal) as display:
        display.start("a")
        display.show("a", Step(0.5, "task 1/2", "epoch 1/1", 10.0))
        display.finish("a", 0.5, 2.0)
    assert terminal.file.getvalue() == ""

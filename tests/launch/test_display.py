import io

import pytest
from rich.console import Console

from avsi.experiment.events import Said, Step
from avsi.launch.display import Display, in_words
from avsi.launch.executors import Failure


def finished(accuracy, seconds):
    return {"status": "finished", "accuracy": accuracy, "wall_time_s": seconds}


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
        display.end("si, seed 1", finished(0.875, 3.0))
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
        display.end("a", finished(1.0, 1.0))
        assert (everything.completed, everything.total) == (0.5, 3.5)
        display.forget()
        display.start("b")
        display.end("b", Failure("RuntimeError: at once", ""))
        assert (everything.completed, everything.total) == (0.5, 1.5)


@pytest.mark.parametrize(
    ("verbosity", "lines"),
    [
        ("quiet", ["a: a warning", "b: FAILED: reason"]),
        ("normal", ["a: a warning", "a: accuracy 50.00 % (2 s)", "b: FAILED: reason"]),
        (
            "verbose",
            [
                "a: task 1/2: accuracy 75.00 %",
                "a: a warning",
                "a: task 2/2: accuracy 50.00 %",
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
        display.show("a", Said("task 1/2: accuracy 75.00 %", detail=True))
        display.show("a", Said("a warning"))
        display.show("a", Said(""))
        display.show("a", Said("task 2/2: accuracy 50.00 %", detail=True))
        display.end("a", finished(0.5, 2.0))
        display.end("b", Failure("reason", "Traceback\n  details\n"))
    assert console.file.getvalue().splitlines() == lines
    display.summarise()
    assert console.file.getvalue().splitlines()[len(lines) :] == ["", "b: FAILED", "Traceback", "  details"]


def test_quiet_shows_nothing_live(terminal):
    with Display(1, "quiet", terminal) as display:
        display.start("a")
        display.show("a", Step(0.5, "task 1/2", "epoch 1/1", 10.0))
        display.end("a", finished(0.5, 2.0))
    assert terminal.file.getvalue() == ""


def test_the_end_is_told_after_the_first_epoch_that_a_run_trains():
    clock = 100.0
    console = Console(file=io.StringIO(), width=200, get_time=lambda: clock)
    with Display(8, console=console) as display:
        for trial in "ab":
            display.start(trial)
            display.show(trial, Step(0.5, "task 2/2", "epoch 1/≤4"))  # resumed in the middle
        for fraction in (0.55, 0.6, 0.65, 0.7):
            clock += 12
            display.show("b", Step(fraction, "task 2/2", "epoch 1/≤4"))
            display.show("a", Step(fraction, "task 2/2", "epoch 1/≤4"))
        assert not console.file.getvalue()
        clock += 12
        display.show("b", Step(0.75, "task 2/2", "epoch 2/≤4"))
        display.show("a", Step(0.75, "task 2/2", "epoch 2/≤4"))
        display.show("a", Step(0.8, "task 2/2", "epoch 2/≤4"))
    # Half a trial in one minute: of eight trials six and a half are left.
    (line,) = console.file.getvalue().splitlines()
    assert line.startswith("at this speed all is done in at most 12 min, on ")


@pytest.mark.parametrize(("seconds", "words"), [(59, "1 min"), (3600, "1 h 0 min"), (500 * 3600, "21 days")])
def test_durations_in_words(seconds, words):
    assert in_words(seconds) == words


def test_a_diverged_trial_is_said_at_once_and_is_no_failure():
    console = Console(file=io.StringIO(), width=200)
    with Display(1, console=console) as display:
        display.start("a")
        where = {"task": 1, "epoch": 0, "step": 7, "cause": "too strong", "stable_strength": None}
        display.end("a", {"status": "diverged", "divergence": where})
    assert console.file.getvalue() == "a: DIVERGED in task 2, epoch 1, step 8: too strong\n"
    display.summarise()
    assert console.file.getvalue().endswith("diverged, which is their result: a\n")
    assert not display.failures


def test_one_mistake_of_several_trials_is_printed_once():
    console = Console(file=io.StringIO(), width=200)
    with Display(3, console=console) as display:
        for trial, details in (("a", "same"), ("b", "other"), ("c", "same")):
            display.start(trial)
            display.end(trial, Failure("reason", details))
    console.file.truncate(0)
    console.file.seek(0)
    display.summarise()
    assert console.file.getvalue() == "\na; c: FAILED\nsame\n\nb: FAILED\nother\n"

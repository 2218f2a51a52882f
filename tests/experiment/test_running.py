import contextlib
import io
from dataclasses import replace

import pytest
from rich.console import Console

from avsi.data import DataError
from avsi.experiment import running
from avsi.experiment.checkpoint import checkpoint_path
from avsi.experiment.engines import Failure
from avsi.experiment.progress import Display
from avsi.experiment.results import Results
from avsi.experiment.trial import Setting

RESULT = {"accuracy": 0.5, "bwt": None, "task_accuracy": [0.5], "accuracy_matrix": None, "data": [], "wall_time_s": 1.0}


class Run:
    """A run whose engine makes results up."""

    def __init__(self, folder, experiment):
        self.results, self.experiment = Results(folder), experiment
        self.output = io.StringIO()
        self.ran, self.jobs, self.outcomes = [], [], {}

    def engine(self, jobs, show):
        for job in jobs:
            self.ran.append((job.method.name, job.seed))
            self.jobs.append(job)
            yield job, self.outcomes.get(job.name, {"seed": job.seed} | RESULT)

    def __call__(self, *names, seeds=(0,), **options):
        trials = [(self.experiment.method(name), seed) for seed in seeds for name in names]
        self.display = Display(len(trials), console=Console(file=self.output, width=200))
        with self.display as display:
            running.run_trials(
                self.experiment, trials, self.results, Setting(), options.pop("engine", self.engine), display, **options
            )

    def of(self, name, seed=0):
        return self.experiment, self.experiment.method(name), seed


@pytest.fixture
def run(tmp_path, experiment):
    return Run(tmp_path, experiment)


def test_trials_are_run_in_order_and_once(run, tmp_path):
    run("si", "finetune", seeds=(0, 1))
    assert run.ran == [("si", 0), ("finetune", 0), ("si", 1), ("finetune", 1)]
    run("si", "finetune", seeds=(0, 1, 2))
    assert run.ran[4:] == [("si", 2), ("finetune", 2)]
    assert not list(tmp_path.rglob(".*"))


def test_a_trial_in_other_hands_is_left_to_them(run, monkeypatch):
    lock = run.results.claim(*run.of("si"))

    def other_run_finishes(seconds):
        assert run.ran == [("finetune", 0)]
        run.results.write(*run.of("si")[:2], {"seed": 0} | RESULT)
        run.results.release(*run.of("si"), lock)

    monkeypatch.setattr(running.time, "sleep", other_run_finishes)
    run("si", "finetune")
    assert run.ran == [("finetune", 0)]
    assert "waiting for trials that another run has in hand: 1" in run.output.getvalue()


def test_a_trial_that_others_let_go_unfinished_is_run(run, monkeypatch):
    lock = run.results.claim(*run.of("si"))
    monkeypatch.setattr(running.time, "sleep", lambda seconds: lock.release())
    run("si", "finetune")
    assert run.ran == [("finetune", 0), ("si", 0)]


def test_a_trial_is_in_hand_while_it_runs_and_until_its_result_is_there(run):
    held = []

    def engine(jobs, show):
        for job in jobs:
            held.append(run.results.claim(*run.of(job.method.name)))
            yield job, {"seed": job.seed} | RESULT
            held.append(run.results.claim(*run.of(job.method.name)) is not None)

    run("si", engine=engine)
    assert held == [None, True]


def test_a_run_that_is_stopped_lets_go_of_its_trials(run):
    closed = []

    def engine(jobs, show):
        try:
            yield next(jobs), {"seed": 0} | RESULT
            next(jobs)
            raise KeyboardInterrupt
        finally:
            closed.append(True)

    with pytest.raises(KeyboardInterrupt):
        run("si", "finetune", engine=engine)
    assert closed
    assert run.results.claim(*run.of("finetune")) is not None
    assert run.results.read(*run.of("si")) is not None


def test_engine_is_closed_when_a_run_is_stopped_between_outcomes(run, monkeypatch):
    closed = []

    def engine(jobs, show):
        try:
            for job in jobs:
                yield job, {"seed": 0} | RESULT
        finally:
            closed.append(True)

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Results, "write", stop)
    with pytest.raises(KeyboardInterrupt) as caught:
        run("si", engine=engine)
    assert closed, caught


def test_failures_are_kept_and_leave_the_others_alone(run, monkeypatch):
    run.outcomes["si, seed 0"] = Failure("ValueError: too much", "the whole story")
    run.outcomes["joint, seed 0"] = {"seed": 0} | RESULT | {"accuracy": float("nan")}
    run("si", "joint", "finetune")
    assert run.ran == [("si", 0), ("joint", 0), ("finetune", 0)]
    output = run.output.getvalue()
    assert "si, seed 0: FAILED: ValueError: too much\n" in output
    assert "joint, seed 0: FAILED: ValueError: Out of range float values" in output
    assert list(run.display.failures) == ["si, seed 0", "joint, seed 0"]
    assert run.display.failures["si, seed 0"] == "the whole story"
    run.outcomes.clear()
    run("si", "joint", "finetune")
    assert run.ran[3:] == [("si", 0), ("joint", 0)]


def test_checkpoints_go_when_the_result_is_there_and_not_before(run, tmp_path):
    checkpoint = checkpoint_path(run.results.path(*run.of("si")))
    run.outcomes["si, seed 0"] = Failure("cut", "")
    run("si")
    checkpoint.write_bytes(b"state")
    run("si")
    assert run.jobs[-1].checkpoint == checkpoint
    assert checkpoint.read_bytes() == b"state"
    run.outcomes.clear()
    run("si")
    assert not checkpoint.exists()


def test_rerun_begins_at_the_beginning_and_keeps_the_old_result_until_there_is_a_new_one(run):
    run("si")
    checkpoint = checkpoint_path(run.results.path(*run.of("si")))
    checkpoint.write_bytes(b"state")
    run.outcomes["si, seed 0"] = Failure("cut", "")
    run("si", rerun=True)
    assert not checkpoint.exists()
    assert run.results.read(*run.of("si"))["accuracy"] == 0.5
    run.outcomes["si, seed 0"] = {"seed": 0} | RESULT | {"accuracy": 0.75}
    run("si", rerun=True)
    assert run.ran == [("si", 0)] * 3
    assert run.results.read(*run.of("si"))["accuracy"] == 0.75


def test_logs_of_a_trial_that_starts_over_are_replaced(run):
    folder = run.results.trial_folder(*run.of("si")[:2])
    log = folder / "tensorboard-000" / "events"
    log.parent.mkdir(parents=True)
    log.touch()
    checkpoint_path(folder / "seed-000.json").touch()
    run("si", tensorboard=True)
    assert run.jobs[-1].setting.tensorboard == log.parent
    assert log.exists()  # that trial goes on
    run("si", tensorboard=True, rerun=True)
    assert not log.exists()
    run("finetune")
    assert run.jobs[-1].setting.tensorboard is None


def test_data_are_prepared_where_the_trials_look_for_them(experiment):
    asked = []
    running.prepare_data(replace(experiment, scenario=lambda **a: asked.append(a)), Setting(download=False), 3)
    assert asked == [{"seed": 3, "dataset_root": None, "download": False}]


@pytest.mark.parametrize(("fault", "passes"), [(DataError("no data"), False), (RuntimeError("a fault"), True)])
def test_only_missing_data_stop_a_run_before_it_begins(experiment, fault, passes):
    def scenario(**arguments):
        raise fault

    with contextlib.nullcontext() if passes else pytest.raises(DataError, match="no data"):
        running.prepare_data(replace(experiment, scenario=scenario), Setting(), 0)

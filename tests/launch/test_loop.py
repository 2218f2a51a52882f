"""The loop over trials, with an executor that makes results up."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from avsi.data import DataError
from avsi.experiment import ExperimentError, Setting, Trial
from avsi.launch import cli, loop
from avsi.launch.display import Display
from avsi.launch.executors import Failure
from avsi.launch.loop import Loop, checkpoint_path, unfinished
from avsi.results import store

RESULT = {
    "status": "finished",
    "accuracy": 0.5,
    "bwt": None,
    "task_accuracy": [0.5],
    "accuracy_matrix": None,
    "data": [],
    "wall_time_s": 1.0,
}


class Invented:
    """An executor whose results are those of a table, made up where it has none."""

    def __init__(self, room=1, outcomes=None):
        self.room, self.outcomes, self.jobs, self.running, self.entered = room, outcomes or {}, [], [], []

    def __enter__(self):
        self.entered.append(True)
        return self

    def __exit__(self, *exception):
        self.entered.append(False)

    @property
    def has_room(self):
        return len(self.running) < self.room

    def submit(self, job):
        self.jobs.append(job)
        self.running.append(job)

    def finished(self, show, timeout):
        job = self.running.pop(0)
        yield job, self.outcomes.get(str(job), {"seed": job.trial.seed} | RESULT)


class Run:
    def __init__(self, folder, experiment):
        self.root, self.experiment, self.outcomes, self.jobs = folder, experiment, {}, []
        self.output = io.StringIO()

    @property
    def ran(self):
        return [(job.trial.method.name, job.trial.seed) for job in self.jobs]

    def __call__(self, *names, seeds=(0,), executor=None, **options):
        trials = [self.of(name, seed) for seed in seeds for name in names]
        executor = executor or Invented(outcomes=self.outcomes)
        self.display = Display(len(trials), console=Console(file=self.output, width=200))
        try:
            with Loop(executor, self.root, Setting(), **options) as loop, self.display as display:
                loop.run(trials, display)
        finally:
            self.jobs += executor.jobs
        return executor

    def of(self, name, seed=0):
        return Trial(self.experiment, self.experiment.method(name), seed)

    def path(self, name, seed=0):
        return self.root / self.of(name, seed).file

    def write(self, name, seed=0):
        store.write_trial(self.path(name, seed), {"seed": seed} | RESULT)


@pytest.fixture
def run(tmp_path, experiment):
    return Run(tmp_path, experiment)


def test_trials_are_run_in_order_and_once(run, tmp_path):
    run("si", "finetune", seeds=(0, 1))
    assert run.ran == [("si", 0), ("finetune", 0), ("si", 1), ("finetune", 1)]
    run("si", "finetune", seeds=(0, 1, 2))
    assert run.ran[4:] == [("si", 2), ("finetune", 2)]
    assert not list(tmp_path.rglob(".*"))


def test_as_many_trials_run_at_a_time_as_there_is_room_for(run):
    class Watched(Invented):
        most = 0

        def finished(self, show, timeout):
            self.most = max(self.most, len(self.running))
            yield from super().finished(show, timeout)

    assert run("si", "finetune", seeds=(0, 1), executor=Watched(room=3)).most == 3
    assert len(run.ran) == 4


def test_a_trial_in_other_hands_is_left_to_them(run, monkeypatch):
    lock = store.claim(run.path("si"))

    def other_run_finishes(seconds):
        assert run.jobs == []
        run.write("si")
        store.release(run.path("si"), lock)

    monkeypatch.setattr(loop.time, "sleep", other_run_finishes)
    executor = run("si", "finetune")
    assert run.ran == [("finetune", 0)]
    assert executor.entered == [True, False]  # once, however long it is waited
    assert "waiting for trials that another run has in hand: 1" in run.output.getvalue()


def test_a_trial_that_others_let_go_unfinished_is_run(run, monkeypatch):
    lock = store.claim(run.path("si"))
    monkeypatch.setattr(loop.time, "sleep", lambda seconds: lock.release())
    run("si", "finetune")
    assert run.ran == [("finetune", 0), ("si", 0)]


def test_a_trial_is_in_hand_while_it_runs_and_not_afterwards(run):
    held = []

    class Trying(Invented):
        def finished(self, show, timeout):
            held.append(store.claim(run.path("si")))
            yield from super().finished(show, timeout)
            held.append(store.claim(run.path("si")) is not None)

    run("si", executor=Trying())
    assert held == [None, True]


def test_a_run_that_is_stopped_lets_go_of_its_trials_and_leaves_the_executor(run):
    class Stopped(Invented):
        def finished(self, show, timeout):
            if len(self.jobs) == 2:
                raise KeyboardInterrupt
            yield from super().finished(show, timeout)

    executor = Stopped()
    with pytest.raises(KeyboardInterrupt):
        run("si", "finetune", executor=executor)
    assert executor.entered == [True, False]
    assert store.claim(run.path("finetune")) is not None
    assert store.read_trial(run.path("si")) is not None


def test_failures_are_kept_and_leave_the_others_alone(run):
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


def test_a_trial_that_cannot_be_sent_elsewhere_fails_alone(run):
    class Strict(Invented):
        def submit(self, job):
            if job.trial.method.name == "si":
                raise TypeError("cannot pickle 'generator' object")
            super().submit(job)

    run("si", "finetune", executor=Strict())
    assert "si, seed 0: FAILED: TypeError: cannot pickle 'generator' object" in run.output.getvalue()
    assert run.ran == [("finetune", 0)]
    assert store.claim(run.path("si")) is not None


def test_divergence_is_a_result(run):
    where = {"task": 0, "epoch": 1, "step": 2, "cause": "too strong", "stable_strength": 0.5}
    nothing = {"accuracy": None, "task_accuracy": None}
    run.outcomes["si, seed 0"] = {"seed": 0} | RESULT | nothing | {"status": "diverged", "divergence": where}
    run("si")
    assert not run.display.failures
    assert run.display.diverged == ["si, seed 0"]
    assert store.read_trial(run.path("si"))["divergence"] == where
    run("si")
    assert run.ran == [("si", 0)]


def test_checkpoints_go_when_the_result_is_there_and_not_before(run):
    checkpoint = checkpoint_path(run.path("si"))
    run.outcomes["si, seed 0"] = Failure("interrupted", "")
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
    checkpoint = checkpoint_path(run.path("si"))
    checkpoint.write_bytes(b"state")
    run.outcomes["si, seed 0"] = Failure("interrupted", "")
    run("si", rerun=True)
    assert not checkpoint.exists()
    assert store.read_trial(run.path("si"))["accuracy"] == 0.5
    run.outcomes["si, seed 0"] = {"seed": 0} | RESULT | {"accuracy": 0.75}
    run("si", rerun=True)
    assert run.ran == [("si", 0)] * 3
    assert store.read_trial(run.path("si"))["accuracy"] == 0.75


def test_what_a_killed_process_left_of_finished_trials_is_deleted(run, tmp_path):
    run.write("si")
    left = [run.path("si").with_name(name) for name in ("seed-000.checkpoint", ".seed-000.json.ab.part")]
    begun = checkpoint_path(run.path("finetune"))
    begun.parent.mkdir(parents=True)
    held = checkpoint_path(run.path("joint"))
    run.write("joint")
    for path in (*left, begun, held):
        path.touch()
    lock = store.claim(run.path("joint"))
    trials = [run.of(name) for name in ("si", "finetune", "joint", "scratch")]
    assert unfinished(trials, tmp_path) == [trials[1], trials[3]]
    assert [path.exists() for path in (*left, begun, held)] == [False, False, True, True]
    lock.release()


def test_logs_of_a_trial_that_starts_over_are_replaced(run):
    log = run.path("si").with_name("tensorboard-000") / "events"
    log.parent.mkdir(parents=True)
    log.touch()
    checkpoint_path(run.path("si")).touch()
    run("si", tensorboard=True)
    assert run.jobs[-1].setting.tensorboard == log.parent
    assert log.exists()  # that trial goes on
    run("si", tensorboard=True, rerun=True)
    assert not log.exists()
    run("finetune")
    assert run.jobs[-1].setting.tensorboard is None


def test_data_are_prepared_where_the_trials_look_for_them(experiment, tmp_path):
    asked = []
    trial = Trial(replace(experiment, scenario=lambda **given: asked.append(given)), experiment.methods[0], 3)
    with pytest.raises(ExperimentError, match="makes a NoneType; it must make an Avalanche benchmark"):
        cli._prepare_data(trial, Setting(data_root=tmp_path, download=False))
    assert asked == [{"seed": 3, "dataset_root": tmp_path, "download": False}]


@pytest.mark.parametrize("fault", [DataError("no data"), RuntimeError("a fault")])
def test_only_missing_data_stop_a_run_before_it_begins(experiment, fault):
    def scenario():
        raise fault

    # The fault cannot be described, so it is put there behind the description's back.
    trial = Trial(experiment, experiment.methods[0], 0)
    object.__setattr__(experiment, "scenario", scenario)
    if isinstance(fault, DataError):
        with pytest.raises(ExperimentError, match="no data"):
            cli._prepare_data(trial, Setting())
    else:
        cli._prepare_data(trial, Setting())

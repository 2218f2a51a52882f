"""The loop over trials, with an executor that makes results up."""

import threading
from dataclasses import replace

import pytest

from avsi.data import DataError
from avsi.experiment import ExperimentError, Setting, Trial
from avsi.launch import loop, preparing
from avsi.launch.executors import Failure
from avsi.launch.loop import Loop, checkpoint_path
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

    def __init__(self, workers=0, outcomes=None):
        self.workers, self.outcomes, self.jobs, self.stopped = workers, outcomes or {}, [], False

    def __call__(self, job, tell):
        self.jobs.append(job)
        return self.outcomes.get(str(job.trial), {"seed": job.trial.seed} | RESULT)

    def stop(self):
        self.stopped = True


class Run:
    def __init__(self, folder, experiment, capsys):
        self.root, self.experiment, self.outcomes, self.jobs, self.prepared = folder, experiment, {}, [], []
        self.capsys, self.output = capsys, ""

    @property
    def ran(self):
        return [(job.trial.method.name, job.trial.seed) for job in self.jobs]

    def __call__(self, *names, seeds=(0,), executor=None, **options):
        """Run trials; return the names of those that failed."""
        executor = executor or Invented(outcomes=self.outcomes)

        def prepare(trial):
            self.prepared.append(trial)
            return executor, Setting()

        launch = Loop(self.root, prepare, **options)
        try:
            launch([self.of(name, seed) for seed in seeds for name in names])
        finally:
            self.jobs += executor.jobs
            self.output += self.capsys.readouterr().err
        return launch.failures

    def of(self, name, seed=0):
        return Trial(self.experiment, self.experiment.method(name), seed)

    def path(self, name, seed=0):
        return self.root / self.of(name, seed).file

    def write(self, name, seed=0):
        store.write_trial(self.path(name, seed), {"seed": seed} | RESULT)


@pytest.fixture
def run(tmp_path, experiment, capsys):
    return Run(tmp_path, experiment, capsys)


def test_trials_are_run_in_order_and_once(run, tmp_path):
    run("si", "finetune", seeds=(0, 1))
    assert run.ran == [("si", 0), ("finetune", 0), ("si", 1), ("finetune", 1)]
    run("si", "finetune", seeds=(0, 1, 2))
    assert run.ran[4:] == [("si", 2), ("finetune", 2)]
    assert not list(tmp_path.rglob(".*"))


def test_finished_trials_need_nothing(run):
    run("si")
    run("si", "si")
    assert len(run.prepared) == 1


def test_a_loop_is_prepared_once(run):
    launch = Loop(run.root, lambda trial: (run.prepared.append(trial) or Invented(), Setting()))
    launch([run.of("si")])
    launch([run.of("finetune"), run.of("finetune")])
    assert run.prepared == [run.of("si")]
    assert "Tiny: 1 trial to run, 0 finished" in run.capsys.readouterr().err


def test_as_many_trials_run_at_a_time_as_there_are_workers(run):
    class Meeting(Invented):
        together = threading.Barrier(3)

        def __call__(self, job, tell):
            assert threading.current_thread() is not threading.main_thread()
            self.together.wait(60)  # for two others
            return super().__call__(job, tell)

    assert not run("si", "finetune", "joint", seeds=(0, 1), executor=Meeting(workers=3))
    assert len(run.ran) == 6


def test_without_workers_trials_run_in_the_main_thread(run):
    class Here(Invented):
        def __call__(self, job, tell):
            assert threading.current_thread() is threading.main_thread()
            return super().__call__(job, tell)

    assert not run("si", executor=Here())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_trial_in_other_hands_is_left_to_them(run, monkeypatch, workers):
    lock = store.claim(run.path("si"))
    executor = Invented(workers)

    def other_run_finishes(seconds):
        assert [str(job.trial) for job in executor.jobs] == ["finetune, seed 0"]
        run.write("si")
        store.release(run.path("si"), lock)

    monkeypatch.setattr(loop.time, "sleep", other_run_finishes)
    run("si", "finetune", executor=executor)
    assert run.ran == [("finetune", 0)]
    assert "waiting for trials that another run has claimed: 1" in run.output


def test_a_trial_that_others_let_go_unfinished_is_run(run, monkeypatch):
    lock = store.claim(run.path("si"))
    monkeypatch.setattr(loop.time, "sleep", lambda seconds: lock.release())
    run("si", "finetune")
    assert run.ran == [("finetune", 0), ("si", 0)]


def test_a_trial_is_claimed_while_it_runs_and_not_afterwards(run):
    held = []

    class Trying(Invented):
        def __call__(self, job, tell):
            held.extend(store.claim(run.path(name)) for name in ("si", "finetune"))
            held[-1].release()
            return super().__call__(job, tell)

    run("si", executor=Trying())
    assert held[0] is None
    assert store.claim(run.path("si")) is not None


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_run_that_is_stopped_lets_go_of_its_trials_and_ends_what_runs(run, workers):
    class Stopped(Invented):
        ended = threading.Event()

        def __call__(self, job, tell):
            if job.trial.method.name == "si":
                return super().__call__(job, tell)
            if not self.workers or job.trial.method.name == "joint":
                raise KeyboardInterrupt
            assert self.ended.wait(60)
            return Failure("its process ended", "")

        def stop(self):
            super().stop()
            self.ended.set()

    executor = Stopped(workers)
    names = ("si", "joint", "finetune") if workers < 2 else ("si", "finetune", "joint", "scratch")
    with pytest.raises(KeyboardInterrupt):
        run(*names, executor=executor)
    assert executor.stopped == (workers > 0)
    assert all(store.claim(run.path(name)) is not None for name in names)
    assert store.read_trial(run.path("si")) is not None
    assert "FAILED" not in run.output


def test_a_mistake_of_the_user_ends_the_run(run):
    class Refusing(Invented):
        def __call__(self, job, tell):
            raise ExperimentError("not so")

    for workers in (0, 2):
        with pytest.raises(ExperimentError, match="not so"):
            run("si", "finetune", executor=Refusing(workers))


def test_failures_are_kept_and_leave_the_others_alone(run):
    run.outcomes["si, seed 0"] = Failure("ValueError: too much", "the whole story")
    run.outcomes["joint, seed 0"] = {"seed": 0} | RESULT | {"accuracy": float("nan")}
    assert run("si", "joint", "finetune") == ["si, seed 0", "joint, seed 0"]
    assert run.ran == [("si", 0), ("joint", 0), ("finetune", 0)]
    assert "si, seed 0: FAILED: ValueError: too much\n" in run.output
    assert "joint, seed 0: FAILED: ValueError: Out of range float values" in run.output
    assert "\nsi, seed 0: FAILED\nthe whole story\n" in run.output
    run.outcomes.clear()
    run("si", "joint", "finetune")
    assert run.ran[3:] == [("si", 0), ("joint", 0)]


def test_a_trial_that_cannot_be_sent_elsewhere_fails_alone(run):
    class Strict(Invented):
        def __call__(self, job, tell):
            if job.trial.method.name == "si":
                raise TypeError("cannot pickle 'generator' object")
            return super().__call__(job, tell)

    run("si", "finetune", executor=Strict())
    assert "si, seed 0: FAILED: TypeError: cannot pickle 'generator' object" in run.output
    assert run.ran == [("finetune", 0)]
    assert store.claim(run.path("si")) is not None


def test_divergence_is_a_result(run):
    where = {"task": 0, "epoch": 1, "step": 2, "cause": "too strong", "stable_strength": 0.5}
    nothing = {"accuracy": None, "task_accuracy": None}
    run.outcomes["si, seed 0"] = {"seed": 0} | RESULT | nothing | {"status": "diverged", "divergence": where}
    assert not run("si")
    assert "diverged, which is their result: si, seed 0" in run.output
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
    run.outcomes["si, seed 0"] = {"seed": 0} | RESULT | {"accuracy": 0.75, "task_accuracy": [0.75]}
    run("si", rerun=True)
    assert run.ran == [("si", 0)] * 3
    assert store.read_trial(run.path("si"))["accuracy"] == 0.75


def test_what_a_killed_process_left_of_finished_trials_is_deleted(run):
    run.write("si")
    left = [run.path("si").with_name(name) for name in ("seed-000.checkpoint", ".seed-000.json.ab.part")]
    held = checkpoint_path(run.path("joint"))
    run.write("joint")
    for path in (*left, held):
        path.touch()
    lock = store.claim(run.path("joint"))
    run("si", "joint")
    assert run.ran == run.prepared == []
    assert [path.exists() for path in (*left, held)] == [False, False, True]
    lock.release()


def test_logs_of_a_trial_that_starts_over_are_replaced(run):
    log = run.path("si").with_name("tensorboard-000") / "events"
    log.parent.mkdir(parents=True)
    log.touch()
    checkpoint_path(run.path("si")).touch()
    run("si", tensorboard=True)
    assert run.jobs[-1].setting.tensorboard == log.parent
    assert log.exists()  # that trial resumes
    run("si", tensorboard=True, rerun=True)
    assert not log.exists()
    run("finetune")
    assert run.jobs[-1].setting.tensorboard is None


def test_data_are_prepared_where_the_trials_look_for_them(experiment, tmp_path):
    asked = []
    trial = Trial(replace(experiment, scenario=lambda **given: asked.append(given)), experiment.methods[0], 3)
    with pytest.raises(ExperimentError, match="makes a NoneType; it must make an Avalanche benchmark"):
        preparing.prepare_data(trial, Setting(data_root=tmp_path, download=False))
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
            preparing.prepare_data(trial, Setting())
    else:
        preparing.prepare_data(trial, Setting())

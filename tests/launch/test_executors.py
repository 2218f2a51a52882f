"""Executors as users meet them: a script of one's own, run as a command, killed, stopped, started twice."""

import json
import os
import select
import signal
import subprocess
import sys
import types
from collections import Counter
from dataclasses import replace

import pytest
import torch

from avsi.experiment import ExperimentError
from avsi.experiment.events import Said
from avsi.launch.cli import run
from avsi.launch.executors import _Output, _shared_out
from avsi.launch.options import Options

SCRIPT = """
import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path

from avalanche.training import Naive
from torch.optim import SGD

from avsi.experiment import Experiment, Method, main
from avsi.models import MLP, MultiHead
from avsi.scenarios import split_digits

HERE = Path(__file__).parent


def network(width):
    return MLP(64, (width,), MultiHead)


def plain(name, **arguments):
    with (HERE / "ran").open("a") as file:  # appended in one piece
        file.write(f"{name}\\n")
    return Naive(**arguments)


def broken(**arguments):
    print("a word before the end")
    raise RuntimeError("a fault in the strategy")


def dying(**arguments):
    os.kill(os.getpid(), signal.SIGKILL)


def gated(**arguments):
    if (HERE / "told").exists():
        told = os.open(HERE / "told", os.O_WRONLY)  # open until this process ends
        os.write(told, str(os.getpid()).encode())
        with (HERE / "gate").open() as gate:
            gate.read()  # until the test opens and closes it
    return plain("gated", **arguments)


EXPERIMENT = Experiment(
    name="own",
    title="Own",
    source="No paper.",
    scenario=split_digits,
    model=partial(network, 8),
    optimizer=partial(SGD, lr=0.1),
    epochs=1,
    batch_size=32,
    reset_optimizer=True,
    methods=(
        Method("gated", gated),
        Method("broken", broken),
        Method("dying", dying),
        Method("a", partial(plain, "a")),
        Method("b", partial(plain, "b")),
    ),
    trials=2,
)

if __name__ == "__main__":
    main(EXPERIMENT)
"""


class Script:
    """A script of one's own, and the runs of it."""

    def __init__(self, folder):
        self.folder = folder
        self.path = folder / "own.py"
        self.path.write_text(SCRIPT)
        self.runs = []

    def start(self, *arguments, out="results"):
        command = [sys.executable, str(self.path), "--out", str(self.folder / out), "--threads", "1", *arguments]
        # A group of its own, for Ctrl-C to go to.
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        run = subprocess.Popen(command, text=True, start_new_session=True, cwd=self.folder, **pipes)
        self.runs.append(run)
        return run

    def run(self, *arguments, out="results"):
        process = self.start(*arguments, out=out)
        output, error = process.communicate(timeout=300)
        return process.returncode, output, error

    def results(self, out="results"):
        return {
            path.parent.name.split("-")[0] + path.stem[4:]: path for path in (self.folder / out).rglob("seed-*.json")
        }

    def ran(self):
        return Counter((self.folder / "ran").read_text().split())


@pytest.fixture
def script(tmp_path):
    script = Script(tmp_path)
    yield script
    for process in script.runs:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def gate(tmp_path):
    """Pipes between the test and the method "gated"."""
    os.mkfifo(tmp_path / "told")
    os.mkfifo(tmp_path / "gate")
    told = os.open(tmp_path / "told", os.O_RDONLY | os.O_NONBLOCK)
    yield Gate(told, tmp_path / "gate")
    os.close(told)


class Gate:
    def __init__(self, told, gate):
        self.told, self.gate = told, gate

    def wait(self):
        """Wait until a trial stands at the gate.

        Returns:
            Its process's id, or nothing if it has ended.
        """
        assert select.select([self.told], [], [], 120)[0]
        return os.read(self.told, 100).decode()

    def open(self):
        os.close(os.open(self.gate, os.O_WRONLY))


def comparable(path):
    result = json.loads(path.read_text())
    for key in ("started", "wall_time_s", "train_time_s"):
        del result[key]
    return result


def read_until(stream, text):
    for line in stream:
        if text in line:
            return line
    raise AssertionError(f"ended without {text!r}")


def test_pool_and_this_process_have_the_same_results(experiment, tmp_path, capsys, monkeypatch):
    here = types.ModuleType("only_here")  # which no other process can import
    exec("def network(): return False", vars(here))
    monkeypatch.setitem(sys.modules, "only_here", here)
    methods = (replace(experiment.method("si"), name="lost", model=here.network), *experiment.methods)
    names = ("lost", "finetune", "si", "scratch", "joint")
    options = Options(methods=names, trials=1, epochs=1, threads=1)
    outputs = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        failed = run(replace(experiment, methods=methods), replace(options, out=out, workers=workers))
        assert failed == ["lost, seed 0"]
        outputs.append(capsys.readouterr())
    assert outputs[0].out.replace(str(tmp_path / "1"), "") == outputs[1].out.replace(str(tmp_path / "2"), "")
    assert "lost, seed 0: FAILED: ModuleNotFoundError: No module named 'only_here'" in outputs[1].err
    results = [
        {str(path.relative_to(out)): comparable(path) for path in out.rglob("seed-*.json")}
        for out in (tmp_path / "1", tmp_path / "2")
    ]
    assert len(results[0]) == 4
    assert results[0] == results[1]


def test_failing_and_dying_trials_leave_the_others_alone(script):
    code, output, error = script.run("--workers", "2", "--trials", "1")
    assert code == 1
    assert sorted(script.results()) == ["a-000", "b-000", "gated-000"]
    assert script.ran() == {"gated": 1, "a": 1, "b": 1}
    assert "gated" in output
    at_once, _, at_the_end = error.partition("seed 0: FAILED\n")
    assert "broken, seed 0: a word before the end\n" in at_once
    assert "broken, seed 0: FAILED: RuntimeError: a fault in the strategy\n" in at_once
    assert "dying, seed 0: FAILED: its process ended by SIGKILL" in at_once
    assert "b, seed 0: accuracy" in at_once
    assert "Traceback" not in at_once
    assert 'raise RuntimeError("a fault in the strategy")' in at_the_end
    assert "when memory runs out" in at_the_end

    # The script's own functions have the same names in all processes, so that trials are what their folders say.
    result = json.loads(script.results()["a-000"].read_text())
    assert result["description"]["model"]["call"]["name"] == "__main__.network"
    assert result["digest"] in script.results()["a-000"].parent.name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_a_run_that_is_stopped(script, gate, number):
    run = script.start("--workers", "2", "--trials", "1", "--methods", "gated")
    assert int(gate.wait()) != run.pid
    if number == signal.SIGINT:
        os.killpg(run.pid, number)  # as a terminal does
    else:
        run.send_signal(number)
    assert gate.wait() == ""
    _, error = run.communicate(timeout=60)  # which takes the end of all processes that could still write
    assert "Traceback" not in error
    if number == signal.SIGINT:
        assert run.returncode == 130
        assert "the same command resumes" in " ".join(error.split())


def test_a_trial_of_a_run_that_was_killed_is_taken_over(script, gate):
    first = script.start("--methods", "gated", "a", "--trials", "1")
    assert int(gate.wait()) == first.pid
    second = script.start("--methods", "gated", "a", "--trials", "1")
    read_until(second.stderr, "waiting for trials that another run has claimed: 1")
    assert script.ran() == {"a": 1}
    first.kill()
    assert gate.wait() in ("", str(second.pid))  # the first's end, or already the second
    gate.open()
    output, error = second.communicate(timeout=120)
    assert second.returncode == 0, error
    assert "gated" in output
    assert sorted(script.results()) == ["a-000", "gated-000"]
    assert script.ran() == {"gated": 1, "a": 1}
    assert not list((script.folder / "results").rglob(".seed*"))


def test_runs_started_together_do_every_trial_once(script):
    arguments = ("--methods", "a", "b", "--trials", "3")
    runs = [script.start(*arguments, out=out) for out in ("shared", "shared", "alone")]
    tables = [process.communicate(timeout=300)[0] for process in runs]
    assert [process.returncode for process in runs] == [0, 0, 0]
    assert script.ran() == {"a": 6, "b": 6}  # half of them alone
    assert tables[0] == tables[1] == tables[2].replace("alone", "shared")
    assert len(script.results("shared")) == 6
    for name, path in script.results("alone").items():
        assert comparable(path) == comparable(script.results("shared")[name])
    assert not list((script.folder / "shared").rglob(".seed*"))


def test_ray_runs_trials_elsewhere(script):
    local = script.start("--methods", "a", "gated", "--trials", "1", out="local")
    code, _, error = script.run("--engine", "ray", "--trials", "1", "--verbose", out="ray")
    assert local.wait(timeout=300) == 0
    assert code == 1
    assert sorted(script.results("ray")) == ["a-000", "b-000", "gated-000"]
    for name, path in script.results("local").items():
        assert comparable(path) == comparable(script.results("ray")[name])
    at_once, _, at_the_end = error.partition("seed 0: FAILED\n")
    assert "broken, seed 0: a word before the end\n" in at_once
    assert "broken, seed 0: FAILED: RuntimeError: a fault in the strategy\n" in at_once
    assert "dying, seed 0: FAILED: its Ray task ended: WorkerCrashedError" in at_once
    for task in range(1, 6):
        assert f"a, seed 0: task {task}/5: accuracy" in at_once
    assert 'raise RuntimeError("a fault in the strategy")' in at_the_end
    assert not list((script.folder / "ray").rglob("*.checkpoint"))


def test_a_ray_cluster_that_is_not_there(experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_gcs_server_port_wait_time_s", "1")  # where a killed cluster left its address behind
    with pytest.raises(ExperimentError, match="cannot join the Ray cluster at 'auto'"):
        run(experiment, Options(trials=1, out=tmp_path, engine="ray", ray_address="auto"))


def test_workers_of_a_script_without_guard_are_explained(script):
    script.path.write_text(SCRIPT.replace('if __name__ == "__main__":', "if True:"))
    code, _, error = script.run("--workers", "2", "--methods", "a")
    assert code == 2
    assert "under `if __name__ == '__main__':`" in " ".join(error.split())
    assert not script.results()


def test_workers_of_a_script_from_standard_input_are_refused(script):
    # It finds itself by its file, which is not there.
    text = SCRIPT.replace("Path(__file__)", repr(script.folder)).replace("PosixPath", "Path")
    command = [sys.executable, "-", "--out", str(script.folder / "results"), "--methods", "a", "--trials", "1"]
    refused, ran = (
        subprocess.run([*command, "--workers", workers], input=text, text=True, capture_output=True, timeout=300)
        for workers in ("2", "1")
    )
    assert refused.returncode == 2
    assert "this one is <stdin>, not a file: save it as one" in " ".join(refused.stderr.split())
    assert ran.returncode == 0, ran.stderr
    assert set(script.results()) == {"a-000"}


def test_gpus_are_shared_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [_shared_out("cuda", place) for place in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [_shared_out(device, 1) for device in ("cpu", "cuda:0")] == ["cpu", "cuda:0"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert _shared_out("cuda", 1) == "cuda"


def test_what_a_trial_prints_is_told_by_lines_the_last_one_too():
    told = []
    output = _Output(told.append)
    output.write("one\ntw")
    output.write("o\nthree")
    assert told == [Said("one"), Said("two")]
    output.close()
    output.close()
    assert told[2:] == [Said("three")]


def test_a_trial_whose_node_is_lost_goes_to_another_one_and_no_other(monkeypatch):
    ray = pytest.importorskip("ray")
    from avsi.launch import on_ray

    told, ends = [], [ray.exceptions.NodeDiedError("gone"), ray.exceptions.WorkerCrashedError(), {"status": "finished"}]

    def get(end):
        if isinstance(end, Exception):
            raise end
        return end

    monkeypatch.setattr(on_ray.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(on_ray, "_room", lambda threads, gpu: 1)
    monkeypatch.setattr(on_ray.ray, "get", get)
    monkeypatch.setattr(on_ray.ray.cloudpickle, "dumps", lambda job: job)
    executor = on_ray.OnRay()
    executor._task = types.SimpleNamespace(remote=lambda payload, threads: iter((Said("begins"), ends.pop(0))))
    tell = lambda event: told.append(event.line)  # noqa: E731
    assert executor("first", tell).reason == "its Ray task ended: WorkerCrashedError"
    assert told == ["begins", "its node was lost; it goes to another one", "begins"]
    assert executor("second", tell) == {"status": "finished"}

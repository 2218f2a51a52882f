import contextlib
import importlib
import json
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from avalanche.training import Naive
from torch.optim import SGD

from avsi.experiment import ExperimentError, Method, Patience, Setting, Trial, main
from avsi.experiment.events import Step
from avsi.experiment.progress import TrialProgress
from avsi.launch import cli
from avsi.launch.cli import run
from avsi.launch.loop import checkpoint_path
from avsi.launch.options import Options
from avsi.results import store, trials
from avsi.scenarios import split_mnist


def files(folder, pattern):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(pattern))


def test_main_runs_trials_and_writes_table_and_figure(experiment, tmp_path, capsys):
    main(experiment, args=["--methods", "finetune", "si", "--trials", "2", "--out", str(tmp_path)])
    output = capsys.readouterr()
    assert re.search(r"fine-tuning\s+2\s+\d\d\.\d\d ± \d+\.\d\d\s.*90\.0", output.out)
    assert "One seed" not in output.out
    assert "finetune, seed 0: accuracy" in output.err
    assert "\x1b[" not in output.err + output.out
    assert len(files(tmp_path, "seed-*.json")) == 4
    assert files(tmp_path, "*.md") == ["tiny/summary.md"]
    assert (tmp_path / "tiny" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert "| SI, c = 1 |" in (tmp_path / "tiny" / "summary.md").read_text()
    assert files(tmp_path, ".*") == [".report.lock"]


def test_results_say_the_command_that_was_given(experiment, tmp_path, monkeypatch):
    """From a notebook, too, whose own command line is another."""
    monkeypatch.setattr(sys, "argv", ["script.py", "--of", "the notebook"])
    given = ["--methods", "finetune", "--trials", "1", "--out", str(tmp_path)]
    main(experiment, args=given)
    recorded = json.loads((tmp_path / "tiny" / "experiment.json").read_text())["command"]
    assert shlex.split(recorded) == ["script.py", *given]


NOTEBOOK = """
from avsi.models import MLP, MultiHead

WIDTH = 16

def network():
    return MLP(64, (WIDTH,), MultiHead)
"""


def test_what_a_notebook_changes_between_two_runs_makes_other_trials(experiment, tmp_path, monkeypatch):
    """A constant that a function of its names, where neither the function nor the experiment is made anew."""
    (tmp_path / "notebook.py").write_text(NOTEBOOK)
    monkeypatch.syspath_prepend(tmp_path)
    notebook = importlib.import_module("notebook")
    own, counts = replace(experiment, model=notebook.network, epochs=1), []
    for notebook.WIDTH in (16, 16, 8):
        main(own, args=["--methods", "finetune", "--trials", "1", "--out", str(tmp_path / "out")])
        counts.append(len(files(tmp_path / "out", "seed-*.json")))
    assert counts == [1, 1, 2]


def test_finished_trials_are_not_run_again_and_new_ones_are_added(experiment, tmp_path, monkeypatch):
    ran = []
    real = Trial.run
    monkeypatch.setattr(Trial, "run", lambda trial, *a: ran.append((trial.method.name, trial.seed)) or real(trial, *a))
    run(experiment, Options(methods=("si",), trials=1, out=tmp_path))
    before = {f: (tmp_path / f).read_bytes() for f in files(tmp_path, "seed-*.json")}
    run(experiment, Options(methods=("si", "finetune"), trials=2, out=tmp_path))
    assert ran == [("si", 0), ("finetune", 0), ("si", 1), ("finetune", 1)]
    assert all((tmp_path / f).read_bytes() == content for f, content in before.items())
    run(experiment, Options(methods=("si",), trials=2, out=tmp_path))
    assert len(ran) == 4


def test_changed_epochs_are_other_trials_and_are_called_changed(experiment, tmp_path, capsys):
    run(experiment, Options(methods=("finetune",), trials=1, epochs=1, out=tmp_path))
    assert "1 epoch instead of 2" in capsys.readouterr().out
    (result,) = (json.loads((tmp_path / f).read_text()) for f in files(tmp_path, "seed-*.json"))
    assert result["deviation"] == "1 epoch instead of 2"
    assert files(tmp_path, "*.md") == ["tiny/summary-1-epochs.md"]
    figures = files(tmp_path, "*.png")
    assert "tiny/accuracy-1-epochs.png" in figures
    assert all(figure.endswith("-1-epochs.png") for figure in figures)


def test_files_of_another_protocol_are_left_as_they_are(experiment, tmp_path):
    """Drawing all of them again would take longer with each protocol that is tried."""
    options = Options(methods=("finetune",), trials=1, epochs=1, out=tmp_path)
    run(experiment, options)
    file = tmp_path / "tiny" / "accuracy-1-epochs.svg"
    file.unlink()
    run(experiment, replace(options, epochs=None))
    assert (tmp_path / "tiny" / "accuracy.svg").exists()
    assert not file.exists()


def test_files_hold_all_finished_methods_and_the_terminal_those_asked_for(experiment, tmp_path, capsys):
    run(experiment, Options(methods=("si",), trials=1, out=tmp_path))
    capsys.readouterr()
    run(experiment, Options(methods=("finetune",), trials=1, out=tmp_path))
    assert "SI, c = 1" not in capsys.readouterr().out
    text = (tmp_path / "tiny" / "summary.md").read_text()
    assert "| SI, c = 1 |" in text
    assert "| fine-tuning |" in text


def test_a_result_that_cannot_be_written_loses_no_other_trial(experiment, tmp_path, capsys, monkeypatch):
    real = store.write_trial

    def full_disk(path, result):
        if result["method"] == "finetune":
            raise OSError(28, "No space left on device")
        real(path, result)

    monkeypatch.setattr(store, "write_trial", full_disk)
    failures = run(experiment, Options(methods=("finetune", "si"), trials=1, out=tmp_path))
    assert failures == ["finetune, seed 0"]
    assert "No space left on device" in capsys.readouterr().err
    assert len(files(tmp_path, "seed-*.json")) == 1


def test_a_trial_that_another_run_finished_meanwhile_is_left_alone(experiment, tmp_path, monkeypatch):
    ran = []
    real = Trial.run

    def other_run_is_faster(trial, *rest):
        result = real(trial, *rest)
        ran.append(trial.seed)
        other = Trial(trial.experiment, trial.method, trial.seed + 1)
        store.write_trial(tmp_path / other.file, result | {"seed": other.seed})
        return result

    monkeypatch.setattr(Trial, "run", other_run_is_faster)
    run(experiment, Options(methods=("finetune",), trials=2, out=tmp_path))
    assert ran == [0]


def failing_strategy(**arguments):
    """A strategy that cannot be built."""
    raise RuntimeError("a fault in the strategy")


def test_a_failing_trial_is_reported_and_does_not_lose_the_others(experiment, tmp_path, capsys):
    broken = replace(experiment, methods=(Method("broken", failing_strategy), Method("finetune", Naive)))
    with pytest.raises(SystemExit) as stop:
        main(broken, args=["--trials", "1", "--out", str(tmp_path)])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert "broken, seed 0: FAILED: RuntimeError: a fault in the strategy" in error
    others, _, end = error.partition("broken, seed 0: FAILED\n")
    assert "finetune, seed 0: accuracy" in others
    assert 'raise RuntimeError("a fault in the strategy")' in end
    assert len(files(tmp_path, "seed-*.json")) == 1


def test_a_trial_that_exits_is_one_that_fails(experiment, tmp_path, capsys):
    leaving = replace(experiment, methods=(Method("leaving", lambda **_: sys.exit(3)), Method("finetune", Naive)))
    with pytest.raises(SystemExit) as stop:
        main(leaving, args=["--trials", "1", "--out", str(tmp_path)])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert "leaving, seed 0: FAILED: SystemExit: 3" in error
    assert "finetune, seed 0: accuracy" in error


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_keeps_finished_trials_and_says_how_to_go_on(experiment, tmp_path, capsys, monkeypatch, number, code):
    before = signal.getsignal(number)
    real = Trial.run

    def stop_at_second(trial, *arguments):
        if trial.seed == 1:
            signal.raise_signal(number)
        return real(trial, *arguments)

    monkeypatch.setattr(Trial, "run", stop_at_second)
    with pytest.raises(SystemExit) as stop:
        main(experiment, args=["--methods", "finetune", "--trials", "2", "--out", str(tmp_path)])
    assert stop.value.code == code
    assert signal.getsignal(number) is before
    assert "the same command resumes" in " ".join(capsys.readouterr().err.split())
    assert len(files(tmp_path, "seed-*.json")) == 1
    assert list(trials(tmp_path).seed) == [0]  # which can be read already


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--methods", "sgd"],
            r"tiny has no method 'sgd'; its methods are: finetune, si, avalanche_si, scratch, joint",
        ),
        (["--protocol", "x"], r"no protocol 'x'; there is: only the default one"),
        (["--trials", "0"], "trials must be at least 1 and at most 100000, got 0"),
        (["--epochs", "0"], "epochs must be a whole number of at least 1, got 0"),
        (["--set", "epochs=2.5"], "epochs must be a whole number of at least 1, got 2.5"),
        (["--set", "batch_size=True"], "batch_size takes a value of type int, got True"),
        (["--seed", "-1"], "seed must be at least 0 and at most 4294967294, got -1"),
        (["--seed", "4294967296"], "seed must be at least 0 and at most 4294967294, got 4294967296"),
        (["--trials", "9999999999"], "trials must be at least 1 and at most 100000, got 9999999999"),
        (["--set", "si.strenght=2"], r"cannot set 'si.strenght': .* takes no 'strenght'; did you mean 'strength'[?]"),
        (["--set", "si.own=2"], "cannot set 'si.own': .* takes no 'own'"),
        (["--set", "avalanche_si.strength=2"], "cannot set 'avalanche_si.strength': .* takes no 'strength'"),
        (["--set", "optimiser.lr=2"], r"cannot set 'optimiser.lr'; did you mean 'optimizer'[?]"),
        (["--set", "optimizer.rate=2"], "cannot set 'optimizer.rate': Adam takes no 'rate'"),
        (["--set", "optimizer.lr=1/3"], "cannot set 'optimizer.lr': lr is a number such as .*, got '1/3'"),
        (["--set", "si.strength=0,5"], "cannot set 'si.strength': strength is a number such as 1.0, got \\(0, 5\\)"),
        (
            ["--set", "si.train_epochs=3"],
            "method si: its strategy's train_epochs would be replaced .* epochs, batch_size",
        ),
        (["--set", "patience.epochs=2"], "cannot set 'patience.epochs'; there are .* scenario, model, optimizer such"),
        (["--set", "epochs=none"], "epochs takes a value of type int, got None"),
        (["--sweep-seeds", "3"], "--sweep-seeds is for --sweep"),
        (["--set", "batch_size=all"], "batch_size takes a value of type int, got 'all'"),
        (["--set", "batch_size"], "--set takes name=value"),
        (["--set", "@nowhere"], "cannot read the settings nowhere"),
        (["--device", "cuda:99"], r"device 'cuda:99' cannot be used \(.*\); try --device cpu"),
        (["--device", "gpu"], r"device 'gpu' cannot be used"),
        (["--workers", "0"], "workers must be at least 1 and at most 100000, got 0"),
        (["--threads", "0"], "threads must be at least 1 and at most 100000, got 0"),
        (["--ray-address", "auto"], "--ray-address is for --engine ray"),
        (["--engine", "ray", "--device", "cuda:1"], "Ray chooses among GPUs; use --device cuda instead of cuda:1"),
        (["--quiet", "--verbose"], "--quiet and --verbose contradict each other"),
    ],
)
def test_mistakes_are_explained_before_any_work(experiment, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(experiment, args=[*arguments, "--out", str(tmp_path)])
    assert stop.value.code == 2
    error = " ".join(capsys.readouterr().err.split())
    assert re.search("error: .*" + message, error)
    assert "Traceback" not in error
    assert not files(tmp_path, "*.json")


def test_ray_that_is_not_installed(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ExperimentError, match=r"Ray is not installed; .* pip install '\.\[ray\]' in a clone"):
        run(experiment, Options(engine="ray", out=tmp_path))


def test_results_folder_that_is_not_writable(experiment, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stop:
        main(experiment, args=["--out", str(tmp_path / "file")])
    assert stop.value.code == 2
    assert "choose another with --out" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", ["experiment", "choice-scenario.validation=0.1-si.strength=swept", "accuracy"])
def test_a_disk_that_fills_up_is_said_and_costs_no_trial(experiment, tmp_path, capsys, monkeypatch, name):
    real = Path.replace

    def full_disk(part, target):
        if target.stem == name:
            raise OSError(28, "No space left on device")
        return real(part, target)

    sweep = ["--sweep", "si.strength=1,2", "--set", "scenario.validation=0.1"] if name.startswith("choice") else []
    monkeypatch.setattr(Path, "replace", full_disk)
    with contextlib.suppress(SystemExit):
        main(experiment, args=["--methods", "si", "--trials", "1", *sweep, "--out", str(tmp_path)])
    error = capsys.readouterr().err
    assert re.search(rf"(error|left out): .*No space left on device: '.*tiny/{name}\.", error)
    assert len(files(tmp_path, "seed-*.json")) == (name != "experiment") + bool(sweep)  # it is written before they run


def test_missing_data_stops_the_run_with_an_explanation(experiment, tmp_path, capsys):
    mnist = replace(experiment, scenario=split_mnist)
    with pytest.raises(SystemExit) as stop:
        main(mnist, args=["--no-download", "--data-root", str(tmp_path / "none"), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "mnist" in error
    assert str(tmp_path / "none") in error.replace("\n", "")
    assert "--data-root" in error


def test_help_reads_well_on_eighty_columns(experiment, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        main(replace(experiment, source="No paper, " * 20), args=["--help"])
    assert stop.value.code == 0
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines()[1:])) == 80  # below the script's name
    assert "None" not in output
    text = " ".join(output.split())
    names = "methods trials seed epochs device data-root out rerun workers threads tensorboard quiet verbose engine"
    for word in names.split():
        assert f"--{word}" in text
    assert "Methods: finetune, si, avalanche_si, scratch, joint." in text


def test_quiet_shows_failures_and_where_the_tables_are(experiment, tmp_path, capsys):
    broken = replace(experiment, methods=(Method("broken", failing_strategy), Method("finetune", Naive)), epochs=1)
    run(broken, Options(trials=1, out=tmp_path, quiet=True))
    output = capsys.readouterr()
    assert all(str(tmp_path) in line for line in output.out.splitlines())
    assert output.err.startswith(
        "broken, seed 0: FAILED: RuntimeError: a fault in the strategy\n\nbroken, seed 0: FAILED"
    )


def test_verbose_shows_a_line_for_each_task(experiment, tmp_path, capsys):
    run(experiment, Options(methods=("finetune", "scratch", "joint"), trials=1, epochs=1, out=tmp_path, verbose=True))
    lines = capsys.readouterr().err.splitlines()
    (result,) = (json.loads((tmp_path / f).read_text()) for f in files(tmp_path, "*/finetune*/seed-*.json"))
    for task, row in enumerate(result["accuracy_matrix"]):
        mean = 100 * sum(row[: task + 1]) / (task + 1)
        tasks = f"mean of {task + 1} tasks" if task else "one task"
        assert f"finetune, seed 0: task {task + 1}/5: accuracy {mean:.2f} % ({tasks})" in lines
    (result,) = (json.loads((tmp_path / f).read_text()) for f in files(tmp_path, "*/scratch*/seed-*.json"))
    for task, accuracy in enumerate(result["task_accuracy"]):
        assert f"scratch, seed 0: task {task + 1}/5: accuracy {100 * accuracy:.2f} % (one task)" in lines
    assert sum(line.startswith("joint, seed 0: all tasks: accuracy") for line in lines) == 1


def test_rerun_runs_finished_trials_again(experiment, tmp_path, capsys):
    options = Options(methods=("finetune",), trials=1, epochs=1, out=tmp_path)
    run(experiment, options)
    (file,) = files(tmp_path, "seed-*.json")
    first = json.loads((tmp_path / file).read_text())
    (tmp_path / file).write_text(json.dumps(first | {"accuracy": 0.125, "task_accuracy": [0.125] * 5}))
    run(experiment, options)
    assert json.loads((tmp_path / file).read_text())["accuracy"] == 0.125
    run(experiment, replace(options, rerun=True))
    assert json.loads((tmp_path / file).read_text())["accuracy"] == first["accuracy"]
    assert "1 trial to run, 0 finished" in capsys.readouterr().err


def test_threads_of_this_process_are_set_for_the_trials_only(experiment, tmp_path):
    before = torch.get_num_threads()
    run(experiment, Options(methods=("finetune",), trials=1, epochs=1, threads=2, out=tmp_path))
    (result,) = (json.loads((tmp_path / f).read_text()) for f in files(tmp_path, "seed-*.json"))
    assert result["environment"]["threads"] == 2
    assert torch.get_num_threads() == before


def test_a_trial_that_goes_on_says_that_it_keeps_its_threads(experiment, tmp_path, capsys):
    trial = Trial(experiment.with_epochs(1), experiment.method("finetune"), 0)

    def stop(event):
        if isinstance(event, Step) and event.task == "task 2/5":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trial.run(Setting(), TrialProgress(stop), checkpoint_path(tmp_path / trial.file))
    run(experiment, Options(methods=("finetune",), trials=1, epochs=1, threads=2, device="cpu", out=tmp_path))
    assert "finetune, seed 0: goes on with 1 thread, as it began, not 2" in capsys.readouterr().err
    result = store.read_trial(tmp_path / trial.file)
    assert (result["environment"]["threads"], result["resumed"]) == (1, 1)


def test_protocols_are_chosen_by_name(experiment):
    zenke, dhp = (replace(experiment, name=name, protocol=name) for name in ("zenke", "dhp"))
    assert cli._choose_protocol([zenke, dhp], None) is zenke
    assert cli._choose_protocol([zenke, dhp], "dhp") is dhp
    with pytest.raises(ExperimentError, match="no protocol 'ewc'; there is: zenke, dhp"):
        cli._choose_protocol([zenke, dhp], "ewc")


@pytest.mark.parametrize("same", ["name", "protocol"])
def test_experiments_of_a_script_have_a_folder_and_a_protocol_each(experiment, same, tmp_path, capsys):
    """Else one would take the other's tables away, or could not be chosen."""
    other = replace(experiment, name="other", protocol="b")
    with pytest.raises(SystemExit) as stop:
        main(experiment, replace(other, **{same: getattr(experiment, same)}), args=["--out", str(tmp_path)])
    assert stop.value.code == 2
    assert f"each experiment of a script needs a {same} of its own" in capsys.readouterr().err


def test_methods_of_the_same_name_are_refused(experiment):
    method = experiment.method("si")
    with pytest.raises(ExperimentError, match="several methods named si"):
        replace(experiment, methods=(method, method))


def test_changed_epochs_are_told_from_the_protocols(experiment):
    assert experiment.with_epochs(5).with_epochs(1).deviation == "1 epoch instead of 2"
    assert experiment.with_epochs(5).with_epochs(2) == experiment


def test_unknown_method_error_is_a_value_error(experiment):
    with pytest.raises(ExperimentError, match="no method 'x'"):
        experiment.method("x")


def test_what_is_set_makes_other_trials_called_after_it(experiment, tmp_path, capsys):
    (tmp_path / "settings").write_text("# weaker\nsi.strength = 0.3  # c\n\noptimizer.lr=0.02\n")
    chosen = Options(methods=("si", "finetune"), trials=1, settings=(f"@{tmp_path / 'settings'}", "batch_size=16"))
    run(replace(experiment, epochs=1), replace(chosen, out=tmp_path))
    results = {r["method"]: r for r in (json.loads((tmp_path / f).read_text()) for f in files(tmp_path, "seed-*.json"))}
    assert set(results) == {"si,strength=0.3", "finetune"}
    description = results["si,strength=0.3"]["description"]
    assert description["method"]["strategy"]["kwargs"] == {"strength": 0.3, "damping": 1e-3}
    assert description["optimizer"]["kwargs"] == {"lr": 0.02}
    assert description["batch_size"] == 16
    assert results["finetune"]["deviation"] == "si.strength = 0.3, optimizer.lr = 0.02, batch_size = 16"
    output = capsys.readouterr().out
    assert "SI, strength = 0.3" in output
    assert files(tmp_path, "summary*.md") == ["tiny/summary-si.strength=0.3-optimizer.lr=0.02-batch_size=16.md"]


def test_a_smoke_test_takes_a_few_images_of_every_task(experiment, tmp_path):
    patient = replace(experiment, patience=Patience(), epochs=20)
    run(patient, Options(smoke=True, out=tmp_path))
    results = [json.loads((tmp_path / f).read_text()) for f in files(tmp_path, "seed-*.json")]
    assert {result["method"] for result in results} == {method.name for method in experiment.methods}
    for result in results:
        assert result["description"]["smoke"] is True
        assert all(sum(images) <= 200 for images in result["class_images"])
        assert result["deviation"].startswith("smoke test")
    assert files(tmp_path, "summary*.md") == ["tiny/summary-smoke.md"]


def test_many_trials_come_with_smaller_calls(experiment, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli.Loop, "_run", lambda *a: [])
    monkeypatch.setattr(cli, "write_experiment", lambda *a: None)
    run(replace(experiment, trials=5), Options(out=tmp_path))
    error = capsys.readouterr().err
    assert "Tiny: 25 trials to run, 0 finished\nfewer: --methods finetune si --trials 1; " in error
    run(experiment, Options(out=tmp_path))
    assert "fewer" not in capsys.readouterr().err


def test_a_run_with_diverged_trials_says_so_and_is_no_failure(experiment, tmp_path, capsys):
    unstable = replace(
        experiment,
        methods=(Method("unstable", Naive, optimizer=partial(SGD, lr=1e25)), *experiment.methods[1:2]),
        paper={},
        epochs=1,
    )
    main(unstable, args=["--trials", "1", "--out", str(tmp_path)])
    output = capsys.readouterr()
    assert "unstable, seed 0: DIVERGED in task 1, epoch 1" in output.err
    assert "diverged, which is their result: unstable, seed 0" in output.err
    assert "diverged (1 of 1)" in output.out
    (result,) = (json.loads((tmp_path / f).read_text()) for f in files(tmp_path, "unstable*/seed-*.json"))
    assert result["status"] == "diverged"
    assert result["divergence"]["task"] == result["divergence"]["epoch"] == 0
    assert result["accuracy"] is None


def test_a_home_folder_is_meant_by_a_tilde(experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(cli.Loop, "_run", lambda *a: [])
    monkeypatch.setattr(cli, "write_experiment", lambda *a: None)
    run(experiment, Options(out=Path("~/kept")))
    assert (tmp_path / "kept").is_dir()


def test_help_and_mistakes_load_neither_torch_nor_avalanche(tmp_path):
    script = Path(__file__).parents[2] / "reproductions" / "split_digits.py"
    for arguments in ("--help", "--methods x"):
        code = (
            f"import runpy, sys; sys.argv = ['x', *{arguments.split()!r}, '--out', {str(tmp_path)!r}]\n"
            f"try: runpy.run_path({str(script)!r}, run_name='__main__')\n"
            "except SystemExit: print(sorted({'torch', 'avalanche', 'pandas', 'matplotlib'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"

"""Sweeps: what is tried, what is chosen by, what is left for later."""

import json
import math
import re
from dataclasses import replace
from functools import partial

import pytest

from avsi.experiment import ExperimentError, Patience, Trial, main
from avsi.experiment.methods import mas, si
from avsi.launch.cli import run
from avsi.launch.options import Options
from avsi.launch.settings import change, read_settings, value_of
from avsi.launch.sweep import Range, Sweep, candidate, read_ranges
from avsi.results import store, trials
from avsi.results.study import read_studies
from avsi.scenarios import split_digits


@pytest.fixture
def swept(experiment):
    return replace(
        experiment,
        scenario=partial(split_digits, validation=0.2),
        methods=(*experiment.methods, mas(0.5)),
    )


def run_sweep(experiment, ranges, launch, **more):
    return Sweep(experiment, read_ranges(ranges), launch, launch.root, **more).run()


class Invented:
    """Stands for running trials: writes results whose accuracies follow from the settings."""

    def __init__(self, root, accuracy):
        self.root, self.accuracy, self.ran = root, accuracy, []

    def __call__(self, asked):
        for trial in asked:
            if store.read_trial(self.root / trial.file) is not None:
                continue
            self.ran.append((trial.method.name, trial.seed))
            validation = self.accuracy(dict(trial.method.settings), trial.seed)
            nothing = dict.fromkeys(("accuracy", "bwt", "task_accuracy", "accuracy_matrix", "validation_accuracy"))
            test = 1 - validation if validation is not None else None  # to be chosen by would be a mistake
            found = {"accuracy": test, "task_accuracy": [test], "accuracy_matrix": [[test]], "bwt": None}
            result = {"seed": trial.seed, "data": [], "method": trial.method.trial_name, "digest": trial.digest}
            if validation is None:
                result |= nothing | {"status": "diverged", "divergence": {"cause": "x"}}
            else:
                result |= found | {"validation_accuracy": validation}
            store.write_trial(self.root / trial.file, result)


def best_at(peak):
    return lambda settings, seed: 0.9 - 0.1 * abs(math.log10(settings["strength"]) - peak)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mas.strength=0.01,0.05,0.1", Range("mas.strength", (0.01, 0.05, 0.1))),
        ("mas.strength=log:1e-3:1e3:7", Range("mas.strength", (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0))),
        ("mas.strength = linear:0:1:3", Range("mas.strength", (0.0, 0.5, 1.0))),
        ("si.damping=linear:0.1:1", Range("si.damping", (0.1, 1.0), "linear")),
        ("mas.strength=log:1e-3:1e3", Range("mas.strength", (0.001, 1000.0), "log")),
        ("ewc.labels=exact,sampled", Range("ewc.labels", ("exact", "sampled"))),
        ("si.model.hidden=(8,),(8, 8)", Range("si.model.hidden", ((8,), (8, 8)))),
        ("ewc.labels=exact, 3,none", Range("ewc.labels", ("exact", 3, None))),
        ("si.optimizer.nesterov=true,false", Range("si.optimizer.nesterov", (True, False))),
    ],
)
def test_reading_ranges(text, expected):
    assert read_ranges([text]) == [expected]


@pytest.mark.parametrize(
    "text",
    ["mas.strength", "=1", "mas.strength=", "a.b=log:0:1:3", "a.b=log:2:1:3", "a.b=log:1:2:1", "a.b=linear:1:2:x",
     "a.b=log:1", "a.b=linear:1:inf:3", "a.b=log:1:2:3:4", "a.b=[1],[2]",
     "a.b=1,2,"],
)  # fmt: skip
def test_ranges_that_cannot_be_read(text):
    with pytest.raises(ExperimentError, match=re.escape(repr(text))):
        read_ranges([text])


def test_a_parameter_twice_is_refused():
    with pytest.raises(ExperimentError, match=r"si\.strength twice"):
        read_ranges(["si.strength=1,2", "si.strength=3"])


def test_the_best_on_validation_data_is_chosen_method_by_method(swept, tmp_path):
    launch = Invented(tmp_path, best_at(1))
    chosen = run_sweep(swept, ["mas.strength=0.1,10,1000", "si.strength=100,1"], launch, seeds=(3, 4))
    assert [m.name for m in chosen.methods] == ["mas", "si"]
    assert [m.strategy.keywords["strength"] for m in chosen.methods] == [10, 100]
    assert chosen.published == {"mas": {"strength": 0.5}, "si": {"strength": 1.0}}
    assert len(launch.ran) == 10
    assert {seed for _, seed in launch.ran} == {3, 4}
    names = [m.name for m in chosen.candidates if m.candidate_of == "mas"]
    assert names == ["mas,strength=0.1", "mas,strength=10", "mas,strength=1000"]
    # What is chosen has the trials of its candidate.
    (winner,) = (m for m in chosen.candidates if m.name == "mas,strength=10")
    assert Trial(chosen.experiment, chosen.methods[0], 3).file == Trial(swept, winner, 3).file
    assert chosen.experiment.deviation == "mas.strength = swept, si.strength = swept"


def test_several_parameters_are_a_grid(swept, tmp_path):
    launch = Invented(tmp_path, lambda settings, seed: settings["strength"] / 10 + settings["damping"] / 100)
    chosen = run_sweep(swept, ["si.strength=1,2", "si.damping=1e-3,0.1,1", "si.optimizer.lr=0.1"], launch)
    assert len(launch.ran) == 6
    (method,) = chosen.methods
    assert dict(method.settings) == {"strength": 2, "damping": 1, "optimizer.lr": 0.1}
    assert method.optimizer.keywords["lr"] == 0.1
    assert method.label == "SI, strength = 2, damping = 1, optimizer.lr = 0.1"


def test_settings_that_diverged_are_not_chosen(swept, tmp_path):
    def accuracy(settings, seed):
        return None if settings["strength"] == 100 and seed == 1 else min(settings["strength"] / 200, 1.0)

    chosen = run_sweep(swept, ["mas.strength=1,10,100"], Invented(tmp_path, accuracy), seeds=(0, 1))
    assert chosen.methods[0].settings == (("strength", 10),)
    both = ["si.strength=1,2", "mas.strength=1,10"]

    def accuracy_of_mas(settings, seed):
        return 0.5 if settings["strength"] == 10 else None

    chosen = run_sweep(swept, both, Invented(tmp_path / "both", accuracy_of_mas))
    assert [method.settings for method in chosen.methods] == [(("strength", 10),)]
    assert chosen.problem.startswith("no setting of si can be chosen: each has trials that diverged")


def test_what_cannot_be_chosen_does_not_cost_what_can(swept, tmp_path, monkeypatch):
    """Trials are finished, tables made, and then there is an error."""
    monkeypatch.setattr(Sweep, "_score", lambda self, method, count=None: -math.inf if "mas" in method.name else 0.5)
    ranges = ("si.strength=1,2", "mas.strength=1,2")
    with pytest.raises(ExperimentError, match="no setting of mas can be chosen"):
        run(swept, Options(sweep=ranges, trials=1, epochs=1, quiet=True, out=tmp_path))
    (study,), problems = read_studies(tmp_path / "tiny")
    assert list(study.compared.index) == ["si"]
    assert len(study.run) == 5
    assert not problems


def test_a_later_sweep_keeps_the_trials_of_what_is_chosen_again(swept, tmp_path, monkeypatch):
    monkeypatch.setattr(Sweep, "_score", lambda self, method, count=None: -abs(dict(method.settings)["strength"] - 1))
    for values, seeds, trials_ in (("1.0,2.0", 1, 3), ("1.0,4.0", 2, 1)):
        sweep = (f"si.strength={values}",)
        run(swept, Options(sweep=sweep, sweep_seeds=seeds, trials=trials_, epochs=1, quiet=True, out=tmp_path))
    (study,), _ = read_studies(tmp_path / "tiny")
    assert [seed for _, seed in study.of("si").index] == [2, 3]  # 0 and 1 were chosen by


def test_what_is_set_cannot_be_swept(swept, tmp_path):
    experiment = change(swept, read_settings(["si.strength=0.5"]))
    with pytest.raises(ExperimentError, match=r"--set gives si.strength a value, and --sweep others"):
        run_sweep(experiment, ["si.strength=1,10"], Invented(tmp_path, best_at(1)))


def test_optuna_finds_the_peak_and_goes_on_where_it_was(swept, tmp_path):
    pytest.importorskip("optuna")
    ranges = ["mas.strength=log:1e-6:1e6"]
    first = Invented(tmp_path, best_at(1))
    run_sweep(swept, ranges, first, drawn=12)
    assert len(first.ran) == 12
    again = Invented(tmp_path, best_at(1))
    chosen = run_sweep(swept, ranges, again, drawn=30)
    assert len(again.ran) == 18
    assert 1 < dict(chosen.methods[0].settings)["strength"] < 100


def test_optuna_gives_up_on_bad_settings_after_a_seed(swept, tmp_path):
    pytest.importorskip("optuna")
    launch = Invented(tmp_path, best_at(0))
    chosen = run_sweep(swept, ["mas.strength=log:1e-6:1e6"], launch, drawn=20, seeds=(0, 1, 2))
    assert 20 < len(launch.ran) < 60
    name = f"mas,strength={dict(chosen.methods[0].settings)['strength']}"
    assert {seed for ran, seed in launch.ran if ran == name} == {0, 1, 2}


def test_what_cannot_be_swept(swept, tmp_path):
    def swept_by(*ranges):
        return run_sweep(swept, ranges, Invented(tmp_path, lambda *_: 0.5))

    with pytest.raises(ExperimentError, match=r"'msa.strength'; did you mean 'mas'"):
        swept_by("msa.strength=1,2")
    with pytest.raises(ExperimentError, match=r"cannot sweep 'mas'; give a parameter of a method, .* are: finetune, "):
        swept_by("mas=1,2")
    with pytest.raises(ExperimentError, match="takes no 'strenght'; did you mean 'strength'"):
        swept_by("mas.strenght=1,2")
    with pytest.raises(ExperimentError, match=r"how many values of mas\.strength"):
        swept_by("mas.strength=log:1:2")
    launch = Invented(tmp_path, lambda *_: 0.5)
    with pytest.raises(ExperimentError, match="takes no 'strenght'; did you mean 'strength'"):  # before others are run
        run_sweep(swept, ["si.strength=1,2", "mas.strenght=1,2"], launch, drawn=2)
    assert not launch.ran
    with pytest.raises(ExperimentError, match="sweep-trials must be at least 1"):
        run(swept, Options(sweep=("mas.strength=log:1:2",), sweep_trials=0, out=tmp_path))


def test_a_candidate_equal_to_the_script_shares_its_trials(swept):
    method = swept.method("mas")
    same = candidate(swept, method, {"mas.strength": 0.5})
    assert Trial(swept, same, 0).file == Trial(swept, method, 0).file


def test_the_command_line_sweeps_chooses_and_reports(swept, tmp_path, capsys):
    """Real trials, from the command line to the tables."""
    options = Options(sweep=("si.strength=0.0,1.0", "si.damping=0.001,0.1"), trials=2, out=tmp_path)
    assert run(swept, options) == []
    output = capsys.readouterr()
    folder = tmp_path / "tiny"
    (choice,) = folder.glob("choice*.txt")
    assert "Choosing strengths" in output.out
    assert f"--set @{choice}" in output.err
    settings = read_settings([f"@{choice}"])
    assert [name for name, _ in settings] == ["si.strength", "si.damping"]
    changed = change(swept, settings)  # it is what --set takes
    assert next(m for m in changed.methods if m.name.startswith("si,")).strategy.keywords["damping"] == settings[1][1]
    (study,), problems = read_studies(folder)
    assert not problems
    method = study.methods.loc["si"]
    assert list(study.of("si").reset_index().seed) == [1, 2]  # not the one that was chosen by
    assert method.published == {"strength": 1.0, "damping": 0.001}
    tried = study.methods[study.methods.candidate_of == "si"]
    assert list(study.of(*tried.index).reset_index().seed) == [0] * 4
    best = study.by_seed("validation_accuracy")[tried.index].mean().idxmax()
    assert tried.settings[best] == method.settings
    assert (folder / f"sensitivity{study.suffix}.png").exists()
    assert len(trials(tmp_path).file.unique()) == 6
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("seed-*.json")}
    assert run(swept, options) == []
    assert before == {file: file.stat().st_mtime_ns for file in folder.rglob("seed-*.json")}


def test_without_validation_data_nothing_is_run(swept, tmp_path):
    options = Options(sweep=("si.strength=0.1,1",), settings=("scenario.validation=0.0",), trials=1, out=tmp_path)
    with pytest.raises(ExperimentError, match=r"add --set scenario\.validation=0\.1"):
        run(swept, options)
    assert not list(tmp_path.rglob("seed-*"))
    with pytest.raises(ExperimentError, match="--sweep-trials needs --sweep"):
        run(swept, Options(sweep_trials=3, out=tmp_path))


def test_several_settings_of_one_method(swept):
    """On the command line, as a choice's file has them."""
    settings = read_settings(["si.strength=2", "si.damping=0.5", "si.strength=3"])
    (method,) = (m for m in change(swept, settings).methods if m.name.startswith("si"))
    assert method.name == "si,damping=0.5,strength=3"
    assert method.label == "SI, damping = 0.5, strength = 3"
    assert method.strategy.keywords == {"strength": 3, "damping": 0.5}


def test_a_method_gets_an_optimizer_of_its_own_only_where_that_is_changed(swept):
    changed = change(swept, read_settings(["si.optimizer.lr=0.5", "mas.strength=2", "optimizer.lr=0.25"]))
    rates = {m.name: (m.optimizer or changed.optimizer).keywords["lr"] for m in changed.methods}
    assert rates["si,optimizer.lr=0.5"] == 0.5
    assert rates["mas,strength=2"] == rates["finetune"] == 0.25


def network(width, head=None, bias=True):
    """A model's builder whose arguments can be given by place."""


def small(width):
    """Another one."""


def test_what_is_set_of_the_model_is_set_in_models_of_methods_that_take_it(swept):
    own = {"a": partial(network, 8, bias=False), "b": small, "c": partial(network, 8)}
    methods = (si(1.0, 0.1), *(replace(mas(0.5), name=name, model=model) for name, model in own.items()))
    experiment = replace(swept, model=partial(network, 16), methods=methods, paper={})
    changed = change(experiment, read_settings(["c.model.width=2", "model.width=4", "model.bias=true"]))
    plain, a, b, c = changed.methods
    assert plain.model is None
    assert (changed.model.args, changed.model.keywords) == ((4,), {"bias": True})
    assert (a.model.args, a.model.keywords) == ((4,), {"bias": True})
    assert (b.model.args, b.model.keywords) == ((), {"width": 4})
    assert (c.model.args, c.model.keywords) == ((2,), {"bias": True})  # which was set by itself


def test_a_share_for_validation_that_the_scenario_does_not_take_is_refused(swept):
    def settings(scenario):
        return change(replace(swept, scenario=scenario, patience=Patience()), [("patience.validation", 0.2)])

    assert settings(split_digits).patience.validation == 0.2
    for scenario in (partial(split_digits, validation=0.1), lambda seed: None):
        with pytest.raises(ExperimentError, match=r"cannot set 'patience\.validation': the scenario holds out"):
            settings(scenario)


def test_a_file_of_settings_has_comments_after_a_space(tmp_path):
    (tmp_path / "settings").write_text("# all\nmodel.flag = 'a#b'  # this\nmodel.other=3 # that\n")
    assert read_settings([f"@{tmp_path / 'settings'}"]) == [("model.flag", "a#b"), ("model.other", 3)]


def test_the_scripts_value_is_found_wherever_it_stands(swept):
    method = replace(mas(0.5), model=partial(network, 64, partial(network, 8)))
    assert value_of(swept, method, "strength") == 0.5
    assert value_of(swept, method, "model.width") == 64
    assert value_of(swept, method, "model.head.width") == 8
    assert value_of(swept, method, "model.bias") is None
    assert value_of(swept, method, "model.head.bias") is None


def test_a_tuple_is_no_part_of_the_next_label(swept):
    settings = read_settings(["si.optimizer.betas=(0.9, 0.99)", "si.optimizer.lr=0.01", "si.strength=3"])
    (method,) = (m for m in change(swept, settings).methods if m.name.startswith("si"))
    assert method.label == "SI, optimizer.betas = (0.9, 0.99), optimizer.lr = 0.01, strength = 3"


def test_a_method_whose_name_begins_with_anothers_is_set_by_itself(swept):
    methods = (si(1.0, damping=0.1), si(2.0, damping=0.1, name="si.x"))
    changed = change(replace(swept, methods=methods, paper={}), read_settings(["si.strength=0.3", "si.x.strength=5"]))
    assert [method.strategy.keywords["strength"] for method in changed.methods] == [0.3, 5]


def test_many_settings_have_a_short_name(swept, tmp_path):
    """Which is another for other values."""
    ranges = [
        "si.strength=0.125,0.0625",
        "si.damping=0.0009765625",
        "si.optimizer.lr=0.0009765625",
        "si.optimizer.betas=(0.875, 0.9375)",
        "si.optimizer.weight_decay=0.0009765625",
    ]
    chosen = run_sweep(swept, ranges, Invented(tmp_path, best_at(0)))
    first, second = (candidate.name for candidate in chosen.candidates)
    assert first.startswith("si,")
    assert first != second
    changed = change(swept, read_settings(chosen.text.splitlines()[1:]))  # as --set takes it
    assert changed.methods[1].name == first
    assert "optimizer.weight_decay = 0.0009" in changed.methods[1].label


def test_what_is_set_stays_in_a_sweep(swept, tmp_path):
    experiment = change(swept, read_settings(["si.damping=0.5"]))
    chosen = run_sweep(experiment, ["si.strength=1,10"], Invented(tmp_path, best_at(1)))
    (method,) = chosen.methods
    assert method.strategy.keywords == {"strength": 10, "damping": 0.5}
    assert method.name == "si,damping=0.5"


def test_methods_that_are_named_are_run_beside_what_is_chosen(swept, tmp_path):
    options = Options(methods=("finetune", "si"), sweep=("si.strength=1,2",), trials=1, epochs=1, out=tmp_path)
    run(swept, options)
    (study,), _ = read_studies(tmp_path / "tiny")
    assert list(study.compared.index) == ["finetune", "si"]
    assert [seed for _, seed in study.of("finetune", "si").index] == [1, 1]


def test_all_methods_are_run_beside_what_is_chosen(swept, tmp_path):
    arguments = ["--methods", "all", "--sweep", "si.strength=1,2", "--trials", "1", "--epochs", "1"]
    main(replace(swept, methods=swept.methods[:2]), args=[*arguments, "--out", str(tmp_path)])
    (study,), _ = read_studies(tmp_path / "tiny")
    assert list(study.compared.index) == ["finetune", "si"]


def test_fresh_seeds_follow_those_of_the_sweep(swept, tmp_path):
    options = Options(sweep=("si.strength=1.0,2.0",), seed=5, sweep_seeds=2, trials=1, epochs=1, out=tmp_path)
    run(swept, options)
    (file,) = (tmp_path / "tiny").glob("experiment*.json")
    methods = {m["name"]: m for m in json.loads(file.read_text())["methods"]}
    assert methods["si"]["seeds"] == [7]
    assert methods["si,strength=1.0"]["seeds"] == [5, 6]


def test_whole_numbers_are_the_same_trial(swept):
    """As written on the command line, 1 and 1.0."""
    method = swept.method("si")
    files = {Trial(swept, candidate(swept, method, {"si.strength": value}), 0).file for value in (1, 1.0)}
    assert files == {Trial(swept, method, 0).file}


def test_a_second_sweep_of_a_parameter_keeps_what_the_first_one_tried(swept, tmp_path):
    def sweep(values, experiment=swept):
        run(experiment, Options(sweep=(f"si.strength={values}",), trials=1, epochs=1, quiet=True, out=tmp_path))
        (study,), _ = read_studies(tmp_path / swept.name)
        return set(study.run.index[study.run.candidate_of == "si"])

    assert sweep("0.1,1.0") == {"si,strength=0.1", "si,strength=1.0"}
    assert sweep("1,10") == {"si,strength=0.1", "si,strength=1", "si,strength=10"}
    # Those of another protocol are not among them.
    assert sweep("1,10", replace(swept, batch_size=16)) == {"si,strength=1", "si,strength=10"}

"""Experiments of a user's own make: any benchmark, lambdas, schedules, criteria, loggers, odd names."""

import re
from dataclasses import replace
from functools import partial

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets, nc_benchmark, ni_benchmark
from avalanche.logging import BaseLogger
from avalanche.training import Naive
from avalanche.training.plugins import SupervisedPlugin
from sklearn.datasets import load_digits
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import Dataset
from torchvision.transforms import Compose, RandomHorizontalFlip, ToTensor
from torchvision.transforms.functional import to_pil_image

from avsi.experiment import (
    Experiment,
    ExperimentError,
    Method,
    Patience,
    Reported,
    Setting,
    Trial,
    lazy_imports,
    main,
    making,
)
from avsi.experiment.description import describe
from avsi.experiment.making import make_strategy
from avsi.experiment.methods import finetune, joint, scratch, si
from avsi.experiment.names import resolve
from avsi.models import MLP, GrowingHead, MultiHead
from avsi.plugins.evaluation import silent_evaluator
from avsi.plugins.schedule import Schedule
from avsi.results.study import read_studies
from avsi.scenarios import split_digits
from avsi.scenarios.build import with_task_label


class Rows(Dataset):
    """A data set as users write it."""

    def __init__(self, inputs, targets, transform=lambda x: x):
        self.inputs, self.targets, self.transform = inputs, [int(target) for target in targets], transform

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, row):
        return self.transform(self.inputs[row]), self.targets[row]


def pictures(seed):
    """Avalanche's own benchmark of images with augmentation, one output layer for all."""
    images, labels = load_digits(n_class=4, return_X_y=True)
    images = [to_pil_image(torch.tensor(image, dtype=torch.uint8).reshape(1, 8, 8)) for image in images]
    return nc_benchmark(
        Rows(images[:160], labels[:160]),
        Rows(images[160:200], labels[160:200]),
        2,
        task_labels=False,
        seed=seed,
        train_transform=Compose([RandomHorizontalFlip(), ToTensor()]),
        eval_transform=ToTensor(),
    )


def tabular(seed):
    """Numbers in columns, as a benchmark of Avalanche's with a head for each task."""
    data = Rows(torch.randn(120, 6, generator=torch.Generator().manual_seed(seed)), torch.arange(120) % 4)
    return nc_benchmark(data, data, 2, task_labels=True, seed=seed, class_ids_from_zero_in_each_exp=True)


def bare():
    """Experiences that say nothing of their classes, with a test set and a validation set for each task."""
    generator = torch.Generator().manual_seed(0)
    plain = [with_task_label(Rows(torch.randn(60, 6, generator=generator), torch.arange(60) % 4), 0) for _ in range(6)]
    return benchmark_from_datasets(train=plain[:2], test=plain[2:4], valid=plain[4:])


def instances(seed):
    """All classes in each of three experiences, and one test set."""
    images, labels = load_digits(n_class=4, return_X_y=True)
    images = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8)
    train, test = Rows(images[:160], labels[:160]), Rows(images[160:200], labels[160:200])
    return ni_benchmark(train, test, 3, seed=seed)


def perceptron():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


@pytest.mark.parametrize(
    ("scenario", "model"), [(tabular, partial(MLP, 6, (8,), MultiHead)), (bare, perceptron)], ids=["tabular", "bare"]
)
def test_numbers_in_columns_are_data_too(experiment, scenario, model):
    columns = replace(experiment, scenario=scenario, model=model, epochs=1)
    for method in (columns.method("si"), columns.method("joint")):
        result = Trial(columns, method, 0).run()
        assert len(result["task_accuracy"]) == 2
        assert (result["validation_accuracy"] is None) == (scenario is tabular)
    if scenario is tabular:
        assert result["class_images"] == [[30, 30], [30, 30]]
    Trial(columns.as_smoke_test(), method, 0).run()


@pytest.fixture
def own(experiment):
    return replace(
        experiment,
        scenario=pictures,
        model=lambda: MLP(64, (8,), GrowingHead),
        optimizer=lambda parameters: SGD(parameters, lr=0.01),
        methods=(finetune(), si(1.0, damping=1e-3), scratch(), joint()),
        epochs=1,
    )


@pytest.mark.parametrize("name", ["finetune", "si", "scratch", "joint"])
def test_a_benchmark_of_avalanches_runs(own, name):
    result = Trial(own, own.method(name), 0).run()
    assert len(result["task_accuracy"]) == 2
    assert result["data"] == []
    assert result["notes"] == []
    assert result["status"] == "finished"


def test_a_benchmark_with_one_test_set_for_all_experiences_has_tables(own, tmp_path, capsys):
    """As Avalanche's own of new instances have: there is no accuracy matrix then."""
    own = replace(own, scenario=instances, trials=1, methods=(finetune(), joint()), paper={})
    for _ in range(2):  # the second time from the files
        main(own, args=["--out", str(tmp_path)])
        output = capsys.readouterr()
        assert "left out" not in output.out + output.err
        assert re.search(r"fine-tuning +1 +\d\d\.\d\d +\d\d\.\d\d\n", output.out)
        assert "fine-tuning (training)" not in output.out  # there, no number is a test set's
    ((study,), _) = read_studies(tmp_path / "tiny")
    assert [len(accuracies) for accuracies in study.trials.train_accuracy] == [3, 3]
    assert (tmp_path / "tiny" / "tasks.png").exists()
    assert not (tmp_path / "tiny" / "matrix.png").exists()


def test_what_is_no_benchmark_is_named(own):
    with pytest.raises(ExperimentError, match="the scenario of tiny makes a str; it must make an Avalanche benchmark"):
        Trial(replace(own, scenario=lambda: "nothing"), own.methods[0], 0).run()


def columns_of(*sizes):
    """A stream of rows of numbers, so many in each experience."""
    generator = torch.Generator().manual_seed(0)
    return [with_task_label(Rows(torch.randn(n, 6, generator=generator), torch.arange(n) % 4), 0) for n in sizes]


@pytest.mark.parametrize("smoke", [False, True])
@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({"train": [9, 0], "test": [9, 9]}, "experience 1 of the train stream of .* has no samples"),
        ({"train": [9, 9], "test": [0, 9]}, "experience 0 of the test stream of .* has no samples"),
        ({"train": [9, 9], "test": [9, 9], "valid": [9, 0]}, "experience 1 of the valid stream of .* has no samples"),
        ({"train": [9], "test": []}, "has no experience in its test stream"),
    ],
)
def test_what_is_empty_is_refused_before_work_is_lost(experiment, sizes, named, smoke):
    def scenario():
        return benchmark_from_datasets(**{name: columns_of(*counts) for name, counts in sizes.items()})

    empty = replace(experiment, scenario=scenario, model=perceptron, epochs=1)
    empty = empty.as_smoke_test() if smoke else empty
    with pytest.raises(ExperimentError, match=named):
        Trial(empty, empty.method("si"), 0).run()


def test_early_stopping_needs_validation_data_of_each_task(experiment):
    def scenario():
        return benchmark_from_datasets(train=columns_of(9, 9), test=columns_of(9, 9), valid=columns_of(9))

    stopping = replace(experiment, scenario=scenario, model=perceptron, epochs=1, patience=Patience(1, 1))
    with pytest.raises(ExperimentError, match="stops early, and its valid stream has 1 experience for 2 to train on"):
        Trial(stopping, stopping.method("si"), 0).run()


def test_labels_that_the_loss_ignores_are_no_class_images(experiment):
    def scenario():
        targets = torch.tensor([0, 1, 2, 3, -100, -100, 0, 1])
        tasks = [with_task_label(Rows(torch.randn(8, 6), targets), 0) for _ in range(2)]
        return benchmark_from_datasets(train=tasks, test=columns_of(8, 8))

    ignoring = replace(experiment, scenario=scenario, model=perceptron, epochs=1)
    result = Trial(ignoring, ignoring.method("finetune"), 0).run()
    assert result["class_images"] == [[2, 2, 1, 1]] * 2


def test_a_validation_set_that_is_no_models_own_is_not_measured_from_scratch(experiment):
    def scenario():
        return benchmark_from_datasets(train=columns_of(9, 9), test=columns_of(9, 9), valid=columns_of(9))

    shared = replace(experiment, scenario=scenario, model=perceptron, epochs=1, methods=(finetune(), scratch()))
    found = [Trial(shared, method, 0).run()["validation_accuracy"] for method in shared.methods]
    assert found[0] is not None
    assert found[1] is None


class Kept:
    """Benchmarks and random numbers, kept where no description looks."""

    drawn, benchmark = [], None


def unseeded():
    Kept.drawn.append(torch.randn(3).tolist())
    return benchmark_from_datasets(train=columns_of(9), test=columns_of(9))


def test_a_benchmark_that_takes_no_seed_is_the_same_for_all_methods_of_a_seed(experiment):
    drawn = replace(experiment, scenario=unseeded, model=perceptron, epochs=1)
    for seed in (0, 1):
        for name in ("finetune", "si"):
            torch.rand(seed + len(name))  # whatever came before
            Trial(drawn, drawn.method(name), seed).run()
    assert Kept.drawn[0] == Kept.drawn[1] != Kept.drawn[2] == Kept.drawn[3]


def test_a_smoke_test_leaves_the_benchmark_as_it_is(experiment, monkeypatch):
    made = benchmark_from_datasets(train=columns_of(60, 60), test=columns_of(60, 60))
    monkeypatch.setattr(Kept, "benchmark", made)
    monkeypatch.setattr(making, "FEW", 8)
    kept = replace(experiment, scenario=lambda: Kept.benchmark, model=perceptron, epochs=1)
    Trial(kept.as_smoke_test(), kept.method("si"), 0).run()
    assert [len(task.dataset) for task in made.train_stream] == [60, 60]


def test_lambdas_are_told_apart_by_what_they_do():
    def enclosing(width):
        return lambda: MLP(64, (width,))

    assert describe(lambda: MLP(64, (8,))) == describe(lambda: MLP(64, (8,)))
    different = [describe(lambda: MLP(64, (8,))), describe(lambda: MLP(64, (9,))), describe(enclosing(9))]
    different += [describe(enclosing(10)), describe(lambda width=9: MLP(64, (width,))), describe(lambda: SGD)]
    assert len({str(description) for description in different}) == len(different)


@pytest.mark.parametrize(
    ("field", "value"),
    [("scenario", object()), ("model", MLP(64, (8,))), ("optimizer", partial(SGD, lr=torch.tensor(0.1)))],
)
def test_objects_are_refused_when_the_experiment_is_made(experiment, field, value):
    with pytest.raises(ExperimentError, match=r"cannot be described: .* give the function that makes an object"):
        replace(experiment, **{field: value})


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", "a b", "x" * 101, "a\n", ".hidden", "a\0"])
def test_names_stay_in_the_results_folder(experiment, name):
    with pytest.raises(ExperimentError, match="cannot name an experiment"):
        replace(experiment, name=name)
    with pytest.raises(ExperimentError, match="cannot name a method"):
        Method(name, Naive)


def test_a_comma_is_for_settings(experiment):
    with pytest.raises(ExperimentError, match="what stands after a comma are its settings"):
        Method("si,big", Naive)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": "abc"},
        {"epochs": 2.5},
        {"epochs": 0},
        {"at_least": True},
        {"at_least": 0},
        {"validation": 1},
        {"validation": 0.0},
        {"validation": "much"},
    ],
)
def test_patience_that_cannot_be(change):
    with pytest.raises(ExperimentError, match=rf"{next(iter(change))} must be .*, got {next(iter(change.values()))!r}"):
        Patience(**change)


@pytest.mark.parametrize("paper", [101.0, -1, (97.0, -4.0), Reported(tasks=(99.0, 990.0)), "97"])
def test_what_no_paper_can_report_is_refused_before_work_is_lost(experiment, paper):
    """A results folder's reader leaves such a method out."""
    with pytest.raises(ExperimentError, match=r"tiny, paper, si: .* in percent, .* a fraction"):
        replace(experiment, paper={"si": paper})


def test_loggers_that_are_no_sequence(experiment):
    with pytest.raises(TypeError, match="loggers must be a sequence of functions"):
        main(experiment, args=["--smoke"], loggers=lambda trial: None)


def test_lazy_imports_give_names_that_are_described_called_and_resolved():
    with lazy_imports():
        from torch.nn import Linear
        from torch.optim import SGD as Plain
    assert describe(partial(Plain, lr=0.1)) == describe(partial(SGD, lr=0.1))
    assert isinstance(Linear(2, 3), nn.Linear)
    resolved = resolve(partial(Linear, 2, [Plain], bias={"a": Linear}))
    assert (resolved.func, resolved.args[1], resolved.keywords["bias"]) == (nn.Linear, [SGD], {"a": nn.Linear})
    with pytest.raises(ImportError, match="lazy_imports"), lazy_imports():
        import json  # noqa: F401


def test_new_fields_are_described_only_when_set(experiment):
    method = experiment.method("si")
    plain = experiment.describe(method)
    fields = {"criterion": nn.CrossEntropyLoss, "scheduler": partial(StepLR, step_size=1), "autocast": "bfloat16"}
    for name, value in fields.items():
        changed = replace(experiment, **{name: value}).describe(method)
        assert changed.keys() - plain.keys() == {name}


RATES = []


class Rates(SupervisedPlugin):
    def before_training_epoch(self, strategy, **kwargs):
        RATES.append(strategy.optimizer.param_groups[0]["lr"])


def test_every_task_begins_with_a_fresh_schedule(experiment):
    RATES.clear()
    scheduled = replace(
        experiment,
        optimizer=partial(SGD, lr=0.1),
        scheduler=partial(StepLR, step_size=1, gamma=0.5),
        methods=(replace(finetune(), plugins=(Rates,)),),
    )
    Trial(scheduled, scheduled.methods[0], 0).run()
    assert RATES == [0.1, 0.05] * 5
    assert Schedule(StepLR).state_dict() == {}


DTYPES = set()


class Types(SupervisedPlugin):
    def before_backward(self, strategy, **kwargs):
        DTYPES.add((strategy.mb_output.dtype, strategy.loss.dtype, next(strategy.model.parameters()).dtype))


def test_autocast_is_for_the_forward_pass(experiment):
    DTYPES.clear()
    cast = replace(experiment, autocast="bfloat16", epochs=1, methods=(replace(si(1.0, 1e-3), plugins=(Types,)),))
    assert Trial(cast, cast.methods[0], 0).run()["accuracy"] > 0.5
    assert {(torch.bfloat16, torch.float32, torch.float32)} == DTYPES
    assert not torch.is_autocast_enabled("cpu")
    with pytest.raises(ExperimentError, match='autocast must be "bfloat16"'):
        replace(experiment, autocast="float16")


def test_another_criterion_is_used(experiment):
    smooth = replace(experiment, criterion=partial(nn.CrossEntropyLoss, label_smoothing=0.2), epochs=1)
    runs = [Trial(e, e.methods[0], 0).run()["weights"] for e in (smooth, replace(experiment, epochs=1))]
    assert runs[0] != runs[1]


class Weighted(nn.CrossEntropyLoss):
    def __init__(self):
        super().__init__(weight=torch.ones(2))


def test_a_criterion_with_tensors_is_where_the_model_is(experiment):
    weighted = replace(experiment, criterion=Weighted)
    strategy = make_strategy(weighted, weighted.methods[0], "meta", silent_evaluator(), [])
    assert {strategy._criterion.weight.device, next(strategy.model.parameters()).device} == {torch.device("meta")}


def test_validation_accuracy_comes_with_a_validation_stream(experiment):
    watched = replace(experiment, scenario=partial(split_digits, validation=0.2), epochs=1)
    for name in ("finetune", "scratch", "joint"):
        assert 0 < Trial(watched, watched.method(name), 0).run()["validation_accuracy"] <= 1
    assert Trial(experiment, experiment.methods[0], 0).run()["validation_accuracy"] is None


LOGGED = []


class Logger(BaseLogger):
    def __init__(self, trial):
        super().__init__()
        self.trial = trial

    def log_single_metric(self, name, value, x_plot):
        LOGGED.append((str(self.trial), name, value, x_plot))


def test_loggers_are_told_loss_penalty_and_accuracy(experiment):
    LOGGED.clear()
    trial = Trial(experiment, experiment.method("si"), 0)
    logged = trial.run(Setting(loggers=(Logger,)))
    told = {name: [] for _, name, _, _ in LOGGED}
    for who, name, value, x in LOGGED:
        assert who == "si, seed 0"
        told[name].append((x, value))
    assert len(told["Loss/train_epoch"]) == 10  # five tasks of two epochs
    assert [x for x, _ in told["Loss/train_epoch"]] == sorted({x for x, _ in told["Loss/train_epoch"]})
    assert told["Penalty/SIPlugin"][0][1] == 0
    assert told["Penalty/SIPlugin"][-1][1] > 0
    assert any(name.startswith("Top1_Acc_Exp") for name in told)
    assert logged["weights"] == trial.run()["weights"]


def test_an_experiment_is_shortened_for_a_smoke_test(own):
    smoke = own.as_smoke_test()
    images = Trial(smoke, smoke.methods[0], 0).run()["class_images"]
    assert 60 < sum(images[0]) < 100  # there are fewer than there may be
    assert Experiment.as_smoke_test(smoke) == smoke


class Refuse(SupervisedPlugin):
    """Ends the training of task 1 in the third step of its second epoch, or makes its loss NaN there."""

    def __init__(self, error=None):
        super().__init__()
        self.error = error

    def before_backward(self, strategy, **kwargs):
        clock = strategy.clock
        place = strategy.experience.current_experience, clock.train_exp_epochs, clock.train_epoch_iterations
        if place == (1, 1, 2):
            if self.error:
                raise FloatingPointError(self.error)
            strategy.loss = strategy.loss * float("nan")


@pytest.mark.parametrize("method", [finetune(), scratch()], ids=lambda method: method.name)
@pytest.mark.parametrize("error", [None, "the loss is out of bounds"])
def test_a_trial_that_diverged_says_in_which_task_epoch_and_step(experiment, method, error):
    method = replace(method, plugins=(partial(Refuse, error),))
    result = Trial(replace(experiment, methods=(method,)), method, 0).run()
    divergence = result["divergence"]
    assert result["status"] == "diverged"
    assert (divergence["task"], divergence["epoch"], divergence["step"]) == (1, 1, 2)
    assert divergence["cause"].startswith(error or "the loss is nan; the learning rate")
    assert divergence["stable_strength"] is None
    assert result["accuracy"] is None

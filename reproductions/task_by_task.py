"""Strengths chosen task by task, without the data of other tasks, against the best of a grid.

The continual hyper-parameter framework of De Lange et al. (2021), "A continual learning survey", as
`avsi.selection.choose_strength` does it: for each task the learning rate that learns it best without a penalty, then
the largest strength, halved as often as needed, that keeps its validation accuracy within a margin. The grid sees
validation data of all tasks, and gives one strength for all; it is a sweep of the same protocol, of learning rates too
if `--sweep si.optimizer.lr=1e-3,3e-3,9e-3` is added:

    python reproductions/split_digits.py --set scenario.validation=0.1 --sweep si.strength=log:1e-3:1e3:7 --trials 1
    python reproductions/task_by_task.py results --benchmark split_digits

Each method begins with a strength far above the script's own. Benchmarks are those of the DHP paper's Table 1
(protocols dhp of split_mnist.py, ten_epochs of permuted_mnist.py) and of split_digits.py. The table is made of all runs
with the same margin and protocol that lie in the results folder.
"""

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import permuted_mnist
import split_digits
import split_mnist
import tyro
from analysis import run_analysis
from avalanche.training.determinism.rng_manager import RNGManager

from avsi.experiment import Experiment, ExperimentError, Setting
from avsi.experiment.making import make_benchmark, make_strategy
from avsi.files import write_json, write_text
from avsi.launch.preparing import check_device
from avsi.launch.settings import value_of
from avsi.metrics import average_accuracy
from avsi.plugins.divergence import DivergencePlugin
from avsi.plugins.early_stopping import validation_error
from avsi.plugins.evaluation import silent_evaluator
from avsi.results import markdown_table, say, terminal_table, trials
from avsi.results.store import prepare
from avsi.selection import choose_strength

EXPERIMENTS = {
    "split_digits": split_digits.EXPERIMENT,
    "split_mnist": split_mnist.DHP,
    "permuted_mnist": permuted_mnist.TEN_EPOCHS,
}
LEARNING_RATES = (1 / 3, 1.0, 3.0)  # times the script's own
BEGIN = 256.0  # times the script's own strength
MARGIN = 0.2  # the survey's


@dataclass(frozen=True)
class Options:
    """What to run."""

    results: tyro.conf.Positional[Path]
    """A results folder, with a sweep of the same experiment for comparison; what is found is written there too."""
    benchmark: Literal["split_digits", "split_mnist", "permuted_mnist"] = "split_digits"
    """The benchmark."""
    methods: tuple[str, ...] = ("si", "online_ewc", "mas")
    """The methods."""
    seed: int = 0
    """Seed of the trials."""
    margin: float = MARGIN
    """By how much, as a share, a task's accuracy may fall."""
    epochs: int | None = None
    """Epochs per task; default: the protocol's."""
    device: str = "auto"
    """Torch device, such as cpu or cuda:0; auto: the first GPU where there is one, else the CPU."""
    data_root: Path | None = None
    """Folder of prepared data sets; default: $AVSI_DATA, else the user's cache folder."""
    download: bool = True
    """Obtain missing data sets from their publishers."""

    def check(self) -> None:
        """Refuse what cannot be run."""
        experiment = self.experiment
        known = [method.name for method in experiment.methods if value_of(experiment, method, "strength") is not None]
        lacking = [name for name in self.methods if experiment.method(name).name not in known]
        if lacking or not self.methods:
            lack = f"{', '.join(lacking)} has no strength to choose" if lacking else "there is no method"
            raise ExperimentError(f"{lack}; give --methods one or more of {', '.join(known)}")
        if not 0 <= self.margin < 1:
            raise ExperimentError(f"margin must be in [0, 1), got {self.margin}")
        if self.seed < 0:
            raise ExperimentError(f"seed must be at least 0, got {self.seed}")

    @property
    def experiment(self) -> Experiment:
        """The benchmark's experiment, with a tenth of the training images held out."""
        experiment = EXPERIMENTS[self.benchmark].with_epochs(self.epochs)
        return replace(experiment, scenario=partial(experiment.scenario, validation=0.1))

    @property
    def folder(self) -> Path:
        """Where the runs with this margin and protocol are."""
        margin = "" if self.margin == MARGIN else f"-margin-{self.margin:g}"
        return self.results / f"task_by_task_{self.benchmark}{self.experiment.suffix}{margin}"


def run(experiment: Experiment, name: str, options: Options) -> dict[str, Any]:
    """Train a method on one task after the other, choosing before each."""
    method = experiment.method(name)
    benchmark = make_benchmark(
        experiment, options.seed, Setting(data_root=options.data_root, download=options.download)
    )
    RNGManager.set_random_seeds(options.seed)
    strategy = make_strategy(experiment, method, options.device, silent_evaluator(), [DivergencePlugin()])
    rate = strategy.optimizer.param_groups[0]["lr"]
    strength = BEGIN * value_of(experiment, method, "strength")
    chosen = []
    for experience, valid in zip(benchmark.train_stream, benchmark.streams["valid"], strict=True):
        choice = choose_strength(
            strategy,
            experience,
            valid,
            learning_rates=[factor * rate for factor in LEARNING_RATES],
            strength=strength,
            margin=options.margin,
            reset_optimizer_state=experiment.reset_optimizer,
        )
        strategy.train(experience, eval_streams=[], reset_optimizer_state=experiment.reset_optimizer)
        chosen.append(asdict(choice))
        strength = choice.strength
    tests = [1 - validation_error(strategy, [test]) for test in benchmark.test_stream]
    return {"method": name, "accuracy": 100 * average_accuracy([tests]), "tasks": tests, "choices": chosen}


def protocol(description: dict[str, Any], *, any_rate: bool = False) -> dict[str, Any]:
    """Say how a trial is trained, whatever its method and the share of images held out, or its learning rate too."""
    optimizer = description["optimizer"]
    if any_rate:
        optimizer = optimizer | {"kwargs": optimizer["kwargs"] | {"lr": None}}
    scenario = description.get("scenario")
    if not isinstance(scenario, dict):
        scenario = {"call": scenario, "args": [], "kwargs": {}}
    arguments = {name: value for name, value in scenario.get("kwargs", {}).items() if name != "validation"}
    return description | {"scenario": scenario | {"kwargs": arguments}, "optimizer": optimizer, "method": None}


def best_of_grid(known: pd.DataFrame, experiment: Experiment, method: str, seed: int) -> float | None:
    """Look up the test accuracy in percent of the best candidate on validation data; None without such a sweep."""
    own = experiment.describe(experiment.method(method))
    tried = known[(known.experiment == experiment.name) & (known.candidate_of == method) & (known.seed == seed)]
    tried = tried[tried.validation_accuracy.notna() & tried.description.notna()]
    rates = ["optimizer.lr=" in name for name in tried.method]  # the grid may have several, as the framework has
    same = [
        protocol(description, any_rate=rate) == protocol(own, any_rate=rate)
        for description, rate in zip(tried.description, rates, strict=True)
    ]
    tried = tried[same]
    return None if tried.empty else 100 * float(tried.accuracy[tried.validation_accuracy.astype(float).idxmax()])


def read_runs(folder: Path, experiment: Experiment) -> list[dict[str, Any]]:
    """Read a folder's runs in the order of methods and seeds; a file that is none is left out, and that is said."""
    order, runs = [method.name for method in experiment.methods], []
    for file in sorted(folder.glob("*.json")):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            runs.append((order.index(found["method"]), found["seed"], found))
        except (OSError, ValueError, KeyError, TypeError) as error:
            say(f"{file} is left out ({error!r})")
    return [found for *_, found in sorted(runs, key=lambda run: run[:2])]


def tabulate(options: Options) -> pd.DataFrame:
    """Tabulate all runs with the same margin and protocol, beside the best of a grid."""
    experiment, known, rows = options.experiment, trials(options.results), []
    for found in read_runs(options.folder, experiment):
        grid = best_of_grid(known, experiment, found["method"], found["seed"])
        rows.append(
            {
                "method": experiment.method(found["method"]).label,
                "seed": str(found["seed"]),
                "task by task %": f"{found['accuracy']:.2f}",
                "best of the grid %": "" if grid is None else f"{grid:.2f}",
                "trainings": str(sum(len(choice["attempts"]) + 1 for choice in found["choices"])),
                "strengths": ", ".join(f"{choice['strength']:.3g}" for choice in found["choices"]),
            }
        )
    return pd.DataFrame(rows).set_index("method")


def write_summary(options: Options) -> pd.DataFrame:
    """Write the table of all runs with the same margin and protocol."""
    experiment, table = options.experiment, tabulate(options)
    changed = f" ({experiment.deviation})" if experiment.deviation else ""
    heading = f"# {experiment.title}{changed}: strengths chosen task by task, margin {options.margin:g}"
    write_text(options.folder / "summary.md", f"{heading}\n\n{markdown_table(table)}")
    return table


def analyse(options: Options) -> None:
    """Run all methods, and write and show what came of it."""
    options.check()
    options = replace(options, device=check_device(options.device))
    options = replace(options, results=prepare(options.results))
    for name in options.methods:
        found = run(options.experiment, name, options) | {"margin": options.margin, "seed": options.seed}
        write_json(options.folder / f"{name}-{options.seed}.json", found)
    say(terminal_table(write_summary(options)))


if __name__ == "__main__":
    run_analysis(analyse, Options, __doc__.split("\n\n")[0])

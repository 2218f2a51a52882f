"""Strengths chosen task by task, without the data of other tasks, against the best of a grid.

The continual hyper-parameter framework of De Lange et al. (2021), "A continual learning survey", as
`avsi.selection.choose_strength` does it: for each task the learning rate that learns it best without a penalty, then
the largest strength, halved as often as needed, that keeps its validation accuracy within a margin. The grid sees
validation data of all tasks, and gives one strength for all; it is a sweep of the same protocol:

    python reproductions/split_digits.py --set scenario.validation=0.1 --sweep si.strength=log:1e-3:1e3:7 --trials 1
    python reproductions/task_by_task.py results --benchmark split_digits

Each method begins with a strength far above the script's own. Benchmarks are those of the DHP paper's Table 1
(protocols dhp of split_mnist.py, ten_epochs of permuted_mnist.py) and of split_digits.py.
"""

import warnings
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import permuted_mnist
import split_digits
import split_mnist
import torch
import tyro
from analysis import run_analysis
from avalanche.training.determinism.rng_manager import RNGManager

from avsi.experiment import Experiment, Setting
from avsi.experiment.names import resolve
from avsi.experiment.running import make_benchmark
from avsi.files import write_json
from avsi.metrics import average_accuracy
from avsi.plugins import EvaluationPlugin
from avsi.plugins.batches import InMemoryBatches
from avsi.plugins.early_stopping import validation_error
from avsi.results import markdown_table, say, terminal_table, trials
from avsi.selection import choose_strength

EXPERIMENTS = {
    "split_digits": split_digits.EXPERIMENT,
    "split_mnist": split_mnist.DHP,
    "permuted_mnist": permuted_mnist.TEN_EPOCHS,
}
LEARNING_RATES = (1 / 3, 1.0, 3.0)  # times the script's own
BEGIN = 256.0  # times the script's own strength


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
    margin: float = 0.2
    """By how much, as a share, a task's accuracy may fall."""
    epochs: int | None = None
    """Epochs per task; default: the protocol's."""


def run(experiment: Experiment, name: str, options: Options) -> dict[str, Any]:
    """Train a method on one task after the other, choosing before each.

    Args:
        experiment: The experiment.
        name: The method.
        options: What to run.

    Returns:
        The method, its mean test accuracy in percent after the last task, and what was chosen for each.
    """
    method, benchmark = experiment.method(name), make_benchmark(experiment, options.seed, Setting())
    RNGManager.set_random_seeds(options.seed)
    model = resolve(method.model or experiment.model)()
    optimizer = resolve(method.optimizer or experiment.optimizer)(model.parameters())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No loggers specified")
        evaluator = EvaluationPlugin()
    strategy = resolve(method.strategy)(
        model=model,
        optimizer=optimizer,
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=experiment.batch_size,
        train_epochs=experiment.epochs,
        eval_mb_size=512,
        plugins=[build() for build in resolve(method.plugins)] + [InMemoryBatches()],
        evaluator=evaluator,
    )
    rate, strength = optimizer.param_groups[0]["lr"], BEGIN * method.strategy.keywords["strength"]
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


def best_of_grid(folder: Path, experiment: Experiment, method: str, seed: int) -> float | None:
    """Look up what the best of a grid reaches.

    Args:
        folder: The results folder.
        experiment: The experiment.
        method: The method.
        seed: The seed.

    Returns:
        Test accuracy, in percent, of the candidate with the highest validation accuracy; None if there is no sweep.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = trials(folder)
    tried = frame[(frame.experiment == experiment.name) & (frame.candidate_of == method) & (frame.seed == seed)]
    tried = tried[tried.validation_accuracy.notna()]
    return None if tried.empty else 100 * float(tried.accuracy[tried.validation_accuracy.astype(float).idxmax()])


def analyse(options: Options) -> None:
    """Run all methods, and write and show what came of it.

    Args:
        options: What to run.
    """
    options.results.mkdir(parents=True, exist_ok=True)
    experiment = EXPERIMENTS[options.benchmark].with_epochs(options.epochs)
    experiment = replace(experiment, scenario=partial(experiment.scenario, validation=0.1))
    rows = []
    for name in options.methods:
        found = run(experiment, name, options)
        path = options.results / f"task_by_task_{options.benchmark}{experiment.suffix}" / f"{name}-{options.seed}.json"
        write_json(path, found | {"margin": options.margin, "seed": options.seed})
        grid = best_of_grid(options.results, experiment, name, options.seed)
        strengths = ", ".join(f"{choice['strength']:.3g}" for choice in found["choices"])
        rows.append(
            {
                "method": experiment.method(name).label,
                "task by task %": f"{found['accuracy']:.2f}",
                "best of the grid %": "" if grid is None else f"{grid:.2f}",
                "trainings": str(sum(len(choice["attempts"]) + 1 for choice in found["choices"])),
                "strengths": strengths,
            }
        )
    table = pd.DataFrame(rows).set_index("method")
    heading = f"# {experiment.title}: strengths chosen task by task, margin {options.margin:g}, seed {options.seed}"
    (path.parent / "summary.md").write_text(f"{heading}\n\n{markdown_table(table)}", encoding="utf-8")
    say(terminal_table(table))


if __name__ == "__main__":
    run_analysis(analyse, Options, __doc__.split("\n\n")[0])

"""eta, Hebbian traces and plasticity coefficients through training: Figure 3 of the DHP paper.

"Differentiable Hebbian consolidation for continual learning" (Thangarasa, Miconi & Taylor; submission to ICLR 2020):
eta, ||Hebb||_F and ||alpha||_F of the DHP network while it learns permuted MNIST. The paper reports that eta rises
quickly from 0.001 to 0.024 in task 1, decays after task 3, and in tasks 4-10 first rises and then decays; that the
traces grow without runaway; and that the coefficients grow within each task.

Every trial with a DHP layer records the three; this draws them from the results of

    python reproductions/permuted_mnist.py --methods dhp --trials 1
    python reproductions/dhp_dynamics.py results/permuted_mnist_dhp

and likewise of any other experiment. Dotted lines are ends of tasks; they are there where all tasks have as many
training steps in an epoch, on permuted MNIST. With early stopping a task ends with the values of its best epoch.
"""

from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import tyro
from analysis import run_analysis
from matplotlib.figure import Figure

from avsi.experiment import ExperimentError
from avsi.results import save_figure, say, trials

QUANTITIES = {"eta": "η", "hebb": "||Hebb||$_F$", "alpha": r"||$\alpha$||$_F$"}
EQUAL_TASKS = ("avsi.scenarios.permuted_mnist", "avsi.scenarios.permuted_digits")
DASHES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Options:
    """What to draw."""

    results: tyro.conf.Positional[Path]
    """An experiment's folder of results, such as results/permuted_mnist_dhp."""
    method: str = "dhp"
    """The method, such as dhp or dhp+si."""
    seed: int = 0
    """The trial's seed."""
    out: Path | None = None
    """The figure without its ending; default: dynamics-<method>-<seed> in the folder of results."""


def find_trial(folder: Path, method: str, seed: int) -> dict:
    """Read the trial asked for; where several protocols are in the folder, the published one comes first."""
    if not folder.is_dir():
        raise ExperimentError(f"{folder} is not a folder; give an experiment's folder of results")
    known = trials(folder.resolve().parent)
    known = known[(known.experiment == folder.resolve().name) & (known.candidate_of == "")]
    known = known.sort_values("deviation", kind="stable")  # "" is the published protocol
    found = known[(known.method == method) & (known.seed == seed)].to_dict("records")
    if not found:
        names = ", ".join(known.method[known.hebbian_dynamics.astype(bool)].unique()) or "none"
        raise ExperimentError(f"{folder} has no trial of {method} with seed {seed}; methods with DHP there: {names}")
    trial = found[0]
    if not trial["hebbian_dynamics"]:
        raise ExperimentError(f"the trial of {method} recorded no dynamics: it has no DHP layer, or was too short")
    return trial


def ends_of_tasks(trial: dict, last_step: int) -> list[float]:
    """Find the steps at which all tasks but the last ended, about; none where tasks' epochs differ in steps."""
    scenario = trial["description"]["scenario"]
    if (scenario.get("call") if isinstance(scenario, dict) else scenario) not in EQUAL_TASKS:
        return []
    epochs = [len(errors) for errors in trial["validation_error"]] or [1] * len(trial["accuracy_matrix"] or ())
    return [last_step * done / sum(epochs) for done in accumulate(epochs)][:-1]


def draw(trial: dict) -> Figure:
    """Draw the three quantities side by side, a curve for each DHP layer."""
    layers = trial["hebbian_dynamics"]
    figure = Figure(figsize=(12.0, 3.8), layout="constrained")
    last_step = max(record["step"][-1] for record in layers.values())
    for axes, (quantity, symbol) in zip(figure.subplots(1, 3), QUANTITIES.items(), strict=True):
        for step in ends_of_tasks(trial, last_step):
            axes.axvline(step / 1000, color="0.6", linewidth=0.8, linestyle=":")
        for index, (name, record) in enumerate(layers.items()):
            values = [float("nan") if value is None else value for value in record[quantity]]
            task = name.rpartition(".heads.")[2]
            style = DASHES[index % len(DASHES)]
            label = f"head of task {int(task) + 1}" if task.isdecimal() else name
            axes.plot([step / 1000 for step in record["step"]], values, style, label=label)
        axes.set_xlabel("thousand training steps")
        axes.set_ylabel(symbol)
        axes.spines[["top", "right"]].set_visible(False)
    if len(layers) > 1:
        figure.axes[0].legend(frameon=False, fontsize=8)
    changed = f" ({trial['deviation']})" if trial["deviation"] else ""
    title = f"{trial['experiment']}: {trial['method']}, seed {trial['seed']}{changed}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def main(options: Options) -> None:
    """Draw a trial's dynamics."""
    trial = find_trial(options.results, options.method, options.seed)
    stem = options.out or options.results / f"dynamics-{options.method}-{options.seed:03d}"
    files = save_figure(draw(trial), stem)
    say(f"Figure: {files[0]}")


if __name__ == "__main__":
    run_analysis(main, Options, __doc__)

"""Makes the README's figure and the tables of README and guides of the committed results: python docs/front_page.py.

A table stands between two comments of its page, of which the first has its name; the figure is
docs/_static/split_mnist.png.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd

from avsi.metrics import accuracy_over_seen
from avsi.results import trials

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "reproductions" / "results"
FIGURE = ROOT / "docs" / "_static" / "split_mnist.png"

ROWS = (
    ("Split MNIST, as in the SI paper", "split_mnist_zenke", "si", "SI", "avalanche_si", ""),
    ("Split MNIST, Adam reset as by the SI authors", "split_mnist_zenke", "si_authors", "SI", "", ""),
    ("Split MNIST, as in the DHP paper", "split_mnist_dhp", "si", "SI", "avalanche_si", "si_matched"),
    ("", "split_mnist_dhp", "online_ewc", "Online EWC", "avalanche_ewc", "online_ewc_matched"),
    ("", "split_mnist_dhp", "mas", "MAS", "avalanche_mas", "mas_matched"),
    ("", "split_mnist_dhp", "finetune", "fine-tuning", "", "finetune_matched"),
    ("", "split_mnist_dhp", "", "DHP + SI", "", "dhp+si"),
    ("Permuted MNIST, as in the SI paper", "permuted_mnist_zenke", "si", "SI", "avalanche_si", ""),
    (
        "Permuted MNIST, the DHP paper's but for early stopping",
        "permuted_mnist_ten_epochs",
        "si",
        "SI",
        "avalanche_si",
        "si_matched",
    ),
    ("", "permuted_mnist_ten_epochs", "online_ewc", "Online EWC", "avalanche_ewc", "online_ewc_matched"),
    ("", "permuted_mnist_ten_epochs", "mas", "MAS", "avalanche_mas", "mas_matched"),
    ("", "permuted_mnist_ten_epochs", "finetune", "fine-tuning", "", "finetune_matched"),
    ("", "permuted_mnist_ten_epochs", "", "DHP + SI", "", "dhp+si"),
    ("Split CIFAR-10/100, as in the SI paper", "split_cifar", "si", "SI, c = 0.01", "avalanche_si", ""),
    ("", "split_cifar", "si_0.1", "SI, c = 0.1", "", ""),
)
"""Benchmark, experiment, method, how the table calls it, Avalanche's counterpart, the method in the paper's network."""

CURVES = (
    ("joint", "all tasks at once", "0.45", "--"),
    ("si", "Synaptic Intelligence, avsi", "tab:blue", "-"),
    ("avalanche_si", "Synaptic Intelligence, Avalanche 0.6 on a CPU", "tab:red", "-"),
    ("finetune", "fine-tuning", "tab:orange", ":"),
)
"""Method, label, colour and line of the figure's curves."""


def read() -> pd.DataFrame:
    """Read the committed trials but for those that diverged."""
    frame = trials(RESULTS)
    return frame[frame.accuracy.notna()]


def values(frame: pd.DataFrame, experiment: str, method: str, column: str = "accuracy") -> pd.Series:
    """Look up a column of a method's trials, by seed."""
    rows = frame[(frame.experiment == experiment) & (frame.method == method) & (frame.candidate_of == "")]
    rows = rows[rows.deviation == rows.deviation.min()]  # the published protocol, "", where it was run
    return rows.set_index("seed")[column].sort_index()


def percent(accuracies: pd.Series) -> str:
    """Write the mean of fractions in percent and its standard error, such as 98.12 ± 0.11."""
    if accuracies.empty:
        return ""
    error = f"\u00a0±\u00a0{100 * accuracies.sem():.2f}" if len(accuracies) > 1 else ""
    return f"{100 * accuracies.mean():.2f}{error}"


def reported(experiment: str, method: str) -> str:
    """Look up what the paper reports."""
    methods = json.loads((RESULTS / experiment / "experiment.json").read_text())["methods"]
    paper = next(entry["reported"]["accuracy"] for entry in methods if entry["name"] == method)
    return "" if paper is None else f"{paper:.2f}"


def table(frame: pd.DataFrame) -> str:
    """Make the table."""
    lines = [
        "| accuracy %, mean over tasks | method | avsi | Avalanche's own | fine-tuning | avsi, paper's network | paper "
        "| seeds |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for benchmark, experiment, method, name, own, papers in ROWS:
        plain = (
            "finetune_authors" if method.endswith("_authors") else "finetune" if method not in {"", "finetune"} else ""
        )
        in_turn = (method, own, plain, papers)
        ours, theirs, control, like_paper = (values(frame, experiment, which) for which in in_turn)
        cells = [
            benchmark,
            name,
            "" if not method else percent(ours) if papers else f"**{percent(ours)}**",
            percent(theirs) + fewer(theirs, ours) + by_sweep(frame, experiment, own),
            percent(control),
            f"**{percent(like_paper)}**" if papers else "",
            reported(experiment, papers or method),
            str(len(ours if method else like_paper)),
        ]
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |"))
    return "\n".join([*lines, "", *networks(frame), *controls(frame), *gap(frame)])


def fewer(theirs: pd.Series, ours: pd.Series) -> str:
    """Say of how many seeds a number is, where the row has more."""
    return f" ({len(theirs)} of the seeds)" if 0 < len(theirs) < len(ours) else ""


def by_sweep(frame: pd.DataFrame, experiment: str, own: str) -> str:
    """Say what Avalanche's method reaches where its strength was chosen by a sweep."""
    swept = frame.deviation.str.fullmatch(rf"scenario\.validation = 0\.1, {own}\.\w+ = swept")
    rows = frame[(frame.experiment == experiment) & (frame.method == own) & swept]
    return f" (λ by sweep: {percent(rows.accuracy)}, {len(rows)} seeds)" if len(rows) else ""


def difference(frame: pd.DataFrame, experiment: str, method: str, control: str) -> str:
    """Write a method's accuracy minus another's, in points, on the seeds that both have."""
    points = 100 * (values(frame, experiment, method) - values(frame, experiment, control)).dropna()
    return f"{points.mean():+.2f}\u00a0±\u00a0{points.sem():.2f}"


def networks(frame: pd.DataFrame) -> list[str]:
    """Say what the table compares, and what DHP and its initialisation contribute."""
    one_set = (
        percent(values(frame, "output_layer", f"{method}_{sets}"))
        for sets in ("one_set", "plain_sets")
        for method in ("finetune", "si")
    )
    seeds = len(values(frame, "output_layer", "si_one_set"))
    gains = [
        f"{name} {difference(frame, experiment, 'dhp', 'finetune_matched')} alone and "
        f"{difference(frame, experiment, 'dhp+si', 'si_matched')} with SI "
        f"(seeds: {len(values(frame, experiment, 'dhp'))})"
        for name, experiment in (
            ("split MNIST", "split_mnist_dhp"),
            ("permuted MNIST", "permuted_mnist_ten_epochs"),
            ("imbalanced", "imbalanced_permuted_mnist_ten_epochs"),
        )
    ]
    without = difference(frame, "plasticity", "dhp", "dhp_no_alpha")
    initialised = "{} and {}, two that start as PyTorch has it {} and {}".format(*one_set)
    return [
        "- **Paper's network**: the DHP paper's numbers are of networks with DHP or, without it, with a second set of "
        "slow weights in place of the traces. The paper does not say how those start; here they start as DHP's do.",
        f"- **DHP's gain over that control is not reproduced**: DHP minus the control, paired, {'; '.join(gains)}. "
        f"Without plasticity at all (alpha = 0, five tasks of permuted MNIST) accuracy is the same: DHP adds {without} "
        f"(seeds: {len(values(frame, 'plasticity', 'dhp'))}).",
        f"- **What it gains over plain networks comes with its initialisation**: on split MNIST one set of slow "
        f"weights that starts as DHP's reaches {initialised} (fine-tuning and SI; seeds: {seeds}).",
    ]


def controls(frame: pd.DataFrame) -> list[str]:
    """Say what the table's numbers depend on besides the method."""

    def first(method: str, deviation: str = "") -> str:
        rows = frame[(frame.experiment == "permuted_mnist_ten_epochs") & (frame.seed == 0) & (frame.method == method)]
        (accuracy,) = rows.accuracy[rows.deviation == deviation]
        return f"{100 * accuracy:.2f}"

    swept = "online_ewc.strength = swept, mas.strength = swept, si.strength = swept"
    own = first("online_ewc,strength=100", swept), first("mas,strength=0.1", swept)
    split = [percent(values(frame, "split_mnist_dhp", method)) for method in ("finetune", "dropout")]
    cifar = [percent(values(frame, "split_cifar", method)) for method in ("finetune", "finetune_authors")]
    return [
        f"- **Strengths** on permuted MNIST: λ = 50 for Online EWC and 0.01 for MAS, chosen on validation data. The "
        f"paper's are 100 and 0.1, with which plain networks reach {own[0]} and {own[1]} (seed 0).",
        "- **Avalanche's own** EWC and MAS have avsi's λ here. Mini-batches of 64 make its EWC importances about 64 "
        "times smaller; with 100 times the λ it reaches what avsi's does.",
        f"- **Dropout** of 0.5 alone takes fine-tuning on permuted MNIST from {first('finetune')} to "
        f"{first('dropout')}, above plain SI's {first('si')} and Online EWC's {first('online_ewc')} (seed 0); on split "
        f"MNIST from {split[0]} to {split[1]}.",
        f"- **Split CIFAR-10/100**: Adam is wholly reset after a task, and fine-tuning is at {cifar[0]}; with the "
        f"reset of the authors' code, which goes on counting steps, at {cifar[1]} (theirs: "
        f"{reported('split_cifar', 'finetune')}). SI with that reset was not run. Figure 6's caption says c = 0.1; its "
        "text fits the data that the authors published for 0.01.",
    ]


def gap(frame: pd.DataFrame) -> list[str]:
    """Say what methods reach on permuted MNIST as the baselines train it."""
    found = {}
    for name, experiment, method, deviation in (
        ("SI", "close_the_gap_si", "si", "si.strength = swept"),
        ("own SI", "close_the_gap_si", "avalanche_si", ""),
        ("EWC, Adam", "close_the_gap_ewc_adam", "exact", "exact.strength = swept"),
        ("own EWC, Adam", "close_the_gap_ewc_adam", "avalanche_ewc", "avalanche_ewc.ewc_lambda = swept"),
        ("EWC, SGD", "close_the_gap_ewc", "online_ewc", "online_ewc.strength = swept"),
        ("own EWC, SGD", "close_the_gap_ewc", "avalanche_ewc", "avalanche_ewc.ewc_lambda = swept"),
        ("alone", "close_the_gap_ewc", "scratch", ""),
    ):
        rows = frame[(frame.experiment == experiment) & (frame.method == method) & (frame.deviation == deviation)]
        found[name] = f"{percent(rows.accuracy)} (seeds: {len(rows)})"
    return [
        "- **Permuted MNIST as [continual-learning-baselines](https://github.com/ContinualAI/continual-learning-baselines/"
        "issues/33) trains it**, strengths by sweep. Reported there: 83 % with Avalanche's SI and EWC; "
        "expected: 95 and 94 %.",
        f"  - SI: {found['SI']}; Avalanche's, whose strength does not matter on a CPU, {found['own SI']}.",
        f"  - Online EWC (`exact`) with Adam: {found['EWC, Adam']}; Avalanche's {found['own EWC, Adam']}.",
        f"  - Online EWC with the SGD used there: {found['EWC, SGD']}; Avalanche's {found['own EWC, SGD']}; a task by "
        f"itself {found['alone']}.",
    ]


def scenarios(frame: pd.DataFrame) -> str:
    """Make the table of the three scenarios."""
    names = {
        "finetune": "fine-tuning",
        "si": "SI",
        "online_ewc": "Online EWC",
        "mas": "MAS",
        "joint": "all tasks at once",
    }
    columns = ("three_scenarios_task", "three_scenarios_domain", "three_scenarios_class")
    lines = ["| split MNIST, accuracy % | task | domain | class |", "| --- | ---: | ---: | ---: |"]
    for method, name in names.items():
        lines.append(f"| {name} | {' | '.join(percent(values(frame, column, method)) for column in columns)} |")
    return "\n".join(lines)


def fisher(frame: pd.DataFrame) -> str:
    """Make the table of the ways to compute the Fisher information."""
    names = {
        "exact": "`exact`",
        "exact_500": "`exact`, 500 samples",
        "sampled": "`sampled`",
        "empirical": "`empirical`",
        "batched": "gradients of batches",
        "reversed": "`reversed`",
        "predicted": "`predicted`",
    }
    table = "fisher_table_split_mnist"
    none = values(frame, table, "finetune")
    lines = [
        "| | λ | accuracy % | (paper) | seeds | λ with 99 % (tried) |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
        f"| no penalty | | {percent(none)} | ({reported(table, 'finetune')}) | {len(none)} | |",
    ]
    for method, name in names.items():
        rows = frame[(frame.experiment == table) & (frame.deviation == f"{method}.strength = swept")]
        chosen, tried = rows[rows.method == method], rows[rows.candidate_of == method]
        curve = tried.set_index(tried.description.map(strength_of)).accuracy.sort_index()
        good = [group.index for _, group in curve.groupby((curve < 0.99).cumsum()[curve >= 0.99])]
        cells = [
            name,
            power(chosen.description.map(strength_of).iloc[0]),
            percent(chosen.accuracy),
            f"({paper})" if (paper := reported(table, method)) else "",
            str(len(chosen)),
            f"{', '.join(map(span, good))} ({span(curve.index)})",
        ]
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(lines)


def task_by_task(_: pd.DataFrame) -> str:
    """Make the table of strengths chosen task by task."""
    lines = [
        "| | margin | | task by task, accuracy % | best of the grid, accuracy % |",
        "| --- | ---: | --- | ---: | ---: |",
    ]
    for benchmark, folder in (("split MNIST", "split_mnist"), ("permuted MNIST", "permuted_mnist-1-epochs")):
        for path in sorted(RESULTS.glob(f"task_by_task_{folder}*/summary.md")):
            heading, *rest = path.read_text(encoding="utf-8").splitlines()
            margin = heading.rpartition("margin ")[2]
            for row in [line.strip("| ").split(" | ") for line in rest if line.startswith("|")][2:]:
                method, _, accuracy, grid = row[:4]
                lines.append(f"| {benchmark} | {margin} | {method.partition(',')[0]} | {accuracy} | {grid} |")
                benchmark = margin = ""
    return "\n".join(lines).replace("|  |", "| |").replace("|  |", "| |")


def power(number: float) -> str:
    """Write a power of ten."""
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return f"10{str(round(math.log10(number))).translate(raised)}"


def span(numbers: pd.Index) -> str:
    """Write from where to where some powers of ten go."""
    ends = dict.fromkeys((power(numbers[0]), power(numbers[-1])))
    return " to ".join(ends)


def strength_of(description: dict[str, Any]) -> float:
    """Look up a trial's strength."""
    return float(description["method"]["strategy"]["kwargs"]["strength"])


def curves(frame: pd.DataFrame) -> dict[str, Any]:
    """Compute what the figure shows: mean test accuracy in percent over the tasks seen so far, after each of them."""
    found: dict[str, Any] = {}
    for method, *_ in CURVES:
        if method == "joint":
            accuracies = values(frame, "split_mnist_zenke", method)
            found[method] = {"mean": round(100 * float(accuracies.mean()), 6), "n": len(accuracies)}
            continue
        matrices = values(frame, "split_mnist_zenke", method, "accuracy_matrix")
        seen = 100 * pd.DataFrame([accuracy_over_seen(matrix) for matrix in matrices])
        found[method] = {"mean": seen.mean().round(6).tolist(), "error": seen.sem().round(6).tolist(), "n": len(seen)}
    return found


def fingerprint(shown: dict[str, Any]) -> str:
    """Name what a figure shows, in the figure's own file."""
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:16]


def draw(shown: dict[str, Any]) -> None:
    """Draw the figure."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 3.3), layout="constrained")
    tasks = range(1, len(shown["si"]["mean"]) + 1)
    for method, label, colour, line in CURVES:
        n = shown[method]["n"]
        if n != shown["si"]["n"]:
            label += ", one seed" if n == 1 else f", {n} seeds"
        if method == "joint":
            axes.axhline(shown[method]["mean"], color=colour, linestyle=line, linewidth=1.2, label=label)
            continue
        mean, error = (pd.Series(shown[method][key]) for key in ("mean", "error"))
        wide = 5.0 if method == "avalanche_si" else 2.2  # lies under fine-tuning's curve, point by point
        axes.plot(tasks, mean, color=colour, linestyle=line, linewidth=wide, marker="o", markersize=4, label=label,
                  alpha=0.45 if method == "avalanche_si" else 1.0, zorder=3 if method == "si" else 2)  # fmt: skip
        axes.fill_between(tasks, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
    axes.set_xticks(list(tasks))
    axes.set_xlabel("tasks learned")
    axes.set_ylabel("accuracy on them, %")
    axes.set_title(f"Split MNIST, mean of {shown['si']['n']} seeds; band = standard error", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=200, metadata={"Description": fingerprint(shown), "Software": ""})
    plt.close(figure)


def put(text: str, name: str, content: str) -> str:
    """Put a table into a page."""
    return re.sub(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", rf"\g<1>{content}\g<2>", text, flags=re.DOTALL)


TABLES = {
    ("README.md", "results"): table,
    ("docs/guides/class_incremental.md", "results"): scenarios,
    ("docs/guides/choosing_the_strength.md", "task by task"): task_by_task,
    ("docs/guides/choosing_the_strength.md", "results"): fisher,
}
"""Page and name -> what makes the table."""

if __name__ == "__main__":
    everything = read()
    draw(curves(everything))
    for (page, name), make in TABLES.items():
        (ROOT / page).write_text(put((ROOT / page).read_text(), name, make(everything)))

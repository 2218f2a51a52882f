"""The figure of accuracy against tasks learned."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from avsi.experiment.results import write_bytes
from avsi.experiment.spec import Experiment
from avsi.experiment.summary import Estimate, Trials
from avsi.metrics import accuracy_over_seen

# Telling methods apart without colour: every curve has its own marker and every bound its own dashes.
MARKERS = "osD^vPX*<>"
DASHES = ("--", ":", "-.")
COLOURS = 10  # matplotlib's cycle; after it curves are dashed


def accuracy_figure(experiment: Experiment, trials: Trials) -> Figure:
    """Plot mean test accuracy over the tasks seen so far, after each task; bands are one standard error.

    Bounds (from scratch, joint training) are horizontal lines at their mean over all tasks.

    Args:
        experiment: The experiment.
        trials: Finished trials by method.

    Returns:
        The figure.
    """
    crowded = len(trials) > 6
    figure = Figure(figsize=(8.6 if crowded else 6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    curves = bounds = 0
    for method, results in trials:
        label = method.label or method.name
        if method.regime == "sequential":
            seen = [accuracy_over_seen(result["accuracy_matrix"]) for result in results]
            points = [Estimate.of(values) for values in zip(*seen, strict=True)]
            tasks = range(1, len(points) + 1)
            mean = [100 * point.mean for point in points]
            # Later curves are thinner, so that curves that coincide can all be seen.
            marker, size, width = MARKERS[curves % len(MARKERS)], max(10 - 2 * curves, 4), max(3.5 - curves, 1.2)
            style = "-" if curves < COLOURS else (0, (6, 2))
            (line,) = axes.plot(
                tasks, mean, marker=marker, markersize=size, linewidth=width, linestyle=style, label=label
            )
            if points[0].error is not None:
                low = [100 * (point.mean - (point.error or 0)) for point in points]
                high = [100 * (point.mean + (point.error or 0)) for point in points]
                axes.fill_between(tasks, low, high, alpha=0.2, color=line.get_color(), linewidth=0)
            curves += 1
        else:
            level = 100 * Estimate.of([result["accuracy"] for result in results]).mean
            axes.axhline(level, linestyle=DASHES[bounds % len(DASHES)], color="0.35", linewidth=1.2, label=label)
            bounds += 1
    axes.set_title(experiment.title, loc="left", fontsize=11)
    axes.set_xlabel("tasks learned")
    axes.set_ylabel("mean test accuracy on them (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if crowded:
        figure.legend(frameon=False, fontsize=9, loc="outside right upper")
    else:
        axes.legend(frameon=False, fontsize=9)
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Args:
        figure: The figure.
        path: The file.
    """
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    write_bytes(path, buffer.getvalue())

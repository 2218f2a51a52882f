"""Figures in the papers' forms, readable without colour: curves over tasks, bars by task and heat maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from avsi.experiment.results import write_bytes
from avsi.experiment.study import Outcome, Study
from avsi.experiment.summary import Estimate
from avsi.metrics import accuracy_over_seen

# Methods are told apart without colour: curves by marker, filling and dashes, bars by hatching and shade.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa3377", "#e69f00", "#56b4e9", "#5b3a8e", "#7a5230", "#cc79a7", "#333333")
MARKERS = "osD^vPX*<>"
DASHES = ("-", (0, (6, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2, 2, 2)), (0, (4, 4)))
BOUND_DASHES = ("--", ":", "-.")
# Few dots and rings: each is a path of its own in an SVG file.
HATCHES = (
    "",
    "////",
    "\\\\\\\\",
    "xxxx",
    "----",
    "||||",
    "++++",
    "..",
    "//",
    "\\\\",
    "xx",
    "--//",
    "||\\\\",
    "o",
    "/.",
)
BARS_IN_A_ROW = 84
HEAT = "Blues"  # its lightness falls steadily, so that a grey copy reads the same


def heat_map(
    axes: Axes,
    values: Sequence[Sequence[float]] | np.ndarray,
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    low: float | None = None,
    high: float | None = None,
    form: str = "{:.2f}",
) -> QuadMesh:
    """Draw a matrix as a heat map, the first row on top, darker for more, with its values written into the cells.

    Args:
        axes: Where to draw.
        values: The matrix; NaN leaves a cell empty.
        rows: A label for each row, from the top; default: counted from 1.
        columns: A label for each column; default: counted from 1.
        low: Value of the lightest shade; default: the least value.
        high: Value of the darkest shade; default: the greatest value.
        form: Format of the values in the cells; "" leaves them out.

    Returns:
        The coloured cells, for a colour bar.

    Raises:
        ValueError: If the values are not a matrix, or the labels not as many as rows and columns.
    """
    matrix = np.ma.masked_invalid(np.asarray(values, dtype=float))
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"a heat map shows a matrix, got values of shape {matrix.shape}")
    for name, labels, size in (("row", rows, matrix.shape[0]), ("column", columns, matrix.shape[1])):
        if len(labels) not in {0, size}:
            raise ValueError(f"a heat map of {size} {name}s needs as many {name} labels, got {len(labels)}")
    mesh = axes.pcolormesh(matrix, cmap=HEAT, vmin=low, vmax=high, edgecolors="white", linewidth=0.5)
    axes.set_xlim(0, matrix.shape[1])
    axes.set_ylim(matrix.shape[0], 0)
    axes.set_aspect("equal")
    for axis, labels, size in ((axes.xaxis, columns, matrix.shape[1]), (axes.yaxis, rows, matrix.shape[0])):
        axis.set_ticks(np.arange(size) + 0.5, labels or [str(index + 1) for index in range(size)])
        axis.set_tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    if form:
        lightness = mesh.to_rgba(matrix)[..., :3] @ (0.299, 0.587, 0.114)
        # Small enough for "0.00" in a cell of any size; cells are about as wide as the axes divided by their number.
        size = min(9.0, 0.33 * 72 * _inches_per_cell(axes, max(matrix.shape)))
        for (row, column), value in np.ndenumerate(matrix.filled(np.nan)):
            if np.isfinite(value):
                colour = "black" if lightness[row, column] > 0.5 else "white"
                text = form.format(value)
                axes.text(
                    column + 0.5,
                    row + 0.5,
                    text,
                    ha="center",
                    va="center",
                    color=colour,
                    fontsize=size,
                    in_layout=False,
                )
    return mesh


def _inches_per_cell(axes: Axes, cells: int) -> float:
    return min(axes.bbox.width, axes.bbox.height) / axes.figure.dpi / cells


def svg(figure: Figure, name: str) -> bytes:
    """Draw a figure as SVG, the same bytes for the same figure.

    Args:
        figure: The figure.
        name: Keeps the identifiers in it apart from those of figures of other names.

    Returns:
        The file's content; text stays text.
    """
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        return _draw(figure, "svg", metadata={"Date": None})


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG and SVG, each whole or not at all; the same figure gives the same bytes.

    Args:
        figure: The figure.
        stem: The files without their endings; the folder is made if missing.

    Returns:
        The PNG and the SVG file.
    """
    # Not with_suffix, which would cut a stem such as "eta-0.1".
    png_file, svg_file = (stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "svg"))
    write_bytes(png_file, _draw(figure, "png", dpi=160))
    write_bytes(svg_file, svg(figure, stem.name))
    return [png_file, svg_file]


def _draw(figure: Figure, form: str, **options: Any) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format=form, **options)
    return buffer.getvalue()


@dataclass(frozen=True)
class Kind:
    """A kind of figure.

    Attributes:
        name: The stem of its files.
        caption: What it shows.
        draw: Draws it from a study; returns None where there is nothing to show.
    """

    name: str
    caption: str
    draw: Callable[[Study], Figure | None]


def accuracy_figure(study: Study) -> Figure | None:
    """Plot mean test accuracy over the tasks seen so far, after each task; bands are one standard error.

    Bounds (from scratch, joint training) are horizontal lines at their mean over all tasks.

    Args:
        study: The study; candidates are left out.

    Returns:
        The figure, or None without trials.
    """
    methods = study.compared
    if not methods:
        return None
    crowded = len(methods) > 6
    figure = Figure(figsize=(9.2 if crowded else 6.4, 5.0 if crowded else 4.2), layout="constrained")
    axes = figure.subplots()
    curves = bounds = 0
    for index, method in enumerate(methods):
        if method.regime == "sequential":
            seen = [accuracy_over_seen(trial["accuracy_matrix"]) for trial in method.trials]
            points = [Estimate.of(values) for values in zip(*seen, strict=True)]
            tasks = range(1, len(points) + 1)
            colour = COLOURS[index % len(COLOURS)]
            axes.plot(
                tasks,
                [100 * point.mean for point in points],
                color=colour,
                marker=MARKERS[curves % len(MARKERS)],
                markerfacecolor=colour if curves < len(MARKERS) else "white",
                # Later curves are thinner, so that curves that coincide can all be seen.
                markersize=max(9 - curves, 5),
                linewidth=max(3 - 0.5 * curves, 1.3),
                linestyle=DASHES[curves % len(DASHES)],
                label=method.label,
            )
            _band(axes, list(tasks), points, colour)
            curves += 1
        else:
            level = Estimate.of(method.values("accuracy"))
            dashes = BOUND_DASHES[bounds % len(BOUND_DASHES)]
            axes.axhline(100 * level.mean, linestyle=dashes, color="0.35", linewidth=1.2, label=method.label)
            if level.error is not None:
                axes.axhspan(
                    100 * (level.mean - level.error), 100 * (level.mean + level.error), color="0.35", alpha=0.12, lw=0
                )
            bounds += 1
    axes.set_title(study.heading, loc="left", fontsize=11)
    axes.set_xlabel("tasks learned")
    axes.set_ylabel("mean test accuracy on them (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    _open_frame(axes)
    if crowded:
        figure.legend(frameon=False, fontsize=9, loc="outside right upper", handlelength=4)
    else:
        axes.legend(frameon=False, fontsize=9, handlelength=4)
    return figure


def _band(axes: Axes, tasks: list[int], points: list[Estimate], colour: str) -> None:
    if points[0].error is not None:
        low = [100 * (point.mean - (point.error or 0)) for point in points]
        high = [100 * (point.mean + (point.error or 0)) for point in points]
        axes.fill_between(tasks, low, high, alpha=0.18, color=colour, linewidth=0)


def tasks_figure(study: Study) -> Figure | None:
    """Plot the final test accuracy on each task as bars, a group for each task and one for their mean.

    The form is that of Figure 6 of Zenke et al. (2017), with standard errors as whiskers where theirs are standard
    deviations. Diamonds are the paper's values.

    Args:
        study: The study; candidates are left out.

    Returns:
        The figure, or None without trials.
    """
    methods = study.compared
    if not methods:
        return None
    tasks = len(methods[0].trials[0]["task_accuracy"])
    groups = [*(f"task {task + 1}" for task in range(tasks)), "mean"]
    lines = ceil(len(groups) * len(methods) / BARS_IN_A_ROW)
    in_a_line = ceil(len(groups) / lines)
    width = min(max(5.0, 1.5 + 0.16 * in_a_line * (len(methods) + 1)), 11.0)
    legend_columns = max(1, min(len(methods), int(width / 2.4)))
    legend = 0.24 * (ceil((len(methods) + 1) / legend_columns) + 1)
    figure = Figure(figsize=(width, 2.6 * lines + 0.5 + legend), layout="constrained")
    rows = figure.subplots(lines, 1, squeeze=False)[:, 0]
    for line, axes in enumerate(rows):
        shown = range(line * in_a_line, min((line + 1) * in_a_line, len(groups)))
        for index, method in enumerate(methods):
            _bars(axes, method, index, len(methods), shown, tasks)
        axes.set_xlim(shown[0] - 0.55, shown[0] + in_a_line - 0.45)
        axes.set_xticks(list(shown), [groups[group] for group in shown])
        axes.tick_params(axis="x", length=0)
        axes.set_ylim(0, 104)
        axes.set_ylabel("test accuracy (%)")
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        _open_frame(axes)
    rows[0].set_title(study.heading, loc="left", fontsize=11)
    entries = {label: handle for axes in rows for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if "paper" in entries:
        entries["paper"] = entries.pop("paper")  # last
    figure.legend(
        list(entries.values()), list(entries), frameon=False, fontsize=9, loc="outside lower center",
        ncols=legend_columns, handlelength=2.6, handleheight=1.1,
    )  # fmt: skip
    return figure


def _bars(axes: Axes, method: Outcome, index: int, count: int, groups: range, tasks: int) -> None:
    by_task = [Estimate.of(values) for values in zip(*(trial["task_accuracy"] for trial in method.trials), strict=True)]
    estimates = [*by_task, Estimate.of(method.values("accuracy"))]
    width = 0.86 / count
    places = [group + (index - (count - 1) / 2) * width for group in groups]
    base = np.array(to_rgb(COLOURS[index % len(COLOURS)] if method.regime == "sequential" else "0.55"))
    axes.bar(
        places,
        [100 * estimates[group].mean for group in groups],
        width,
        yerr=[100 * (estimates[group].error or 0) for group in groups] if len(method.trials) > 1 else None,
        error_kw={"elinewidth": 1.0, "capsize": min(3.0, 14 * width), "capthick": 1.0},
        color=tuple(1 - (0.7, 0.3)[index % 2] * (1 - base)),  # neighbours differ in lightness
        edgecolor="black",
        linewidth=0.6,
        hatch=HATCHES[index % len(HATCHES)],
        label=method.label,
    )
    paper = [*(method.reported.tasks or [None] * tasks), method.reported.accuracy]
    marks = [(place, paper[group]) for place, group in zip(places, groups, strict=True) if paper[group] is not None]
    if marks:
        axes.plot(*zip(*marks, strict=True), "D", color="white", markeredgecolor="black", markersize=5, label="paper")


def matrix_figure(study: Study) -> Figure | None:
    """Plot R of each sequential method as a heat map, averaged over trials.

    Args:
        study: The study; candidates are left out.

    Returns:
        The figure, or None where no method learns tasks one after the other.
    """
    methods = [method for method in study.compared if method.regime == "sequential"]
    if not methods:
        return None
    tasks = len(methods[0].trials[0]["task_accuracy"])
    side = max(1.9, 0.7 + 0.26 * tasks)
    across = min(len(methods), max(1, int(10.5 / side)))
    down = ceil(len(methods) / across)
    figure = Figure(figsize=(max(across * side + 1.0, 4.2), down * (side + 0.25) + 0.6), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False)
    for index, axes in enumerate(panels.flat):
        if index >= len(methods):
            axes.set_axis_off()
            continue
        mean = 100 * np.mean([trial["accuracy_matrix"] for trial in methods[index].trials], axis=0)
        mesh = heat_map(axes, mean, low=0, high=100, form="{:.0f}")
        axes.set_title(methods[index].label, fontsize=9)
        axes.tick_params(labelsize=8)
        if index % across == 0:
            axes.set_ylabel("after task", fontsize=9)
        if index + across >= len(methods):
            axes.set_xlabel("accuracy on task", fontsize=9)
    figure.suptitle(study.heading, x=0.01, ha="left", fontsize=11)
    figure.colorbar(mesh, ax=list(panels.flat), shrink=0.8 if down == 1 else 0.5, label="test accuracy (%)")
    return figure


def _open_frame(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


KINDS = (
    Kind(
        "accuracy",
        "Mean test accuracy on the tasks learned so far, after each task; bands: one standard error. Bounds are "
        "horizontal lines at their mean over all tasks.",
        accuracy_figure,
    ),
    Kind(
        "tasks",
        "Final test accuracy on each task, and their mean; whiskers: one standard error; diamonds: the paper's values.",
        tasks_figure,
    ),
    Kind(
        "matrix",
        "Accuracy matrix R in percent, mean over trials: test accuracy on each task (column) after each task (row).",
        matrix_figure,
    ),
)
"""The figures of a study."""

"""Figures of a study: curves over tasks, dots by task, heat maps; readable without colour and on a dark page."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from avsi.files import write_bytes
from avsi.results.store import plain
from avsi.results.study import Outcome, Study
from avsi.results.tables import partial_data

# Known methods look the same in every experiment, and relatives share a colour, as they are 10 places apart; others
# follow in the experiment's order. As 10 and 13 have no common divisor, no two of 130 methods look the same.
KNOWN = (
    "si", "online_ewc", "mas", "dhp", "dhp+si", "dhp+online_ewc", "dhp+mas", "finetune", "feature_extraction",
    "dropout", "si_matched", "online_ewc_matched", "mas_matched", "scratch", "joint", "", "", "finetune_matched", "",
    "", "avalanche_si", "avalanche_ewc", "avalanche_mas",
)  # fmt: skip
COLOURS = (
    "#2b7bba", "#d9680f", "#1f9568", "#b8479a", "#2a93aa", "#a07c00", "#6f8f1f", "#7d8894", "#8266c9", "#d64550",
)  # fmt: skip
MARKERS = "osD^vPX*<>phd"
BOUND = "#7f7f7f"
DASHES = ("-", (0, (6, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2, 2, 2)))
MOST = 24  # methods in a figure
NUMBERS = 2000  # in the cells of a figure; more take long and cannot be read
HEAT = "Blues"  # its lightness falls steadily, so that a grey copy reads the same
UNTRAINED = "#c8c8c8"
DARK = (
    "@media (prefers-color-scheme: dark) { text { fill: #e6e6e6 } "
    + " ".join(f'[style*="{kind}: {light}"] {{ {kind}: {dark} !important }}' for kind, light, dark in (
        ("stroke", "#000000", "#c8ccd2"), ("fill", "#000000", "#c8ccd2"), ("fill", "#ffffff", "#16181b"),
        ("stroke", "#b0b0b0", "#6a7078"),
    ))
    + " }"
)  # fmt: skip


@dataclass(frozen=True)
class _Style:
    """What a method looks like."""

    colour: str
    marker: str
    fill: str
    dashes: Any


def _styles(study: Study) -> dict[str, _Style]:
    # Give every method a look that does not depend on which of them have trials.
    names = [*KNOWN, *(method.name for method in study.methods if method.name not in KNOWN)]
    slots = {name: slot for slot, name in enumerate(names)}
    found = {}
    for method in study.methods:
        around, slot = divmod(slots[method.name], len(COLOURS))
        colour = COLOURS[slot] if method.regime == "sequential" else BOUND
        marker = MARKERS[slots[method.name] % len(MARKERS)]
        dashes = DASHES[(slot + around) % len(DASHES)]
        found[method.name] = _Style(colour, marker, "white" if around % 2 else colour, dashes)
    return found


def _note(study: Study, methods: Sequence[Outcome], interval: str = "band") -> str:
    # Say on a figure how many trials are behind it, and what limits it.
    counts = sorted({len(method.finished) for method in methods})
    seeds = "one seed" if counts == [1] else f"n = {counts[0]}" + f" to {counts[-1]}" * (len(counts) > 1) + " seeds"
    parts = [seeds, f"{interval} = standard error" if counts[-1] > 1 and interval else ""]
    partial = [*([study.deviation] if study.deviation else []), *partial_data(methods)]
    parts.append(f"partial: {'; '.join(partial)}" if partial else "")
    parts += [f"{method.label} {method.diverged}" for method in methods if method.diverged]
    parts.append(f"the first {MOST} methods" if len(methods) == MOST < len(study.compared) else "")
    return "; ".join(filter(None, parts))


def _shown(study: Study, key: str = "accuracy") -> list[Outcome]:
    return [method for method in study.compared if any(trial.get(key) is not None for trial in method.finished)][:MOST]


def _labels(methods: Sequence[Outcome]) -> list[str]:
    counts = [len(method.finished) for method in methods]
    different = len(set(counts)) > 1
    return [_text(m.label, 40) + f" (n = {n})" * different for m, n in zip(methods, counts, strict=True)]


def _text(text: str, limit: int = 400) -> str:  # no formula, and not hidden from the legend as what begins with _
    return plain(text, limit).replace("$", r"\$").replace("_", " _", text.startswith("_"))


def _titled(figure: Figure, study: Study, line: str, beside: Sequence[str] = ()) -> None:
    inches = figure.get_figwidth() - (0.9 + 0.09 * max(map(len, beside)) if beside else 0)  # of a legend at its right
    width = max(30, int(13 * inches))
    lines = [*textwrap.wrap(_text(study.heading), width), *textwrap.wrap(_text(line, 600), width)]
    figure.set_figheight(figure.get_figheight() + 0.17 * len(lines))
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=10)


def _open_frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.35)
    axes.set_axisbelow(True)


def _legend(figure: Figure, axes: Axes, extra: Mapping[str, Any] | None = None) -> None:
    handles, labels = axes.get_legend_handles_labels()
    handles, labels = [*handles, *(extra or {}).values()], [*labels, *(extra or {})]
    figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside right upper", handlelength=3)


def _accuracy_figure(study: Study) -> Figure | None:
    # Plot mean test accuracy over the tasks seen so far, after each task; bands are one standard error.
    methods = _shown(study)
    if not methods:
        return None
    figure = Figure(figsize=(8.8, max(4.2, 0.21 * len(methods) + 0.8)), layout="constrained")
    axes = figure.subplots()
    for index, (method, label) in enumerate(zip(methods, _labels(methods), strict=True)):
        style = _styles(study)[method.name]
        if method.regime == "sequential":
            # R's row t is averaged over tasks 1 to t.
            seen = np.array([_over_seen(trial["accuracy_matrix"]) for trial in method.finished])
            frame = 100 * pd.DataFrame(seen, columns=range(1, seen.shape[1] + 1))
        else:
            level = 100 * method.values("accuracy")
            frame = pd.DataFrame(dict.fromkeys((1, max(study.tasks, 2)), level))
        mean, error = frame.mean(), frame.sem()
        dots = {"marker": style.marker, "markevery": ceil(len(mean) / 20), "markerfacecolor": style.fill}
        # Later curves are thinner, so that curves that coincide can all be seen.
        size = {"markersize": max(8 - 0.25 * index, 5), "linewidth": max(2.8 - 0.25 * index, 1.1)}
        look = dots | size if method.regime == "sequential" else {"linewidth": 1.1}
        axes.plot(mean, **({"color": style.colour, "linestyle": style.dashes, "label": label} | look))
        if len(frame) > 1:
            axes.fill_between(mean.index, mean - error, mean + error, color=style.colour, alpha=0.18, linewidth=0)
    axes.set_xlabel("tasks learned")
    axes.set_ylabel("mean test accuracy on them (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _open_frame(axes)
    _legend(figure, axes)
    _titled(figure, study, _note(study, methods), _labels(methods))
    return figure


def _over_seen(matrix: Sequence[Sequence[float]]) -> np.ndarray:
    rows = np.tril(matrix)
    return rows.sum(1) / np.arange(1, len(rows) + 1)


def _panels_figure(study: Study) -> Figure | None:
    # Plot the accuracy on each task against the tasks trained, a panel a task, and their mean: Zenke et al.'s Figure 3.
    methods = [method for method in _shown(study) if method.regime == "sequential"]
    if not methods or not 2 <= study.tasks <= 11:
        return None
    across = ceil((study.tasks + 1) / (1 if study.tasks < 6 else 2))
    lines = ceil((study.tasks + 1) / across)
    figure = Figure(figsize=(min(1.8 * across + 2.2, 11.5), 2.3 * lines + 0.5), layout="constrained")
    panels = list(figure.subplots(lines, across, squeeze=False, sharex=True, sharey=True).flat)
    for method, label in zip(methods, _labels(methods), strict=True):
        style = _styles(study)[method.name]
        matrices = np.array([trial["accuracy_matrix"] for trial in method.finished])  # (seeds, tasks trained, tasks)
        curves = [matrices[:, task:, task] for task in range(study.tasks)]
        curves.append(np.array([_over_seen(matrix) for matrix in matrices]))
        for axes, curve in zip(panels, curves, strict=False):
            frame = 100 * pd.DataFrame(curve, columns=range(study.tasks - curve.shape[1] + 1, study.tasks + 1))
            mean, error = frame.mean(), frame.sem()
            dots = {"marker": style.marker, "markersize": 4, "markerfacecolor": style.fill}
            axes.plot(mean, color=style.colour, linestyle=style.dashes, linewidth=1.4, label=label, **dots)
            if len(frame) > 1:
                axes.fill_between(mean.index, mean - error, mean + error, color=style.colour, alpha=0.18, linewidth=0)
    for index, axes in enumerate(panels):
        axes.set_title(f"task {index + 1}" if index < study.tasks else "mean of tasks seen", loc="left", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_visible(index <= study.tasks)
        _open_frame(axes)
    figure.supxlabel("tasks trained", fontsize=10)
    figure.supylabel("test accuracy (%)", fontsize=10)
    _legend(figure, panels[0])
    _titled(figure, study, _note(study, methods), _labels(methods))
    return figure


def _tasks_figure(study: Study) -> Figure | None:
    # Plot the final test accuracy on each task as dots, and their mean; whiskers are one standard error.
    methods = _shown(study)
    if not methods:
        return None
    groups = study.tasks + 1  # the last is the mean
    lines = ceil(groups * len(methods) / 90)
    lines, apart = (lines, 0.8) if lines <= 4 else (1, 0.0)
    across = ceil(groups / lines)
    height = max(2.5 * lines + 0.4, 0.21 * len(methods) + 0.8)
    figure = Figure(figsize=(min(max(6.5, 3.2 + 0.13 * across * len(methods)), 11.5), height), layout="constrained")
    rows = figure.subplots(lines, 1, squeeze=False, sharey=True)[:, 0]
    extra: dict[str, Any] = {}
    for index, (method, label) in enumerate(zip(methods, _labels(methods), strict=True)):
        style = _styles(study)[method.name]
        shift = apart * ((index + 0.5) / len(methods) - 0.5)
        paper = dict(enumerate(method.reported["tasks"][: study.tasks], 1))
        paper |= {} if method.reported["accuracy"] is None else {groups: method.reported["accuracy"]}
        lane = min(9.0, max(3.0, 58 * (figure.get_figwidth() - 3) / (across * len(methods))))
        look = {"marker": style.marker, "linestyle": "none"} if apart else {"linestyle": "-", "linewidth": 0.8}
        for frame, training in ((method.by_task("train_accuracy"), True), (method.by_task(), False)):
            if frame.empty:
                continue
            frame = 100 * frame.assign(mean=frame.mean(axis="columns")).set_axis(range(1, groups + 1), axis="columns")
            for axes in rows:
                drawn = axes.errorbar(
                    frame.columns + shift, frame.mean(), frame.sem().to_numpy() if len(frame) > 1 else None,
                    color=style.colour, markerfacecolor=style.fill, markersize=5, elinewidth=1,
                    alpha=0.4 if training else 1, label=None if training else label, **look,
                )  # fmt: skip
            if training:
                extra["pale: training accuracy"] = drawn.lines[0]
        for axes in rows if paper else ():
            places = [task + shift for task in paper]
            (extra["paper"],) = axes.plot(places, list(paper.values()), "_k", markersize=lane, markeredgewidth=1.4)
    for line, axes in enumerate(rows):
        first = 1 + line * across
        axes.set_xlim(first - 0.55, first + across - 0.45)
        shown = range(first, min(first + across, groups + 1))
        ticks = [tick for tick in shown if tick == groups or (tick - 1) % ceil(across / 20) == 0]
        ticks = [tick for tick in ticks if tick == groups or groups - tick > across / 40]
        axes.set_xticks(
            ticks, ["mean" if tick == groups else f"task {tick}" if across <= 12 else tick for tick in ticks]
        )
        axes.tick_params(axis="x", length=0)
        for task in shown[::2] if apart else ():
            axes.axvspan(task - 0.5, task + 0.5, color=BOUND, alpha=0.07, linewidth=0)
        axes.set_ylabel("test accuracy (%)")
        _open_frame(axes)
    _legend(figure, rows[0], extra)
    _titled(figure, study, _note(study, methods, "whisker"), _labels(methods))
    return figure


def _matrix_figure(study: Study) -> Figure | None:
    # Plot R of each sequential method as a heat map, averaged over trials; tasks not learned yet are grey.
    methods = _shown(study, "accuracy_matrix")
    if not methods:
        return None
    tasks = study.tasks
    side = min(max(1.9, 0.7 + 0.26 * tasks), 4.0)
    across = min(len(methods), max(1, int(10.5 / side)))
    down = ceil(len(methods) / across)
    figure = Figure(figsize=(max(across * side + 1.7, 4.6), down * (side + 0.2) + 0.3), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False)
    form = "{:.0f}" if tasks * tasks * len(methods) <= NUMBERS and tasks <= 20 else ""
    for index, axes in enumerate(panels.flat):
        if index >= len(methods):
            axes.set_axis_off()
            continue
        mean = 100 * np.mean([trial["accuracy_matrix"] for trial in methods[index].finished], axis=0)
        mesh = heat_map(axes, mean, low=0, high=100, form=form, grey=np.triu(np.ones_like(mean, dtype=bool), 1))
        axes.set_title(_labels(methods)[index], fontsize=9)
        if index + across >= len(methods):
            axes.set_xlabel("accuracy on task", fontsize=9)
        axes.tick_params(labelsize=8)
        if index % across == 0:
            axes.set_ylabel("after task", fontsize=9)
    figure.colorbar(mesh, ax=list(panels.flat), shrink=0.8 if down == 1 else 0.5, label="test accuracy (%)")
    _titled(figure, study, _note(study, methods, ""))
    return figure


def heat_map(
    axes: Axes,
    values: Sequence[Sequence[float]] | np.ndarray,
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    low: float | None = None,
    high: float | None = None,
    form: str = "{:.2f}",
    grey: np.ndarray | None = None,
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
        grey: Cells to draw in grey, of the matrix's shape; their values are written too.

    Returns:
        The coloured cells, for a colour bar.

    Raises:
        ValueError: If the values are not a matrix, or the labels not as many as rows and columns.
    """
    matrix = np.asarray(values, dtype=float)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"a heat map shows a matrix, got values of shape {matrix.shape}")
    for name, labels, size in (("row", rows, matrix.shape[0]), ("column", columns, matrix.shape[1])):
        if len(labels) not in {0, size}:
            raise ValueError(f"a heat map of {size} {name}s needs as many {name} labels, got {len(labels)}")
    grey = np.zeros(matrix.shape, dtype=bool) if grey is None else grey
    large = max(matrix.shape) > 30  # an SVG file has a path for each cell otherwise
    options = {"rasterized": large} if large else {"edgecolors": "white", "linewidth": 0.5}
    cells = np.ma.masked_where(grey | ~np.isfinite(matrix), matrix)
    colours = matplotlib.colormaps[HEAT].with_extremes(bad=UNTRAINED if grey.any() else "none")
    mesh = axes.pcolormesh(cells, cmap=colours, vmin=low, vmax=high, **options)
    axes.set_xlim(0, matrix.shape[1])
    axes.set_ylim(matrix.shape[0], 0)
    axes.set_aspect("equal")
    for axis, labels, size in ((axes.xaxis, columns, matrix.shape[1]), (axes.yaxis, rows, matrix.shape[0])):
        places = np.arange(0, size, 1 if labels else ceil(size / 10) if size > 20 else 1)
        axis.set_ticks(places + 0.5, labels or [str(place + 1) for place in places])
        axis.set_tick_params(length=0)
    axes.spines[:].set_visible(False)
    if form:
        lightness = mesh.to_rgba(cells)[..., :3] @ (0.299, 0.587, 0.114)
        # Small enough for "0.00" in a cell of any size; cells are about as wide as the axes divided by their number.
        inches = min(axes.bbox.width, axes.bbox.height) / axes.figure.dpi / max(matrix.shape)
        for (row, column), value in np.ndenumerate(matrix):
            if np.isfinite(value):
                # Neither black nor white, which change on a dark page, where cells do not.
                colour = "#555555" if grey[row, column] else "#101010" if lightness[row, column] > 0.5 else "#fefefe"
                axes.text(
                    column + 0.5, row + 0.5, form.format(value), ha="center", va="center", color=colour,
                    fontsize=min(9.0, 0.33 * 72 * inches), in_layout=False,
                )  # fmt: skip
    return mesh


def _classes_figure(study: Study) -> Figure | None:
    # Plot final test accuracy on classes against their number of training images.
    methods = [
        m for m in _shown(study, "class_accuracy") if all(any(t.get("class_accuracy") or []) for t in m.finished)
    ]
    if not methods:
        return None
    figure = Figure(figsize=(8.8, max(4.2, 0.21 * len(methods) + 0.8)), layout="constrained")
    axes = figure.subplots()
    counted = all(trial.get("class_images") for method in methods for trial in method.finished)
    for method, label in zip(methods, _labels(methods), strict=True):
        style, by_seed = _styles(study)[method.name], []
        for trial in method.finished:
            rows = pd.DataFrame(trial["class_accuracy"], dtype=float).stack()
            classes = rows.to_frame("accuracy").assign(images=rows.index.get_level_values(1))
            if counted:
                classes["images"] = pd.DataFrame(trial["class_images"], dtype=float).stack()
            groups = classes.images
            if groups.nunique() > 12:  # groups of about as many classes, by their number of images
                groups = pd.qcut(groups, 8, labels=False, duplicates="drop")
            by_seed.append(classes.groupby(groups.to_numpy()).mean())
        by_group = pd.concat(by_seed).groupby(level=0)
        mean, error = by_group.mean(), 100 * by_group.accuracy.sem()
        places, error = mean.images.clip(lower=0.5 if counted else 0), error if len(by_seed) > 1 else None
        axes.errorbar(
            places, 100 * mean.accuracy, error, color=style.colour, marker=style.marker, markersize=5.5,
            markerfacecolor=style.fill, linestyle=style.dashes, linewidth=1.4, elinewidth=1, label=label,
        )  # fmt: skip
    if counted:
        axes.set_xscale("log")
    axes.set_xlabel("training images of the class" if counted else "class")
    axes.set_ylabel("final test accuracy on the class (%)")
    _open_frame(axes)
    _legend(figure, axes)
    _titled(figure, study, _note(study, methods, "whisker"), _labels(methods))
    return figure


def _sensitivity_figure(study: Study) -> Figure | None:
    # Plot accuracy against each parameter of a sweep; with several parameters, the best of the others at each value.
    panels = []
    for method in study.methods:
        tried = [c for c in study.methods if c.candidate_of == method.name and c.trials and c.settings]
        for name in dict.fromkeys(key for candidate in tried for key in candidate.settings):
            points = [c for c in tried if _is_number(c.settings.get(name))]
            if len({c.settings[name] for c in points}) > 1:
                panels.append((method, name, points))
    panels = panels[:MOST]
    if not panels:
        return None
    across = min(len(panels), 3)
    down = ceil(len(panels) / across)
    figure = Figure(figsize=(max(6.5, 3.4 * across + 1.6), 3.0 * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    for axes, (method, name, points) in zip(grid.flat, panels, strict=False):
        _sensitivity(axes, _styles(study)[method.name], method, name, points)
        axes.set_title(_text(method.label, 40), fontsize=9)
        axes.set_xlabel(_text(name, 40), fontsize=9)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("mean accuracy (%)", fontsize=9)
    handles: dict[str, Any] = {}
    for axes in grid.flat:
        handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        list(handles.values()), list(handles), frameon=False, fontsize=9, loc="outside right center", handlelength=3
    )
    _titled(figure, study, _note(study, [c for _, _, points in panels for c in points], "whisker"))
    return figure


def _sensitivity(axes: Axes, style: _Style, method: Outcome, name: str, points: Sequence[Outcome]) -> None:
    place = {c.name: float(c.settings[name]) for c in points}
    places = sorted(set(place.values()))
    if places[0] > 0 and places[-1] / places[0] >= 20:
        axes.set_xscale("log")
    elif places[0] == 0 and places[-1] / places[1] >= 20:
        axes.set_xscale("symlog", linthresh=places[1])
    # At each value the best on validation data, and its test accuracy.
    best: dict[float, Outcome] = {}
    for c in points:
        validation = c.values("validation_accuracy").mean()
        if c.values("accuracy").empty or any(trial.get("status") == "diverged" for trial in c.trials):
            continue
        at = place[c.name]
        if at not in best or validation > best[at].values("validation_accuracy").mean():
            best[at] = c
    shown = sorted(best)
    for key, label, dashes, fill in (
        ("validation_accuracy", "validation data", DASHES[1], "white"),
        ("accuracy", "test data", "-", style.colour),
    ):
        values = [100 * best[at].values(key) for at in shown]
        if any(len(value) for value in values):
            error = [value.sem() if len(value) > 1 else 0.0 for value in values]
            axes.errorbar(
                shown, [value.mean() for value in values], error if any(error) else None, color=style.colour,
                marker=style.marker, markersize=5, linestyle=dashes, linewidth=1.4, elinewidth=1, markerfacecolor=fill,
                label=label,
            )  # fmt: skip
    lost = sorted({place[c.name] for c in points} - set(shown))
    if lost:
        across = axes.get_xaxis_transform()
        axes.plot(lost, [0.03] * len(lost), "x", color="#d64550", markersize=7, transform=across, label="diverged")
    for value, label, dashes in (
        (method.settings.get(name), "chosen", "-"),
        (method.published.get(name), "the script's own", ":"),
    ):
        if value is not None and _is_number(value):
            axes.axvline(float(value), color=BOUND, linestyle=dashes, linewidth=1.2, label=label, zorder=0)
    axes.tick_params(labelsize=8)
    _open_frame(axes)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


KINDS: dict[str, tuple[Callable[[Study], Figure | None], str]] = {
    "accuracy": (
        _accuracy_figure,
        "Mean test accuracy on the tasks learned so far, after each task; bands: one standard error.",
    ),
    "panels": (
        _panels_figure,
        "Test accuracy on each task against the tasks trained, and mean over tasks seen; bands: one standard error.",
    ),
    "tasks": (
        _tasks_figure,
        "Final test accuracy on each task, and their mean; whiskers: one standard error.",
    ),
    "classes": (
        _classes_figure,
        "Final test accuracy on classes against their number of training images; whiskers: one standard error.",
    ),
    "sensitivity": (
        _sensitivity_figure,
        "Mean accuracy after the last task against the parameters of a sweep; whiskers: one standard error.",
    ),
    "matrix": (
        _matrix_figure,
        "Accuracy matrix R in percent, mean over trials: test accuracy on each task (column) after each task (row). "
        "Grey: tasks not learned yet.",
    ),
}
"""The figures of a study, by the stem of their files: what draws them, and their captions."""


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG and SVG, each whole or not at all; the same figure gives the same bytes.

    What is black or white in the SVG, but for heat maps, turns light or dark on a dark page.

    Args:
        figure: The figure.
        stem: The files without their endings; the folder is made if missing.

    Returns:
        The PNG and the SVG file.
    """
    # Not with_suffix, which would cut a stem such as "eta-0.1".
    png_file, svg_file = (stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "svg"))
    # Text stays text, and names in the file are the same each time.
    fonts = ["DejaVu Sans", "Verdana", "Arial"]
    with (
        matplotlib.rc_context({"svg.hashsalt": stem.name, "svg.fonttype": "none", "font.sans-serif": fonts}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph")
        write_bytes(png_file, _draw(figure, "png", dpi=160))
        svg = _draw(figure, "svg", metadata={"Date": None})
        write_bytes(svg_file, svg.replace(b"</style>", f"{DARK}</style>".encode(), 1))
    return [png_file, svg_file]


def _draw(figure: Figure, form: str, **options: Any) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format=form, **options)
    return buffer.getvalue()

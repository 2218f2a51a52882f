"""Figures of a study: curves over tasks, dots by task, heat maps; readable without colour and on a dark page."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Sequence
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
from avsi.results.study import Outcome, Study, is_number
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
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True, "axes.grid": True, "axes.grid.axis": "y", "axes.labelsize": 9, "axes.spines.right": False,
    "axes.spines.top": False, "axes.titlesize": 9, "figure.constrained_layout.use": True, "figure.labelsize": 9,
    "figure.titlesize": 10,
    "grid.alpha": 0.35, "legend.fontsize": 9, "legend.frameon": False, "legend.handlelength": 3,
    "lines.linewidth": 1.4, "lines.markersize": 5, "xtick.labelsize": 8, "ytick.labelsize": 8,
}  # fmt: skip
DARK_PAGE = (
    ("stroke", "#000000", "#c8ccd2"), ("fill", "#000000", "#c8ccd2"), ("fill", "#ffffff", "#16181b"),
    ("stroke", "#b0b0b0", "#6a7078"),
)  # fmt: skip


def _look(study: Study, method: Outcome) -> dict[str, Any]:
    """Give a method its look, as ``plot`` takes it; it does not depend on which of the others have trials."""
    names = [*KNOWN, *(other.name for other in study.methods if other.name not in KNOWN)]
    slot = names.index(method.name)
    around, hue = divmod(slot, len(COLOURS))
    colour = COLOURS[hue] if method.regime == "sequential" else BOUND
    return {
        "color": colour,
        "linestyle": DASHES[(hue + around) % len(DASHES)],
        "marker": MARKERS[slot % len(MARKERS)],
        "markerfacecolor": "white" if around % 2 else colour,
    }


def _shown(study: Study) -> list[Outcome]:
    """Choose the methods of a figure."""
    return [method for method in study.compared if method.finished][:MOST]


def _labelled(study: Study, methods: Sequence[Outcome]) -> list[tuple[Outcome, dict[str, Any]]]:
    """Give each method its look and label, as arguments of ``plot``."""
    different = len({len(method.finished) for method in methods}) > 1
    return [
        (m, _look(study, m) | {"label": _text(m.label, 40) + f" (n = {len(m.finished)})" * different}) for m in methods
    ]


def _text(text: str, limit: int = 600) -> str:
    """Write a text so that it is no formula, and not hidden from the legend as what begins with _."""
    return plain(text, limit).replace("$", r"\$").replace("_", " _", text.startswith("_"))


def _make_panels(count: int, across: int, width: float, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """Make a figure with panels of a size in inches, so many in a row."""
    down = ceil(count / across)
    figure = Figure(figsize=(max(across * width + 2, 6.5), down * height + 0.4))
    panels = list(figure.subplots(down, across, squeeze=False, **shared).flat)
    for axes in panels[count:]:
        axes.set_visible(False)
    return figure, panels[:count]


def _finish(figure: Figure, study: Study, methods: Sequence[Outcome], interval: str) -> None:
    """Explain looks beside the figure; say above it what is shown, how many trials are behind it, what limits it."""
    handles = {k: v for axes in figure.axes for v, k in zip(*axes.get_legend_handles_labels(), strict=True)}
    inches = figure.get_figwidth()
    if handles:
        figure.legend(list(handles.values()), list(handles), loc="outside right upper")
        inches -= 0.9 + 0.09 * max(map(len, handles))
    counts = sorted({len(method.finished) for method in methods})
    seeds = " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]])))
    partial = "; ".join([*filter(None, [study.deviation]), *partial_data(methods)])
    notes = [
        "one seed" if seeds == "1" else f"n = {seeds} seeds",
        f"{interval} = standard error" if interval and counts[-1] > 1 else "",
        f"partial: {partial}" if partial else "",
        *(f"{method.label} {method.diverged}" for method in methods if method.diverged),
        f"the first {MOST} methods" if len(methods) == MOST < len(study.compared) else "",
    ]
    texts = (study.heading, "; ".join(filter(None, notes)))
    lines = [line for text in texts for line in textwrap.wrap(_text(text), max(30, int(13 * inches)))]
    figure.set_figheight(max(figure.get_figheight(), 0.21 * len(handles) + 0.8) + 0.17 * len(lines))
    figure.suptitle("\n".join(lines), x=0.01, ha="left")


def _draw_curve(axes: Axes, values: pd.DataFrame, look: dict[str, Any]) -> None:
    """Draw the mean over seeds (rows) against the columns, with a band of one standard error."""
    mean, error = values.mean(), values.sem()
    axes.plot(mean, **look)
    if len(values) > 1:
        axes.fill_between(mean.index, mean - error, mean + error, color=look["color"], alpha=0.18, linewidth=0)


def _draw_dots(axes: Axes, values: pd.DataFrame, look: dict[str, Any]) -> None:
    """Draw the mean over seeds (rows) against the columns, with whiskers of one standard error."""
    error = values.sem()
    axes.errorbar(values.columns, values.mean(), None if error.isna().all() else error.fillna(0), elinewidth=1, **look)


def _matrices(method: Outcome) -> np.ndarray:
    """Collect R in percent: (seeds, tasks trained, tasks)."""
    return 100 * np.array([trial["accuracy_matrix"] for trial in method.finished])


def _over_seen(matrices: np.ndarray) -> np.ndarray:
    """Average row t of R over tasks 1 to t: (seeds, tasks trained)."""
    return np.tril(matrices).sum(-1) / np.arange(1, matrices.shape[-1] + 1)


def _accuracy_figure(study: Study) -> Figure | None:
    """Plot mean accuracy over the tasks seen so far, after each task; what has no order of tasks is a level line."""
    methods = _shown(study)
    if not methods:
        return None
    figure, (axes,) = _make_panels(1, 1, 6.8, 3.8)
    tasks = range(1, study.tasks + 1)
    for index, (method, look) in enumerate(_labelled(study, methods)):
        if method.regime == "sequential":
            values = pd.DataFrame(_over_seen(_matrices(method)), columns=tasks)
            # Later curves are thinner, so that curves that coincide can all be seen.
            look |= {"markersize": max(8 - 0.25 * index, 5), "linewidth": max(2.8 - 0.25 * index, 1.1)}
            look |= {"markevery": ceil(len(tasks) / 20)}
        else:
            values = pd.DataFrame(dict.fromkeys((1, max(study.tasks, 2)), 100 * method.values("accuracy")))
            look |= {"marker": "None", "linewidth": 1.1}
        _draw_curve(axes, values, look)
    axes.set(xlabel="tasks learned", ylabel="mean test accuracy on them (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(figure, study, methods, "band")
    return figure


def _panels_figure(study: Study) -> Figure | None:
    """Plot the accuracy on each task, a panel each, and on those seen, as in Figure 3 of Zenke et al."""
    methods = [method for method in _shown(study) if method.regime == "sequential"]
    tasks = study.tasks
    if not methods or not 2 <= tasks <= 11:
        return None
    across = ceil((tasks + 1) / (1 if tasks < 6 else 2))
    figure, panels = _make_panels(tasks + 1, across, min(1.8, 9.5 / across), 2.3, sharex=True, sharey=True)
    for method, look in _labelled(study, methods):
        matrices = _matrices(method)
        curves = [*(matrices[:, task:, task] for task in range(tasks)), _over_seen(matrices)]
        for axes, curve in zip(panels, curves, strict=True):
            trained = range(tasks - curve.shape[1] + 1, tasks + 1)
            _draw_curve(axes, pd.DataFrame(curve, columns=trained), look | {"markersize": 4})
    for index, axes in enumerate(panels):
        axes.set_title(f"task {index + 1}" if index < tasks else "mean of tasks seen", loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supxlabel("tasks trained")
    figure.supylabel("test accuracy (%)")
    _finish(figure, study, methods, "band")
    return figure


def _tasks_figure(study: Study) -> Figure | None:
    """Plot the final accuracy on each task and their mean, beside training accuracy and the paper's values."""
    methods = _shown(study)
    if not methods:
        return None
    groups = study.tasks + 1  # the last is the mean
    down = ceil(groups * len(methods) / 90)
    as_dots = down <= 4  # more are lines in one row of axes
    across = ceil(groups / down) if as_dots else groups
    down = ceil(groups / across)
    width = min(max(6.5, 3.2 + 0.13 * across * len(methods)), 11.5)
    figure, rows = _make_panels(down, 1, width - 2, 2.5, sharey=True)
    for index, axes in enumerate(rows):
        shown = range(index * across + 1, min((index + 1) * across, groups) + 1)
        every = ceil(across / 20)
        ticks = [task for task in shown[::every] if task <= groups - every] + [groups] * (groups in shown)
        names = [f"task {tick}" if across <= 12 else str(tick) for tick in ticks]
        axes.set_xticks(ticks, [*names[:-1], "mean"] if groups in shown else names)
        axes.tick_params(axis="x", length=0)
        axes.set_xlim(shown[0] - 0.55, shown[0] + across - 0.45)
        for task in shown[::2] if as_dots else ():
            axes.axvspan(task - 0.5, task + 0.5, color=BOUND, alpha=0.07, linewidth=0)
        axes.set_ylabel("test accuracy (%)")

    line = {"linestyle": "none"} if as_dots else {"linestyle": "-", "linewidth": 0.8}
    pale = line | {"alpha": 0.4, "label": "pale: training accuracy"}
    lane = min(9.0, max(3.0, 58 * (width - 3) / (across * len(methods))))
    paper = {"linestyle": "none", "marker": "_", "color": "k", "markersize": lane, "markeredgewidth": 1.4}
    layers: tuple[tuple[Callable[[Outcome], pd.DataFrame], dict[str, Any]], ...] = (
        (lambda method: _with_mean(method.by_task()), line),
        (lambda method: _with_mean(method.by_task("train_accuracy")), pale),
        (lambda method: _reported(method, study.tasks), paper | {"label": "paper"}),
    )
    for values_of, layer in layers:
        for index, (method, look) in enumerate(_labelled(study, methods)):
            values = values_of(method)
            shift = 0.8 * ((index + 0.5) / len(methods) - 0.5) if as_dots else 0
            for axes in rows if values.size else ():
                _draw_dots(axes, values.set_axis(values.columns + shift, axis="columns"), look | layer)
    _finish(figure, study, methods, "whisker")
    return figure


def _with_mean(values: pd.DataFrame) -> pd.DataFrame:
    """Turn accuracies by task into percent, with their mean as a task more."""
    return 100 * values.assign(mean=values.mean(axis="columns")).set_axis(range(1, values.shape[1] + 2), axis="columns")


def _reported(method: Outcome, tasks: int) -> pd.DataFrame:
    """Collect what the paper reports of each task and, as a task more, of their mean."""
    values = dict(enumerate(method.reported["tasks"][:tasks], 1)) | {tasks + 1: method.reported["accuracy"]}
    return pd.DataFrame([values], dtype=float).dropna(axis="columns")


def _matrix_figure(study: Study) -> Figure | None:
    """Plot R of each sequential method as a heat map, with tasks not learned yet in grey."""
    methods = [method for method in _shown(study) if method.regime == "sequential"]
    if not methods:
        return None
    tasks = study.tasks
    side = min(max(1.9, 0.7 + 0.26 * tasks), 4.0)
    figure, panels = _make_panels(len(methods), min(len(methods), int(10.5 / side)), side, side + 0.2)
    form = "{:.0f}" if tasks * tasks * len(methods) <= NUMBERS and tasks <= 20 else ""
    untrained = np.triu(np.ones((tasks, tasks), dtype=bool), 1)
    for axes, (method, look) in zip(panels, _labelled(study, methods), strict=True):
        mesh = heat_map(axes, _matrices(method).mean(0), low=0, high=100, form=form, grey=untrained)
        axes.set_title(textwrap.fill(look["label"], int(12 * side)))
    figure.supxlabel("accuracy on task")
    figure.supylabel("after task")
    figure.colorbar(mesh, ax=panels, shrink=0.7, aspect=30, label="test accuracy (%)")
    _finish(figure, study, methods, "")
    return figure


def heat_map(
    axes: Axes,
    values: Sequence[Sequence[float]] | np.ndarray,
    *,
    low: float | None = None,
    high: float | None = None,
    form: str = "{:.2f}",
    grey: np.ndarray | None = None,
) -> QuadMesh:
    """Draw a matrix as a heat map, the first row on top, darker for more, with its values written into the cells.

    Args:
        axes: Where to draw.
        values: The matrix; NaN leaves a cell empty.
        low: Value of the lightest shade; default: the least value.
        high: Value of the darkest shade; default: the greatest value.
        form: Format of the values in the cells; "" leaves them out.
        grey: Cells to draw in grey, of the matrix's shape; their values are written too.

    Returns:
        The coloured cells, for a colour bar.

    Raises:
        ValueError: If the values are not a matrix.
    """
    matrix = np.asarray(values, dtype=float)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"a heat map shows a matrix, got values of shape {matrix.shape}")
    grey = np.zeros(matrix.shape, dtype=bool) if grey is None else grey
    large = max(matrix.shape) > 30  # an SVG file has a path for each cell otherwise
    options = {"rasterized": large} if large else {"edgecolors": "white", "linewidth": 0.5}
    cells = np.ma.masked_where(grey | ~np.isfinite(matrix), matrix)
    colours = matplotlib.colormaps[HEAT].with_extremes(bad=UNTRAINED if grey.any() else "none")
    mesh = axes.pcolormesh(cells, cmap=colours, vmin=low, vmax=high, **options)
    axes.set(xlim=(0, matrix.shape[1]), ylim=(matrix.shape[0], 0), aspect="equal")
    for axis, size in ((axes.xaxis, matrix.shape[1]), (axes.yaxis, matrix.shape[0])):
        places = np.arange(0, size, ceil(size / 10) if size > 20 else 1)
        axis.set_ticks(places + 0.5, [str(place + 1) for place in places])
        axis.set_tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if form:
        lightness = mesh.to_rgba(cells)[..., :3] @ (0.299, 0.587, 0.114)
        # Small enough for "0.00" in a cell of any size; cells are about as wide as the axes divided by their number.
        inches = min(axes.bbox.width, axes.bbox.height) / axes.figure.dpi / max(matrix.shape)
        look = {"ha": "center", "va": "center", "in_layout": False, "fontsize": min(9.0, 0.33 * 72 * inches)}
        for row, column in np.argwhere(np.isfinite(matrix)):
            # Neither black nor white, which change on a dark page, where cells do not.
            colour = "#555555" if grey[row, column] else "#101010" if lightness[row, column] > 0.5 else "#fefefe"
            axes.text(column + 0.5, row + 0.5, form.format(matrix[row, column]), color=colour, **look)
    return mesh


def _classes_figure(study: Study) -> Figure | None:
    """Plot the final accuracy on classes against their number of training images, or against the class."""
    methods = [m for m in _shown(study) if all(any(t.get("class_accuracy") or []) for t in m.finished)]
    if not methods:
        return None
    figure, (axes,) = _make_panels(1, 1, 6.8, 3.8)
    counted = all(trial.get("class_images") for method in methods for trial in method.finished)
    for method, look in _labelled(study, methods):
        classes = pd.concat({trial["seed"]: _classes(trial, counted) for trial in method.finished}, names=["seed"])
        groups = classes.images
        if groups.nunique() > 12:  # groups of about as many classes, by their number of images
            groups = pd.qcut(groups, 8, labels=False, duplicates="drop")
        values = 100 * classes.groupby(["seed", groups.rename("group")]).accuracy.mean().unstack()
        values.columns = classes.images.groupby(groups).mean().clip(lower=0.5 if counted else 0)
        _draw_dots(axes, values, look)
    axes.set_ylabel("final test accuracy on the class (%)")
    if counted:
        axes.set(xlabel="training images of the class", xscale="log")
    else:
        axes.set_xlabel("class")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(figure, study, methods, "whisker")
    return figure


def _classes(trial: dict[str, Any], counted: bool) -> pd.DataFrame:
    """Tabulate a trial's classes: accuracy, and number of training images where they are counted, else of the class."""
    accuracy = pd.DataFrame(trial["class_accuracy"], dtype=float).stack()
    images = pd.DataFrame(trial["class_images"], dtype=float).stack() if counted else accuracy.index.get_level_values(1)
    return pd.DataFrame({"accuracy": accuracy, "images": images}).dropna()


def _sensitivity_figure(study: Study) -> Figure | None:
    """Plot accuracy against each parameter of a sweep that was tried with several numbers."""
    panels = []
    for method in study.methods:
        tried = [c for c in study.methods if c.candidate_of == method.name and c.trials]
        for name in dict.fromkeys(key for candidate in tried for key in candidate.settings):
            points = [(float(c.settings[name]), c) for c in tried if is_number(c.settings.get(name))]
            if len({value for value, _ in points}) > 1:
                panels.append((method, name, points))
    panels = panels[:MOST]
    if not panels:
        return None
    figure, grid = _make_panels(len(panels), min(len(panels), 3), 3.4, 2.8)
    for axes, (method, name, points) in zip(grid, panels, strict=True):
        _draw_sensitivity(axes, _look(study, method), method, name, points)
    figure.supylabel("mean accuracy (%)")
    _finish(figure, study, [c for _, _, points in panels for _, c in points], "whisker")
    return figure


def _draw_sensitivity(
    axes: Axes, look: dict[str, Any], method: Outcome, name: str, points: Sequence[tuple[float, Outcome]]
) -> None:
    """Draw accuracy against a parameter; with several, at each value the best of the others on validation data."""
    axes.set(title=_text(method.label, 40), xlabel=_text(name, 40))
    places = sorted({value for value, _ in points})
    if places[0] > 0 and places[-1] / places[0] >= 20:
        axes.set_xscale("log")
    elif places[0] == 0 and places[-1] / places[1] >= 20:
        axes.set_xscale("symlog", linthresh=places[1])
    sound = [(value, c) for value, c in points if len(c.finished) == len(c.trials)]
    best = dict(sorted(sound, key=lambda point: np.nan_to_num(point[1].values("validation_accuracy").mean())))
    for key, label, dashes, fill in (
        ("validation_accuracy", "validation data", DASHES[1], "white"),
        ("accuracy", "test data", "-", look["color"]),
    ):
        values = 100 * pd.DataFrame({value: best[value].values(key) for value in sorted(best)})
        if values.size:
            _draw_dots(axes, values, look | {"linestyle": dashes, "markerfacecolor": fill, "label": label})
    lost = [value for value in places if value not in best]
    if lost:
        at_bottom = axes.get_xaxis_transform()
        axes.plot(lost, [0.03] * len(lost), "x", color=COLOURS[-1], markersize=7, transform=at_bottom, label="diverged")
    for settings, label, dashes in ((method.settings, "chosen", "-"), (method.published, "the script's own", ":")):
        if is_number(settings.get(name)):
            axes.axvline(settings[name], color=BOUND, linestyle=dashes, linewidth=1.2, label=label, zorder=0)


KINDS: dict[str, tuple[Callable[[Study], Figure | None], str]] = {
    "accuracy": (
        _accuracy_figure,
        "Mean test accuracy on the tasks learned so far, after each task; bands: one standard error.",
    ),
    "panels": (
        _panels_figure,
        "Test accuracy on each task against the tasks trained, and mean over tasks seen; bands: one standard error.",
    ),
    "tasks": (_tasks_figure, "Final test accuracy on each task, and their mean; whiskers: one standard error."),
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
"""The figures of a study, by the stem of their files: what draws them, if there is anything to draw, and captions."""


def write_figures(study: Study) -> list[Path]:
    """Write the figures of a study; those of trials that are there no more are removed."""
    written = []
    for kind, (draw, _) in KINDS.items():
        with matplotlib.rc_context(STYLE):
            figure = draw(study)
            if figure is not None:
                written += save_figure(figure, study.folder / f"{kind}{study.suffix}")
                continue
        for ending in ("png", "svg"):
            study.file(kind, ending).unlink(missing_ok=True)
    return written


def captions(study: Study) -> dict[str, str]:
    """Return the captions of the figures that were written, by file."""
    files = {kind: study.file(kind, "svg") for kind in KINDS}
    return {file.name: KINDS[kind][1] for kind, file in files.items() if file.is_file()}


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
    files = [stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "svg")]
    # Text stays text, and names in the file are the same each time.
    fonts = ["DejaVu Sans", "Verdana", "Arial"]
    png, svg = BytesIO(), BytesIO()
    with (
        matplotlib.rc_context({"svg.hashsalt": stem.name, "svg.fonttype": "none", "font.sans-serif": fonts}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(png, format="png", dpi=160)
        figure.savefig(svg, format="svg", metadata={"Date": None})
    rules = ["text { fill: #e6e6e6 }"]
    rules += [f'[style*="{kind}: {light}"] {{ {kind}: {dark} !important }}' for kind, light, dark in DARK_PAGE]
    style = f"@media (prefers-color-scheme: dark) {{ {' '.join(rules)} }}</style>"
    write_bytes(files[0], png.getvalue())
    write_bytes(files[1], svg.getvalue().replace(b"</style>", style.encode(), 1))
    return files

"""Figures of a study: curves over tasks, dots by task, heat maps; readable without colour."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Sequence
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from avsi.files import write_bytes
from avsi.metrics import accuracy_over_seen
from avsi.results.study import Study

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
MAX_METHODS = 24  # methods in a figure
MAX_CELLS = 2000  # in the cells of a figure; more take long and cannot be read
HEAT = "Blues"  # its lightness falls steadily, so that a grey copy reads the same
UNTRAINED = "#c8c8c8"
TEXTS: dict[Any, Any] = {"font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"], "svg.fonttype": "none"}
DARK_PAGE = (
    '@media (prefers-color-scheme: dark) { text { fill: #e6e6e6 } [style*="stroke: #000000"] { stroke: #c8ccd2 '
    '!important } [style*="fill: #000000"] { fill: #c8ccd2 !important } [style*="fill: #ffffff"] { fill: #16181b '
    '!important } [style*="stroke: #b0b0b0"] { stroke: #6a7078 !important } }</style>'
)
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True, "axes.grid": True, "axes.grid.axis": "y", "axes.labelsize": 9, "axes.spines.right": False,
    "axes.spines.top": False, "axes.titlesize": 9, "figure.constrained_layout.use": True, "figure.labelsize": 9,
    "figure.titlesize": 10,
    "grid.alpha": 0.35, "legend.fontsize": 9, "legend.frameon": False, "legend.handlelength": 3,
    "lines.linewidth": 1.4, "lines.markersize": 5, "xtick.labelsize": 8, "ytick.labelsize": 8,
}  # fmt: skip

Looks = dict[str, dict[str, Any]]
"""How methods look, by name, as arguments of ``plot``."""


def _look(study: Study, name: str) -> dict[str, Any]:
    """Give a method its look; it does not depend on which of the others have trials."""
    names = [*KNOWN, *(other for other in study.methods.index if other not in KNOWN)]
    slot = names.index(name)
    around, hue = divmod(slot, len(COLOURS))
    colour = COLOURS[hue] if study.methods.regime[name] == "sequential" else BOUND
    return {
        "color": colour,
        "linestyle": DASHES[(hue + around) % len(DASHES)],
        "marker": MARKERS[slot % len(MARKERS)],
        "markerfacecolor": "white" if around % 2 else colour,
    }


def _text(text: str, limit: int = 600) -> str:
    """Write a text so that it is no formula, and not hidden from the legend as what begins with _."""
    return text[:limit].replace("$", r"\$").replace("_", " _", text.startswith("_"))


def _make_panels(count: int, across: int, width: float, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """Make a figure with panels of a size in inches, so many in a row."""
    down = ceil(count / across)
    figure = Figure(figsize=(max(across * width + 2, 6.5), down * height + 0.4))
    panels = list(figure.subplots(down, across, squeeze=False, **shared).flat)
    for axes in panels[count:]:
        axes.set_visible(False)
    return figure, panels[:count]


def _draw(axes: Axes, values: pd.DataFrame, look: dict[str, Any], band: bool = False) -> None:
    """Draw the mean over seeds (rows) against the columns, with one standard error as whiskers or as a band."""
    mean, error = values.mean(), values.sem()
    if not band:
        axes.errorbar(mean.index, mean, None if error.isna().all() else error.fillna(0), elinewidth=1, **look)
        return
    axes.plot(mean.index, mean, **look)
    if error.notna().any():
        axes.fill_between(mean.index, mean - error, mean + error, color=look["color"], alpha=0.18, linewidth=0)


def _matrices(study: Study, name: str) -> np.ndarray:
    """Collect R of a method in percent: (seeds, tasks trained, tasks)."""
    return 100 * np.array([matrix for matrix in study.of(name).accuracy_matrix if matrix])


def _draw_accuracy(study: Study, looks: Looks) -> Figure:
    """Draw a curve for each method, and a line at the accuracy of one that does not learn in sequence."""
    figure, (axes,) = _make_panels(1, 1, 6.8, 3.8)
    for index, (name, look) in enumerate(looks.items()):
        if study.in_sequence(name):
            # Later curves are thinner, so that curves that coincide can all be seen.
            sizes = {"markersize": max(8 - 0.25 * index, 5), "linewidth": max(2.8 - 0.25 * index, 1.1)}
            _draw(axes, _over_seen(study, name), look | sizes | {"markevery": ceil(study.tasks / 20)}, band=True)
        else:
            level = 100 * study.by_seed("accuracy")[name].dropna()
            ends = pd.DataFrame(dict.fromkeys((1, max(study.tasks, 2)), level))
            _draw(axes, ends, look | {"marker": "None", "linewidth": 1.1}, band=True)
    axes.set(xlabel="tasks learned", ylabel="mean test accuracy on them (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _over_seen(study: Study, name: str) -> pd.DataFrame:
    """Average row t of R over tasks 1 to t: by seed (rows) and t (columns)."""
    rows = [accuracy_over_seen(matrix) for matrix in _matrices(study, name)]
    return pd.DataFrame(rows, columns=range(1, study.tasks + 1))


def _draw_panels(study: Study, looks: Looks) -> Figure | None:
    """Draw a panel for each task, and one for the mean."""
    tasks = study.tasks
    if not 2 <= tasks <= 11:
        return None
    across = ceil((tasks + 1) / (1 if tasks < 6 else 2))
    figure, panels = _make_panels(tasks + 1, across, min(1.8, 9.5 / across), 2.3, sharex=True, sharey=True)
    for name, look in looks.items():
        matrices = _matrices(study, name)
        curves = [pd.DataFrame(matrices[:, t:, t], columns=range(t + 1, tasks + 1)) for t in range(tasks)]
        for axes, curve in zip(panels, [*curves, _over_seen(study, name)], strict=True):
            _draw(axes, curve, look | {"markersize": 4}, band=True)
    for index, axes in enumerate(panels):
        axes.set_title(f"task {index + 1}" if index < tasks else "mean of tasks seen", loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supxlabel("tasks trained")
    figure.supylabel("test accuracy (%)")
    return figure


def _draw_tasks(study: Study, looks: Looks) -> Figure | None:
    """Draw a group of dots for each task, and one for the mean."""
    groups = study.tasks + 1  # the last is the mean
    if study.tasks > 20:
        return None
    across = ceil(groups / ceil(groups * len(looks) / 90))
    width = min(max(4.5, 1.2 + 0.13 * across * len(looks)), 9.5)
    figure, rows = _make_panels(ceil(groups / across), 1, width, 2.5, sharey=True)
    for index, axes in enumerate(rows):
        shown = range(index * across + 1, min((index + 1) * across, groups) + 1)
        name = "task {}" if across <= 12 else "{}"
        axes.set_xticks(shown, ["mean" if task == groups else name.format(task) for task in shown])
        axes.tick_params(axis="x", length=0)
        axes.set(xlim=(shown[0] - 0.55, shown[0] + across - 0.45), ylabel="test accuracy (%)")
        for task in shown[::2]:
            axes.axvspan(task - 0.5, task + 0.5, color=BOUND, alpha=0.07, linewidth=0)

    lane = min(9.0, max(3.0, 58 * (width - 1) / (across * len(looks))))
    layers: dict[str, dict[str, Any]] = {
        "task_accuracy": {},
        "train_accuracy": {"alpha": 0.4, "label": "pale: training accuracy"},
        "paper": {"marker": "_", "color": "k", "markersize": lane, "markeredgewidth": 1.4, "label": "paper"},
    }
    for key, layer in layers.items():
        for index, (name, look) in enumerate(looks.items()):
            if key == "paper":
                method = study.methods.loc[name]
                paper = dict(enumerate(method.paper_tasks or (), 1)) | {groups: method.paper_accuracy}
                values = pd.DataFrame([paper], dtype=float).dropna(axis="columns")
            else:
                values = 100 * study.by_task(name, key)
                values[groups] = values.mean(axis="columns")
            shift = 0.8 * ((index + 0.5) / len(looks) - 0.5)
            for axes in rows if values.size else ():
                _draw(axes, values.set_axis(values.columns + shift, axis=1), look | {"linestyle": "none"} | layer)
    return figure


def _draw_matrices(study: Study, looks: Looks) -> Figure:
    """Draw a heat map for each method."""
    tasks = study.tasks
    side = min(max(1.9, 0.7 + 0.26 * tasks), 4.0)
    figure, panels = _make_panels(len(looks), min(len(looks), int(10.5 / side)), side, side + 0.2)
    form = "{:.0f}" if tasks * tasks * len(looks) <= MAX_CELLS else ""
    untrained = np.triu(np.ones((tasks, tasks), dtype=bool), 1)
    for axes, (name, look) in zip(panels, looks.items(), strict=True):
        cells = heat_map(axes, _matrices(study, name).mean(0), low=0, high=100, form=form, grey=untrained)
        axes.set_title(textwrap.fill(look["label"], int(12 * side)))
    figure.supxlabel("accuracy on task")
    figure.supylabel("after task")
    figure.colorbar(cells, ax=panels, shrink=0.7, aspect=30, label="test accuracy (%)")
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


def _draw_classes(study: Study, looks: Looks) -> Figure | None:
    """Draw a curve for each method; many classes are grouped by their number of images."""
    rows = [
        (method, seed, count, accuracy)
        for (method, seed), trial in study.of(*looks).iterrows()
        for of_task in zip(trial.class_images or (), trial.class_accuracy or (), strict=False)
        for count, accuracy in zip(*of_task, strict=False)
    ]
    classes = pd.DataFrame(rows, columns=["method", "seed", "images", "accuracy"]).dropna().astype({"accuracy": float})
    if not classes.images.max() > 2 * classes.images.min():
        return None  # there is nothing to see where the classes are of about one size
    figure, (axes,) = _make_panels(1, 1, 6.8, 3.8)
    for name, of_method in classes.groupby("method", sort=False):
        groups = of_method.images
        if groups.nunique() > 12:  # groups of about as many classes, by their number of images
            groups = pd.qcut(groups, 8, labels=False, duplicates="drop")
        values = 100 * of_method.groupby(["seed", groups.rename("group")]).accuracy.mean().unstack()
        values.columns = of_method.images.groupby(groups).mean().clip(lower=0.5)
        _draw(axes, values, looks[name])
    axes.set(xlabel="training images of the class", ylabel="final test accuracy on the class (%)", xscale="log")
    return figure


def _draw_sensitivity(study: Study, looks: Looks) -> Figure | None:
    """Draw a panel for each parameter of each method that was swept."""
    panels = []
    for name in study.methods.index:
        tried = study.run[study.run.candidate_of == name]
        numbers = [{key: v for key, v in (of or {}).items() if type(v) in {int, float}} for of in tried.settings]
        settings = pd.DataFrame(numbers, tried.index, dtype=float)
        panels += [(name, key, values.dropna()) for key, values in settings.items() if values.nunique() > 1]
    if not panels:
        return None
    figure, grid = _make_panels(len(panels[:MAX_METHODS]), min(len(panels), 3), 3.4, 2.8)
    for axes, (name, key, values) in zip(grid, panels, strict=False):
        _draw_parameter(axes, study, name, key, values)
    figure.supylabel("mean accuracy (%)")
    return figure


def _draw_parameter(axes: Axes, study: Study, name: str, parameter: str, values: pd.Series) -> None:
    """Draw accuracy against a parameter's values, given by candidate; of several with a value, the best counts."""
    method, look = study.methods.loc[name], _look(study, name)
    axes.set(title=_text(method.label, 40), xlabel=_text(parameter, 40))
    places = sorted(values.unique())
    if places[0] > 0 and places[-1] / places[0] >= 20:
        axes.set_xscale("log")
    elif places[0] == 0 and places[-1] / places[1] >= 20:
        axes.set_xscale("symlog", linthresh=places[1])
    sound = values[study.summary.diverged[values.index] == ""]
    validation = study.by_seed("validation_accuracy")[sound.index].mean()
    best = validation.fillna(0).groupby(sound).idxmax()
    for key, label, dashes, fill in (
        ("validation_accuracy", "validation data", DASHES[1], "white"),
        ("accuracy", "test data", "-", look["color"]),
    ):
        scores = 100 * study.by_seed(key)[best].set_axis(best.index, axis="columns")
        if scores.notna().any(axis=None):
            _draw(axes, scores, look | {"linestyle": dashes, "markerfacecolor": fill, "label": label})
    lost = [value for value in places if value not in best.index]
    if lost:
        at_bottom = axes.get_xaxis_transform()
        axes.plot(lost, [0.03] * len(lost), "x", color=COLOURS[-1], markersize=7, transform=at_bottom, label="diverged")
    for settings, label, dashes in ((method.settings, "chosen", "-"), (method.published, "the script's own", ":")):
        value = (settings or {}).get(parameter)
        if isinstance(value, int | float):
            axes.axvline(value, color=BOUND, linestyle=dashes, linewidth=1.2, label=label, zorder=0)


class Kind(NamedTuple):
    """A kind of figure: what draws it, if there is anything to draw, its caption, and what its error bars are."""

    draw: Callable[[Study, Looks], Figure | None]
    caption: str
    bars: str = ""


KINDS = {
    "accuracy": Kind(_draw_accuracy, "Mean test accuracy on the tasks learned so far, after each task", "band"),
    "panels": Kind(
        _draw_panels, "Test accuracy on each task against the tasks trained, and mean over tasks seen", "band"
    ),
    "tasks": Kind(_draw_tasks, "Final test accuracy on each task, and their mean", "whisker"),
    "classes": Kind(_draw_classes, "Final test accuracy on classes against their number of training images", "whisker"),
    "sensitivity": Kind(
        _draw_sensitivity, "Mean accuracy after the last task against the parameters of a sweep", "whisker"
    ),
    "matrix": Kind(
        _draw_matrices,
        "Accuracy matrix R in percent, mean over trials: test accuracy on each task (column) after each task (row). "
        "Grey: tasks not learned yet",
    ),
}
"""The kinds of figures of a study, by the stem of their files."""


def captions(study: Study) -> dict[str, str]:
    """Return the captions of the figures that were written, by file."""
    files = {kind: study.file(kind, "svg") for kind in KINDS}
    return {file.name: _caption(KINDS[kind]) for kind, file in files.items() if file.is_file()}


def _caption(kind: Kind) -> str:
    return f"{kind.caption}; {kind.bars}s: one standard error." if kind.bars else f"{kind.caption}."


def draw(kind: str, study: Study) -> Figure | None:
    """Draw a figure of the methods with trials that did not diverge; None where there is nothing to show."""
    methods = study.summary[study.summary.n > 0]
    methods = methods[(methods.candidate_of != "") == (kind == "sensitivity")]
    if kind in {"panels", "matrix"}:
        methods = methods[[study.in_sequence(name) for name in methods.index]]
    shown = methods if kind == "sensitivity" else methods[:MAX_METHODS]
    looks = {}
    for row in shown.itertuples():
        note = f" (n = {row.n})" if shown.n.nunique() > 1 else ""
        looks[row.method] = _look(study, row.method) | {"label": _text(row.label, 40) + note}
    figure = KINDS[kind].draw(study, looks) if looks else None
    if figure is not None:
        seeds = " to ".join(str(count) for count in dict.fromkeys([shown.n.min(), shown.n.max()]))
        bars = KINDS[kind].bars
        partial = "; ".join([*filter(None, [study.deviation]), *study.partial_data(*looks)])
        notes = [
            "one seed" if seeds == "1" else f"n = {seeds} seeds",
            f"{bars} = standard error" if bars and shown.n.max() > 1 else "",
            f"partial: {partial}" if partial else "",
            *(f"{row.label} {row.diverged}" for row in shown.itertuples() if row.diverged),
            f"the first {MAX_METHODS} methods" if len(shown) < len(methods) else "",
        ]
        _explain(figure, study.heading, "; ".join(filter(None, notes)))
    return figure


def _explain(figure: Figure, *texts: str) -> None:
    """Write texts above a figure, and explain its looks beside it."""
    handles = {k: v for axes in figure.axes for v, k in zip(*axes.get_legend_handles_labels(), strict=True)}
    inches = figure.get_figwidth()
    if handles:
        figure.legend(list(handles.values()), list(handles), loc="outside right upper")
        inches -= 0.9 + 0.09 * max(map(len, handles))
    lines = [line for text in texts for line in textwrap.wrap(_text(text), max(30, int(13 * inches)))]
    figure.set_figheight(max(figure.get_figheight(), 0.21 * len(handles) + 0.8) + 0.17 * len(lines))
    figure.suptitle("\n".join(lines), x=0.01, ha="left")


def write_figures(study: Study) -> None:
    """Write the figures of a study; those of trials that are there no more are removed."""
    for kind in KINDS:
        for ending in ("png", "svg"):
            study.file(kind, ending).unlink(missing_ok=True)
        with matplotlib.rc_context(STYLE):
            figure = draw(kind, study)
            if figure is not None:
                save_figure(figure, study.folder / f"{kind}{study.suffix}")


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
    for file in files:
        content = BytesIO()
        # Texts in an SVG file stay texts, names in it are the same each time, and it has no date.
        options: dict[str, Any] = {"metadata": {"Date": None}} if file.suffix == ".svg" else {"dpi": 160}
        with matplotlib.rc_context(TEXTS | {"svg.hashsalt": stem.name}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")
            figure.savefig(content, format=file.suffix[1:], **options)
        write_bytes(file, content.getvalue().replace(b"</style>", DARK_PAGE.encode(), 1))
    return files

"""Small line plots of single trials as SVG text, compact enough for hundreds of them in one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 240, 132
LEFT, RIGHT, TOP, BOTTOM = 46, 232, 8, 112  # of the plotting area
POINTS = 120  # of a line at most; the plotting area is not 200 units wide
STYLES = 10
"""Number of line styles; the page's style sheet defines classes ``k0`` to ``k9``."""

Line = list[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """A plot of one trial.

    Attributes:
        title: What is plotted.
        svg: The plot.
        names: What its lines are, by style.
    """

    title: str
    svg: str
    names: tuple[str, ...]


def panels(trial: dict[str, Any], low: float = 0.0) -> list[Panel]:
    """Plot all curves that a trial's result holds.

    Args:
        trial: The result.
        low: Lower end of the axis of accuracies, in percent.

    Returns:
        Accuracy on each task while tasks are learned, validation error by epoch and task, and the dynamics of DHP
        layers (eta, ||Hebb||, ||alpha||), as far as they are there.
    """
    plots = []
    matrix = trial["accuracy_matrix"]
    if matrix is not None:
        lines: list[Line] = [[(t + 1, 100 * matrix[t][i]) for t in range(i, len(matrix))] for i in range(len(matrix))]
        names = [f"task {i + 1}" for i in range(len(matrix))]
        plots.append(panel("test accuracy on each task (%)", "tasks learned", lines, names, low=low, high=100.0))
    errors = trial.get("validation_error") or []
    if any(errors):
        lines, start = [], 0
        for by_epoch in errors:
            lines.append([(start + epoch + 1, 100 * error) for epoch, error in enumerate(by_epoch)])
            start += len(by_epoch)
        names = [f"task {i + 1}" for i in range(len(errors))] if len(errors) > 1 else ["all tasks"]
        plots.append(panel("validation error (%)", "epochs", lines, names, low=0.0))
    dynamics = trial.get("hebbian_dynamics") or {}
    for key, title in (("eta", "eta"), ("hebb", "‖Hebb‖"), ("alpha", "‖alpha‖")):
        lines = [_finite(layer["step"], layer[key]) for layer in dynamics.values()]
        if any(lines):
            plots.append(panel(title, "steps", lines, list(dynamics)))
    return plots


def _finite(steps: Sequence[int], values: Sequence[float | None]) -> Line:
    return [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]


def panel(
    title: str,
    across: str,
    lines: Sequence[Line],
    names: Sequence[str],
    *,
    low: float | None = None,
    high: float | None = None,
) -> Panel:
    """Plot lines. A line of one point is a dot.

    Args:
        title: What is plotted.
        across: What the horizontal axis is.
        lines: Points (x, y) of each line, one line at least with points.
        names: What the lines are.
        low: Lower end of the vertical axis; default: the least value.
        high: Upper end; default: the greatest value.

    Returns:
        The plot.
    """
    points = [point for line in lines for point in line]
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low = min(y for _, y in points) if low is None else low
    high = max(y for _, y in points) if high is None else high

    def place(x: float, y: float) -> str:
        # In the middle where all values are the same.
        h = (x - left) / (right - left) if right > left else 0.5
        v = (y - low) / (high - low) if high > low else 0.5
        return f"{LEFT + h * (RIGHT - LEFT):.1f},{BOTTOM - v * (BOTTOM - TOP):.1f}"

    parts = [f'<path class="frame" d="M{LEFT},{TOP}V{BOTTOM}H{RIGHT}"/>']
    texts = [(LEFT - 4, BOTTOM, "end", low), (LEFT - 4, TOP + 7, "end", high)]
    texts += [(LEFT, BOTTOM + 12, "start", left), (RIGHT, BOTTOM + 12, "end", right)]
    parts += [f'<text x="{x}" y="{y}" text-anchor="{a}">{v:.3g}</text>' if abs(v) < 1000 else
              f'<text x="{x}" y="{y}" text-anchor="{a}">{v:.0f}</text>' for x, y, a, v in texts]  # fmt: skip
    parts.append(f'<text x="{(LEFT + RIGHT) // 2}" y="{BOTTOM + 12}" text-anchor="middle">{escape(across)}</text>')
    for index, line in enumerate(lines):
        style = index % STYLES
        if len(line) == 1:
            x, y = place(*line[0]).split(",")
            parts.append(f'<circle class="k{style}" cx="{x}" cy="{y}" r="2"/>')
        elif line:
            shown = " ".join(place(x, y) for x, y in thin_out(line))
            parts.append(f'<polyline class="k{style}" points="{shown}"/>')
    label = f"{title} over {across}; " + "; ".join(
        f"{name} ends at {line[-1][1]:.3g}" for name, line in zip(names, lines, strict=True) if line
    )
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    return Panel(title, svg, tuple(names))


def thin_out(line: Line) -> Line:
    """Leave points out of a long line, evenly; its ends stay.

    Args:
        line: The points.

    Returns:
        Few enough points.
    """
    if len(line) <= POINTS:
        return line
    step = (len(line) - 1) / (POINTS - 1)
    return [line[round(index * step)] for index in range(POINTS)]

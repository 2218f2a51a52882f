import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from studies import PAPER, outcome, study, trial

from avsi.experiment.figures import KINDS, accuracy_figure, heat_map, matrix_figure, save_figure, tasks_figure

TWO_RUNS = (trial(0), trial(1, (0.7, 0.8, 0.9)))


def test_curves_are_means_over_the_tasks_seen_with_bands_and_bounds_are_lines():
    figure = accuracy_figure(study(outcome("si", *TWO_RUNS), outcome("joint", *TWO_RUNS, regime="joint")))
    (axes,) = figure.axes
    curve, bound = axes.lines
    assert list(curve.get_xdata()) == [1, 2, 3]
    expected = [(0.88 + 0.68) / 2, (0.89 + 0.79 + 0.69 + 0.79) / 4, (0.9 + 0.8 + 1.0 + 0.7 + 0.8 + 0.9) / 6]
    assert list(curve.get_ydata()) == pytest.approx([100 * e for e in expected])
    assert bound.get_ydata()[0] == pytest.approx(85.0)
    (band,) = axes.collections
    after_first = band.get_paths()[0].vertices[band.get_paths()[0].vertices[:, 0] == 1, 1]
    assert (after_first.min(), after_first.max()) == pytest.approx((68.0, 88.0))  # 78 +- 10
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["SI", "JOINT"]


def test_one_seed_has_no_band():
    (axes,) = accuracy_figure(study(outcome("si", trial()))).axes
    assert not axes.collections


def many(count=15):
    return study(*(outcome(f"m{index}", *TWO_RUNS) for index in range(count)))


def test_methods_are_told_apart_without_colour():
    (axes,) = accuracy_figure(many()).axes
    looks = {(line.get_marker(), line.get_markerfacecolor() == "white", str(line._unscaled_dash_pattern))
             for line in axes.lines}  # fmt: skip
    assert len(looks) == 15
    bars = tasks_figure(many()).axes[0].containers
    hatches = {container[0].get_hatch() for container in bars if hasattr(container[0], "get_hatch")}
    assert len(hatches) == 15


def test_bars_are_final_accuracies_by_task_with_whiskers_and_the_papers_values():
    figure = tasks_figure(study(outcome("si", *TWO_RUNS, reported=PAPER), outcome("mas", trial())))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["task 1", "task 2", "task 3", "mean"]
    bars = {c.get_label(): c for c in axes.containers if c.get_label() in {"SI", "MAS"}}
    assert [bar.get_height() for bar in bars["SI"]] == pytest.approx([80, 80, 95, 85])
    assert [bar.get_height() for bar in bars["MAS"]] == pytest.approx([90, 80, 100, 90])
    assert bars["MAS"].errorbar is None
    (whiskers,) = bars["SI"].errorbar.lines[2]
    assert [np.ptp(segment[:, 1]) / 2 for segment in whiskers.get_segments()] == pytest.approx([10, 0, 5, 5])
    (paper,) = (line for line in axes.lines if line.get_label() == "paper")
    assert list(paper.get_ydata()) == [80.0, 85.0, 90.0, 90.0]
    assert list(paper.get_xdata()) == pytest.approx([bar.get_x() + bar.get_width() / 2 for bar in bars["SI"]])


def test_many_bars_take_several_rows_of_axes():
    figure = tasks_figure(many())
    assert [len(axes.get_xticks()) for axes in figure.axes] == [4]
    wide = study(*(outcome(f"m{index}", trial(0, (0.5,) * 10)) for index in range(14)))
    figure = tasks_figure(wide)
    assert [len(axes.get_xticks()) for axes in figure.axes] == [6, 5]


def test_matrix_shows_the_mean_of_r_for_sequential_methods():
    figure = matrix_figure(study(outcome("si", *TWO_RUNS), outcome("joint", *TWO_RUNS, regime="joint")))
    panel, _ = figure.axes
    assert panel.get_title() == "SI"
    assert panel.collections[0].get_array().reshape(3, 3)[0].tolist() == pytest.approx([78, 78, 93])
    assert [text.get_text() for text in panel.texts[:3]] == ["78", "78", "93"]


def test_nothing_to_show_is_no_figure():
    candidate = outcome("si_1", trial(), candidate_of="si")
    assert [kind.draw(study(candidate)) for kind in KINDS] == [None, None, None]
    assert matrix_figure(study(outcome("joint", trial(sequential=False), regime="joint"))) is None


def draw_heat_map(values, **options):
    figure = Figure()
    axes = figure.subplots()
    return figure, axes, heat_map(axes, values, **options)


def test_heat_map_writes_values_that_can_be_read_on_their_shade():
    _, axes, mesh = draw_heat_map([[0.0, 0.5], [float("nan"), 1.0]], rows=["a", "b"], columns=["c", "d"], low=0, high=1)
    texts = {text.get_position(): text for text in axes.texts}
    assert {place: text.get_text() for place, text in texts.items()} == {
        (0.5, 0.5): "0.00", (1.5, 0.5): "0.50", (1.5, 1.5): "1.00",
    }  # fmt: skip
    for (x, y), text in texts.items():
        shade = np.dot(mesh.to_rgba([[0.0, 0.5], [0.0, 1.0]][int(y)][int(x)])[:3], (0.299, 0.587, 0.114))
        assert abs(shade - to_rgb(text.get_color())[0]) > 0.45
    assert axes.get_ylim() == (2, 0)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["c", "d"]


def test_heat_map_darkens_steadily_also_in_grey():
    _, _, mesh = draw_heat_map(np.linspace(0, 1, 16).reshape(4, 4), form="")
    grey = mesh.to_rgba(np.linspace(0, 1, 16))[:, :3] @ (0.299, 0.587, 0.114)
    assert (np.diff(grey) < 0).all()


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([1.0, 2.0], {}, r"values of shape \(2,\)"),
        ([[]], {}, r"values of shape \(1, 0\)"),
        ([[1.0]], {"rows": ["a", "b"]}, "1 rows needs as many row labels, got 2"),
        ([[1.0]], {"columns": ["a", "b"]}, "1 columns needs as many column labels, got 2"),
    ],
)
def test_heat_map_refuses_what_is_no_matrix(values, options, message):
    with pytest.raises(ValueError, match=message):
        draw_heat_map(values, **options)


def test_figures_are_written_as_png_and_svg_the_same_every_time(tmp_path):
    contents = []
    for _ in range(2):
        files = save_figure(accuracy_figure(study(outcome("si", *TWO_RUNS))), tmp_path / "new" / "eta-0.1")
        contents.append([file.read_bytes() for file in files])
    assert [file.name for file in files] == ["eta-0.1.png", "eta-0.1.svg"]
    assert contents[0] == contents[1]
    assert contents[0][0].startswith(b"\x89PNG")
    assert b"tasks learned</text>" in contents[0][1]  # text stays text
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["eta-0.1.png", "eta-0.1.svg"]

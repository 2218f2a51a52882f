import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from studies import PAPER, diverged, outcome, study, trial

from avsi.results import heat_map, save_figure
from avsi.results.figures import COLOURS, KINDS, KNOWN, MAX_METHODS, draw

TWO_RUNS = (trial(0), trial(1, (0.7, 0.8, 0.9)))


def drawn(kind, *methods, **more):
    return draw(kind, study(*methods, **more))


def title(figure):
    return figure.get_suptitle().replace("\n", " ")


def test_curves_are_means_over_the_tasks_seen_with_bands_and_bounds_are_lines():
    figure = drawn("accuracy", outcome("si", *TWO_RUNS), outcome("joint", *TWO_RUNS, regime="joint"))
    (axes,) = figure.axes
    curve, bound = axes.lines
    assert list(curve.get_xdata()) == [1, 2, 3]
    expected = [(0.88 + 0.68) / 2, (0.89 + 0.79 + 0.69 + 0.79) / 4, (0.9 + 0.8 + 1.0 + 0.7 + 0.8 + 0.9) / 6]
    assert list(curve.get_ydata()) == pytest.approx([100 * e for e in expected])
    assert list(bound.get_ydata()) == pytest.approx([85.0, 85.0])
    points = axes.collections[0].get_paths()[0].vertices
    after_first = points[points[:, 0] == 1, 1]
    assert (after_first.min(), after_first.max()) == pytest.approx((68.0, 88.0))  # 78 +- 10
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["SI", "JOINT"]


def test_figures_say_how_many_seeds_what_the_band_is_and_what_is_partial():
    assert title(drawn("accuracy", outcome("si", trial()))) == "Tiny one seed"
    figure = drawn("accuracy", outcome("si", *TWO_RUNS), deviation="1 epoch instead of 2")
    assert (
        title(figure) == "Tiny (1 epoch instead of 2) n = 2 seeds; band = standard error; partial: 1 epoch instead of 2"
    )
    figure = drawn("tasks", outcome("si", *TWO_RUNS), outcome("mas", trial(complete=False), diverged(1, 0.5)))
    assert title(figure) == (
        "Tiny n = 1 to 2 seeds; whisker = standard error; partial: mnist (train), 10 of 20 images; "
        "MAS diverged (1 of 2), stable strength 0.5"
    )
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["SI (n = 2)", "MAS (n = 1)"]
    assert not drawn("accuracy", outcome("si", trial())).axes[0].collections


def looks(figure):
    lines = [line for line in figure.axes[0].lines if line.get_marker() not in {"None", None, "_"}]
    return [(line.get_color(), line.get_marker(), line.get_markerfacecolor()) for line in lines]


def test_a_method_looks_the_same_in_every_figure_whoever_else_is_there():
    si, mas, own = outcome("si", *TWO_RUNS), outcome("mas", *TWO_RUNS), outcome("own", *TWO_RUNS)
    everyone = looks(drawn("accuracy", si, mas, own))
    assert looks(drawn("tasks", si, mas, own)) == everyone
    assert looks(drawn("accuracy", outcome("si"), mas, own)) == everyone[1:]
    assert looks(drawn("accuracy", mas, si)) == everyone[1::-1]


def test_methods_are_told_apart_with_and_without_colour():
    methods = [outcome(f"m{index}", trial()) for index in range(MAX_METHODS + 6)]
    figure = drawn("accuracy", *methods)
    assert len(set(looks(figure))) == MAX_METHODS
    assert title(figure) == f"Tiny one seed; the first {MAX_METHODS} methods"
    known = drawn("accuracy", *(outcome(name, trial()) for name in KNOWN[:13]))
    assert len({marker for _, marker, _ in looks(known)}) == 13


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return np.dot(linear, (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize("page", ["#ffffff", "#16181b"])
def test_colours_can_be_seen_on_light_and_dark_pages(page):
    for colour in COLOURS:
        light, dark = sorted((luminance(colour), luminance(page)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3, colour


def test_dots_are_final_accuracies_by_task_with_whiskers_training_and_the_papers_values():
    si = outcome("si", *(run | {"train_accuracy": [0.95, 0.9, 1.0]} for run in TWO_RUNS), reported=PAPER)
    figure = drawn("tasks", si, outcome("mas", trial()))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["task 1", "task 2", "task 3", "mean"]
    values = [list(line.get_ydata()) for line in axes.lines]
    assert values[0] == pytest.approx([80, 80, 95, 85])
    assert values[1] == pytest.approx([90, 80, 100, 90])
    assert values[2] == pytest.approx([95, 90, 100, 95])
    assert values[3] == [80.0, 85.0, 90.0, 90.0]
    whiskers = axes.containers[0].lines[2][0]
    assert [np.ptp(segment[:, 1]) / 2 for segment in whiskers.get_segments()] == pytest.approx([10, 0, 5, 5])
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "SI (n = 2)",
        "MAS (n = 1)",
        "pale: training accuracy",
        "paper",
    ]
    assert axes.get_ylim()[0] > 60  # fitted


def test_many_dots_take_several_rows_of_axes_and_dozens_of_tasks_have_none():
    many = [outcome(f"m{index}", trial(0, (0.5,) * 10)) for index in range(14)]
    assert [len(axes.get_xticks()) for axes in drawn("tasks", *many).axes] == [6, 5]
    (axes,) = drawn("tasks", outcome("si", trial(0, (0.5,) * 20))).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == [*map(str, range(1, 21)), "mean"]
    assert drawn("tasks", outcome("si", trial(0, (0.5,) * 21))) is None


def test_matrix_shows_the_mean_of_r_with_tasks_not_learned_yet_in_grey():
    figure = drawn("matrix", outcome("si", *TWO_RUNS), outcome("joint", *TWO_RUNS, regime="joint"))
    panel = figure.axes[0]
    assert panel.get_title() == "SI"
    cells = panel.collections[0].get_array().reshape(3, 3)
    assert cells.mask.tolist() == np.triu(np.ones((3, 3), bool), 1).tolist()
    assert cells[2].tolist() == pytest.approx([80, 80, 95])
    assert [text.get_text() for text in panel.texts[:3]] == ["78", "78", "93"]


def test_matrices_are_of_methods_that_learn_one_task_after_the_other():
    odd = outcome("joint", trial(), trial(1, sequential=False), regime="joint")  # as no run writes it
    assert [axes.get_title() for axes in drawn("matrix", outcome("si", *TWO_RUNS), odd).axes] == ["SI", ""]


def test_panels_show_each_task_from_when_it_was_trained_and_the_mean_over_tasks_seen():
    figure = drawn("panels", outcome("si", *TWO_RUNS), outcome("joint", *TWO_RUNS, regime="joint"))
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == ["task 1", "task 2", "task 3", "mean of tasks seen"]
    assert [len(axes.lines) for axes in panels] == [1] * 4  # joint training has no order of tasks
    first, second, third, mean = (axes.lines[0] for axes in panels)
    assert list(first.get_xdata()) == [1, 2, 3]
    assert list(first.get_ydata()) == pytest.approx([78, 79, 80])
    assert list(second.get_xdata()) == [2, 3]
    assert list(third.get_ydata()) == pytest.approx([95])
    assert list(mean.get_ydata()) == pytest.approx([78, (89 + 79 + 69 + 79) / 4, 85])
    assert drawn("panels", outcome("si", trial(0, (0.5,) * 40))) is None


def test_classes_are_grouped_by_their_number_of_images():
    classes = {"class_accuracy": [[0.1, 0.9, 0.5]] * 3, "class_images": [[1, 1000, 100]] * 3}
    figure = drawn("classes", outcome("si", trial(0, **classes), trial(1, **classes)), outcome("mas", trial()))
    line = figure.axes[0].lines[0]
    assert list(line.get_xdata()) == pytest.approx([1, 100, 1000])
    assert list(line.get_ydata()) == pytest.approx([10, 50, 90])
    assert figure.axes[0].get_xscale() == "log"


def test_classes_are_drawn_where_their_numbers_of_images_are_known_and_uneven():
    accuracy = {"class_accuracy": [[0.1, None], [0.3, 0.5], [0.2, 0.7]]}
    assert drawn("classes", outcome("si", trial(0, **accuracy))) is None
    assert drawn("classes", outcome("si", trial(0, **accuracy, class_images=[[100, 120]] * 3))) is None
    line = drawn("classes", outcome("si", trial(0, **accuracy, class_images=[[10, 50]] * 3))).axes[0].lines[0]
    assert [list(line.get_xdata()), list(line.get_ydata())] == [[10, 50], pytest.approx([20, 60])]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_show_is_no_figure(kind):
    assert drawn(kind, outcome("si_1", trial(), candidate_of="si")) is None
    assert drawn(kind, outcome("si", diverged())) is None
    if kind in {"matrix", "classes", "panels"}:
        assert drawn(kind, outcome("joint", trial(sequential=False), regime="joint")) is None


def draw_heat_map(values, **options):
    figure = Figure()
    axes = figure.subplots()
    return figure, axes, heat_map(axes, values, **options)


def test_heat_map_writes_values_that_can_be_read_on_their_shade():
    _, axes, mesh = draw_heat_map([[0.0, 0.5], [float("nan"), 1.0]], low=0, high=1)
    texts = {text.get_position(): text for text in axes.texts}
    assert {place: text.get_text() for place, text in texts.items()} == {
        (0.5, 0.5): "0.00", (1.5, 0.5): "0.50", (1.5, 1.5): "1.00",
    }  # fmt: skip
    for (x, y), text in texts.items():
        shade = np.dot(mesh.to_rgba([[0.0, 0.5], [0.0, 1.0]][int(y)][int(x)])[:3], (0.299, 0.587, 0.114))
        assert abs(shade - to_rgb(text.get_color())[0]) > 0.45
    assert axes.get_ylim() == (2, 0)
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["1", "2"]


def test_heat_map_darkens_steadily_also_in_grey():
    _, _, mesh = draw_heat_map(np.linspace(0, 1, 16).reshape(4, 4), form="")
    grey = mesh.to_rgba(np.linspace(0, 1, 16))[:, :3] @ (0.299, 0.587, 0.114)
    assert (np.diff(grey) < 0).all()


@pytest.mark.parametrize(
    ("values", "message"), [([1.0, 2.0], r"values of shape \(2,\)"), ([[]], r"values of shape \(1, 0\)")]
)
def test_heat_map_refuses_what_is_no_matrix(values, message):
    with pytest.raises(ValueError, match=message):
        draw_heat_map(values)


def test_figures_are_written_as_png_and_svg_the_same_every_time(tmp_path):
    contents = []
    for _ in range(2):
        files = save_figure(drawn("accuracy", outcome("si", *TWO_RUNS)), tmp_path / "new" / "eta-0.1")
        contents.append([file.read_bytes() for file in files])
    assert [file.name for file in files] == ["eta-0.1.png", "eta-0.1.svg"]
    assert contents[0] == contents[1]
    assert contents[0][0].startswith(b"\x89PNG")
    assert b"tasks learned</text>" in contents[0][1]  # text stays text
    assert b"prefers-color-scheme: dark" in contents[0][1]
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["eta-0.1.png", "eta-0.1.svg"]

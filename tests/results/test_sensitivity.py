"""What is made of a sweep: the curve, and which trials count."""

from studies import diverged, entry, outcome, study, trial, write

from avsi.results import trials
from avsi.results.figures import draw
from avsi.results.study import read_studies
from avsi.results.tables import tables


def candidate(strength, validation, test=0.9, **more):
    run = trial(tasks=(test,), validation_accuracy=validation)
    return outcome(
        f"si,strength={strength:g}", run, candidate_of="si", folder=f"si-{strength:g}",
        settings={"strength": strength} | more,
    )  # fmt: skip


def swept(*candidates, chosen=1, published=0.1):
    method = candidates[chosen] | {
        "name": "si",
        "label": "SI",
        "candidate_of": "",
        "published": {"strength": published},
    }
    return study(method, *candidates)


def points(axes, label):
    (found,) = (c for c in axes.containers if c.get_label() == label)
    return [tuple(point.round(6).tolist()) for point in found.lines[0].get_xydata()]


def test_accuracies_stand_against_the_strength():
    figure = draw(
        "sensitivity", swept(candidate(0.1, 0.7, 0.6), candidate(10.0, 0.9, 0.8), candidate(1000.0, 0.5, 0.95))
    )
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert points(axes, "validation data") == ([(0.1, 70), (10, 90), (1000, 50)])
    assert points(axes, "test data") == ([(0.1, 60), (10, 80), (1000, 95)])
    marks = {
        line.get_label(): line.get_xdata()[0]
        for line in axes.lines
        if line.get_label() in {"chosen", "the script's own"}
    }
    assert marks == {"chosen": 10.0, "the script's own": 0.1}


def test_strengths_that_diverged_are_marked_and_on_no_curve():
    lost = outcome("si,strength=100", diverged(), candidate_of="si", folder="si-100", settings={"strength": 100.0})
    figure = draw("sensitivity", swept(candidate(1.0, 0.7), candidate(10.0, 0.9), lost))
    (axes,) = figure.axes
    (cross,) = (line for line in axes.lines if line.get_label() == "diverged")
    assert list(cross.get_xdata()) == [100.0]
    assert [x for x, _ in points(axes, "test data")] == [1.0, 10.0]


def test_each_of_several_parameters_has_a_panel_with_the_best_of_the_others():
    made = [candidate(s, v, t, damping=d) for s, d, v, t in (
        (1.0, 0.1, 0.7, 0.5), (1.0, 1.0, 0.8, 0.6), (2.0, 0.1, 0.9, 0.7), (2.0, 1.0, 0.6, 0.9)
    )]  # fmt: skip
    made = [c | {"name": f"{c['name']},{index}", "folder": f"si-{index}"} for index, c in enumerate(made)]
    figure = draw("sensitivity", swept(*made))
    by_name = {axes.get_xlabel(): axes for axes in figure.axes}
    assert points(by_name["strength"], "test data") == ([(1.0, 60), (2.0, 70)])
    assert points(by_name["damping"], "test data") == ([(0.1, 70), (1.0, 60)])


def test_without_a_sweep_there_is_no_curve():
    assert draw("sensitivity", study(outcome("si", trial()))) is None
    words = [candidate(1.0, 0.7) | {"name": f"si,labels={w}", "settings": {"labels": w}} for w in ("exact", "sampled")]
    assert draw("sensitivity", swept(*words, chosen=0)) is None


def test_only_the_seeds_that_a_study_names_count(tmp_path):
    """The chosen setting shares a folder with its candidate, and must not be judged by the seed it was chosen with."""
    tried = entry("si,strength=1", folder="si-0123456789", candidate_of="si", seeds=[0], settings={"strength": 1.0})
    chosen = entry("si", seeds=[1, 2], settings={"strength": 1.0}, published={"strength": 1.0})
    results = [(chosen, trial(seed, validation_accuracy=0.5)) for seed in range(4)]
    write(tmp_path, chosen, tried, trials=results)
    (found,), problems = read_studies(tmp_path / "tiny")
    assert not problems
    assert list(found.trials.index) == [("si", 1), ("si", 2), ("si,strength=1", 0)]
    assert sorted(trials(tmp_path).seed) == [0, 1, 2]
    table = tables(found)["Choosing strengths"]
    assert "the script's own" in table.loc["SI,STRENGTH=1", "chosen"]
    broken = entry("si", seeds="1", settings=[1])
    write(tmp_path, broken, tried, name="broken")
    assert "seeds" in read_studies(tmp_path / "broken")[1][0]

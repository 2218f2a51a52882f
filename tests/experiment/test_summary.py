import csv
import io
import statistics
from dataclasses import replace
from math import sqrt

import pytest
from studies import PAPER, outcome, study, trial

from avsi.experiment.spec import Reported
from avsi.experiment.summary import (
    Estimate,
    Rows,
    accuracy_table,
    cautions,
    comma_separated,
    markdown,
    strengths_table,
    tables,
    tasks_table,
)


def test_estimate_is_mean_and_standard_error():
    values = [0.5, 0.7, 0.9]
    estimate = Estimate.of(values)
    assert estimate.mean == pytest.approx(0.7)
    assert estimate.error == pytest.approx(statistics.stdev(values) / sqrt(3))
    assert estimate.text(scale=100) == "70.00 ± 11.55"
    assert Estimate.of([0.5]).text() == "0.50"


def test_markdown_tables_keep_their_columns_whatever_the_cells_hold():
    assert Rows("T", ("a|b", "c"), (("x|y", "1"),)).markdown() == (
        "## T\n\n| a\\|b | c |\n| --- | ---: |\n| x\\|y | 1 |\n"
    )


def test_accuracies_stand_beside_the_papers_values():
    table = accuracy_table(study(outcome("si", trial(0), trial(1, (0.9, 0.9, 0.9)), reported=PAPER)))
    assert table.columns == ("method", "accuracy %", "paper", "diff.", "BWT", "(paper)", "(diff.)", "n")
    assert table.rows == (
        ("SI", "90.00 ± 0.00", "90.00", "+0.00", "-0.250 ± 0.000", "-0.10", "-0.15", "2"),
    )  # fmt: skip


def test_differences_are_measured_minus_reported_and_no_zero_is_negative():
    above, below = outcome("a", trial(), reported=Reported(88.5)), outcome("b", trial(), reported=Reported(90.004))
    (_, *_, first, _, _), (_, *_, second, _, _) = accuracy_table(study(above, below)).rows
    assert (first, second) == ("+1.50", "+0.00")


def test_papers_columns_are_left_out_where_it_reports_nothing():
    table = accuracy_table(study(outcome("joint", trial(sequential=False), regime="joint")))
    assert table.columns == ("method", "accuracy %", "n")
    assert table.rows == (("JOINT", "90.00", "1"),)


def test_partial_data_and_protocol_are_named_in_the_row():
    whole, partial = outcome("si", trial()), outcome("mas", trial(complete=False))
    table = accuracy_table(study(whole, partial))
    assert (table.columns[-1], [row[-1] for row in table.rows]) == ("partial", ["-", "data"])
    table = accuracy_table(study(whole, partial, deviation="1 epochs instead of 2"))
    assert [row[-1] for row in table.rows] == ["protocol", "protocol, data"]


def test_accuracies_by_task_have_the_papers_values_below():
    table = tasks_table(study(outcome("si", trial(0), trial(1, (0.9, 0.9, 0.9)), reported=PAPER)))
    assert table.columns == ("accuracy %", "task 1", "task 2", "task 3")
    assert table.rows == (("SI", "90.0", "85.0", "95.0"), ("SI (paper)", "80.0", "85.0", "90.0"))


def candidates(*validation, chosen=1):
    """A method with candidates; the chosen one has more seeds, and shares its trials with the method."""
    found = []
    for index, value in enumerate(validation):
        trials = [trial(0, (0.5 + 0.1 * index,) * 3, validation_accuracy=value)]
        trials += [trial(seed, (0.1,) * 3, validation_accuracy=0.1) for seed in (1, 2) if index == chosen]
        found.append(outcome(f"si_{index}", *trials, folder=f"si-{index}", candidate_of="si"))
    return replace(found[chosen], name="si", label="SI", candidate_of=""), *found


def test_strengths_are_compared_on_common_seeds():
    method, *grid = candidates(0.7, 0.9, 0.8)
    grid[2] = replace(grid[2], reported=Reported(72.0))
    table = strengths_table(study(method, *grid))
    assert table.columns == ("method", "candidate", "validation accuracy %", "test accuracy %", "n", "chosen")
    assert table.rows == (
        ("si", "SI_0", "70.00", "50.00", "1", ""),
        ("si", "SI_1", "90.00", "60.00", "1", "highest, compared"),
        ("si", "SI_2", "80.00", "70.00", "1", "the paper's (72.00)"),
    )


def test_a_method_that_is_none_of_its_candidates_is_compared_with_them():
    method, *grid = candidates(0.7, 0.9, chosen=0)
    own = replace(method, folder="si-own", trials=(trial(0, validation_accuracy=0.8),))
    rows = strengths_table(study(own, *grid)).rows
    assert [(row[1], row[-1]) for row in rows] == [("SI_0", ""), ("SI_1", "highest"), ("SI", "compared")]


def test_candidates_of_older_files_have_no_validation_accuracy():
    method, *grid = candidates(None, None)
    assert [(row[2], row[-1]) for row in strengths_table(study(method, *grid)).rows] == [("-", ""), ("-", "compared")]


def test_candidates_are_in_no_other_table():
    method, *grid = candidates(0.7, 0.9)
    assert [row[0] for row in accuracy_table(study(method, *grid)).rows] == ["SI"]
    assert [row[0] for row in tasks_table(study(method, *grid)).rows] == ["SI"]
    assert [table.title for table in tables(study(*grid))] == []
    assert [table.title for table in tables(study(replace(method, trials=()), *grid))] == ["Choosing strengths"]


def test_cautions_tell_of_changed_protocols_partial_data_and_single_seeds():
    partial = outcome("si", trial(complete=False, notes=["partial: without svhn"]))
    assert cautions(study(partial, deviation="1 epochs instead of 2")) == [
        "Changed protocol: 1 epochs instead of 2.",
        "Partial data: mnist (train), 10 of 20 images.",
        "Partial data: without svhn.",
        "One seed only, no standard error: si.",
    ]
    assert cautions(study(outcome("si", trial(0), trial(1)))) == []


def test_cautions_tell_of_different_data():
    mixed = outcome("si", trial(0, complete=False), trial(1))
    assert "the trials used 2 different versions of mnist (train)" in "\n".join(cautions(study(mixed)))


def read_csv(found):
    return list(csv.DictReader(io.StringIO(comma_separated(found))))


def test_csv_has_a_row_for_each_method_and_names_units():
    method = outcome("si", trial(0), trial(1, (0.9, 0.9, 0.6)), reported=PAPER, label='SI, "c" = 1')
    (row,) = read_csv(study(method, protocol="zenke"))
    numbers = {name: float(value) for name, value in row.items() if name not in TEXTS and value}
    assert numbers == {
        "n": 2,
        "accuracy_mean_percent": pytest.approx(85, abs=1e-3),
        "accuracy_standard_error_percent": pytest.approx(5, abs=1e-3),
        "bwt_mean_fraction": -0.25,
        "bwt_standard_error_fraction": 0,
        "forgetting_mean_fraction": pytest.approx(-0.015),  # from R: older files have no such key
        "forgetting_standard_error_fraction": pytest.approx(0, abs=1e-9),
        "paper_accuracy_percent": 90,
        "accuracy_difference_percentage_points": pytest.approx(-5, abs=1e-3),
        "paper_bwt_fraction": -0.1,
        "bwt_difference_fraction": pytest.approx(-0.15),
    }
    assert {name: row[name] for name in TEXTS} == {
        "experiment": "tiny", "protocol": "zenke", "method": "si", "label": 'SI, "c" = 1', "seeds": "0 1",
        "partial_protocol": "", "partial_data": "", "candidate_of": "",
    }  # fmt: skip


TEXTS = ("experiment", "protocol", "method", "label", "seeds", "partial_protocol", "partial_data", "candidate_of")


def test_csv_prefers_what_is_recorded_and_leaves_out_what_is_not_there():
    bound = outcome("joint", trial(sequential=False, forgetting=None, complete=False), regime="joint")
    recorded = outcome("si", trial(forgetting=0.5, validation_accuracy=0.25), candidate_of="mas")
    bound_row, row = read_csv(study(bound, recorded, deviation="1 epochs instead of 2"))
    assert (row["forgetting_mean_fraction"], row["validation_accuracy_mean_percent"]) == ("0.5", "25")
    assert (row["accuracy_standard_error_percent"], row["candidate_of"]) == ("", "mas")
    assert (bound_row["forgetting_mean_fraction"], bound_row["bwt_mean_fraction"]) == ("", "")
    assert bound_row["partial_protocol"] == "1 epochs instead of 2"
    assert bound_row["partial_data"] == "mnist (train), 10 of 20 images"


def test_summary_says_what_a_reader_must_know_before_the_tables():
    text = markdown(study(outcome("si", trial()), protocol="zenke", deviation="1 epochs instead of 2"))
    head, *sections = text.split("\n## ")
    assert head.startswith("# Tiny, protocol zenke (1 epochs instead of 2)\n\nA paper.  \n")
    assert "Changed protocol: 1 epochs instead of 2." in head
    assert [section.splitlines()[0] for section in sections] == [
        "Mean over tasks after the last task",
        "Mean final accuracy by task",
    ]

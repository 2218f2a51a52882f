import csv
import io

import pandas as pd
import pytest
from studies import NO_PAPER, PAPER, diverged, outcome, study, trial

from avsi.results.tables import comma_separated, markdown, markdown_table, tables, terminal, terminal_table

MEANS, TASKS, STRENGTHS = "Mean over tasks after the last task", "Mean final accuracy by task", "Choosing strengths"


def rows(found, title=MEANS):
    table = tables(found)[title]
    return [*table.columns], [[index, *row] for index, row in zip(table.index, table.to_numpy().tolist(), strict=True)]


def test_accuracies_stand_beside_the_papers_values_and_the_first_methods():
    first = outcome("finetune", trial(0, (0.8, 0.8, 0.8)), trial(1, (0.6, 0.6, 0.6)), trial(2, (0.1, 0.1, 0.1)))
    si = outcome("si", trial(1, (0.9, 0.9, 0.9)), trial(0), reported=PAPER)
    columns, (_, row) = rows(study(first, si))
    assert columns == ["n", "accuracy %", "paired", "paper", "diff.", "BWT", "(paper)", "(diff.)"]
    # Paired: 10 points on seed 0 and 30 on seed 1, whatever seed 2 of the first.
    assert row == ["SI", "2", "90.00 ± 0.00", "+20.00 ± 10.00", "90.00", "+0.00", "-0.250 ± 0.000", "-0.10", "-0.15"]


def test_differences_are_measured_minus_reported_and_no_zero_is_negative():
    above = outcome("a", trial(), reported=NO_PAPER | {"accuracy": 88.5})
    below = outcome("b", trial(), reported=NO_PAPER | {"accuracy": 90.004})
    columns, found = rows(study(above, below))
    assert [row[1 + columns.index("diff.")] for row in found] == ["+1.50", "+0.00"]


def test_papers_columns_and_words_are_left_out_where_it_reports_nothing():
    found = study(outcome("joint", trial(sequential=False), regime="joint"), source="")
    assert rows(found) == (["n", "accuracy %"], [["JOINT", "1", "90.00"]])
    assert "paper" not in markdown(found)
    assert "paper" not in terminal(found)


def test_diverged_trials_and_partial_data_are_named_in_the_row():
    lost, some = outcome("a", diverged(0, 0.5)), outcome("b", diverged(), trial(1, complete=False))
    columns, (first, second) = rows(study(lost, some))
    assert (first[2], first[-1]) == ("diverged", "diverged (1 of 1), stable strength 0.5")
    assert (second[1:3], second[-1]) == (["1", "90.00"], "diverged (1 of 2); partial data")
    assert "A: diverged (1 of 1), stable strength 0.5." in markdown(study(lost, some, source=""))
    assert columns[-1] == "remarks"


def test_accuracies_by_task_have_the_papers_and_training_values_below():
    si = outcome("si", trial(0, train_accuracy=[1.0, 0.9, 0.95]), trial(1, (0.9, 0.9, 0.9)), reported=PAPER)
    assert rows(study(si, si | {"name": "x", "reported": NO_PAPER}), TASKS) == (
        ["task 1", "task 2", "task 3"],
        [
            ["SI (si)", "90.0", "85.0", "95.0"],  # by name, where labels are the same
            ["SI (si) (paper)", "80.0", "85.0", "90.0"],
            ["SI (si) (training)", "100.0", "90.0", "95.0"],
            ["SI (x)", "90.0", "85.0", "95.0"],
            ["SI (x) (training)", "100.0", "90.0", "95.0"],
        ],
    )


def candidates(*validation, chosen=1):
    """A method with candidates; the chosen one has more seeds, and shares its trials with the method."""
    found = []
    for index, value in enumerate(validation):
        trials = [trial(0, (0.5 + 0.1 * index,) * 3, validation_accuracy=value)]
        trials += [trial(seed, (0.1,) * 3, validation_accuracy=0.1) for seed in (1, 2) if index == chosen]
        found.append(outcome(f"si_{index}", *trials, folder=f"si-{index}", candidate_of="si"))
    return found[chosen] | {"name": "si", "label": "SI", "candidate_of": ""}, *found


def test_strengths_are_compared_on_common_seeds_and_diverged_ones_say_so():
    method, *grid = candidates(0.7, 0.9, 0.8)
    grid[2] |= {"reported": NO_PAPER | {"accuracy": 72.0}}
    lost = outcome("si_9", diverged(0, 0.5), folder="si-9", candidate_of="si")
    columns, found = rows(study(method, *grid, lost), STRENGTHS)
    assert columns == ["of", "validation %", "test %", "n", "chosen"]
    assert found == [
        ["SI_0", "si", "70.00", "50.00", "1", ""],
        ["SI_1", "si", "90.00", "60.00", "1", "highest, compared"],
        ["SI_2", "si", "80.00", "70.00", "1", "the paper's (72.00)"],
        ["SI_9", "si", "", "", "0", "diverged (1 of 1), stable strength 0.5"],
    ]


def test_candidates_that_diverged_or_were_given_up_are_not_the_highest_and_cost_the_others_no_seed():
    def tried(name, *validation):
        trials = [trial(seed, validation_accuracy=v) if v else diverged(seed, 0.5) for seed, v in enumerate(validation)]
        return outcome(f"si_{name}", *trials, folder=f"si-{name}", candidate_of="si", seeds=[0, 1])

    grid = tried("a", 0.6, 0.9), tried("b", 0.7, 0.7), tried("c", 0.95, None), tried("d", 0.99)
    method = grid[0] | {"name": "si", "label": "SI", "candidate_of": ""}
    _, found = rows(study(method, *grid), STRENGTHS)
    assert [(row[0], row[2][:5], row[4], row[5]) for row in found] == [
        ("SI_A", "75.00", "2", "highest, compared"),
        ("SI_B", "70.00", "2", ""),
        ("SI_C", "95.00", "1", "diverged (1 of 2), stable strength 0.5"),
        ("SI_D", "99.00", "1", ""),
    ]


def test_a_method_that_is_none_of_its_candidates_is_compared_with_them():
    method, *grid = candidates(0.7, 0.9, chosen=0)
    own = method | {"folder": "si-own", "trials": (trial(0, validation_accuracy=0.8),)}
    _, found = rows(study(own, *grid), STRENGTHS)
    assert [(row[0], row[-1]) for row in found] == [("SI_0", ""), ("SI_1", "highest"), ("SI", "compared")]


def test_candidates_are_in_no_other_table():
    method, *grid = candidates(0.7, 0.9)
    assert [[row[0] for row in rows(study(method, *grid), title)[1]] for title in (MEANS, TASKS)] == [["SI"], ["SI"]]
    assert [*tables(study(*grid))] == []
    assert [*tables(study(method | {"folder": "none", "trials": ()}, *grid))] == [STRENGTHS]


def test_cautions_tell_of_changed_protocols_partial_data_and_single_seeds():
    partial = outcome("si", trial(complete=False, notes=["partial: without svhn"]))
    text = markdown(study(partial, deviation="1 epoch instead of 2"))
    for line in ("Changed protocol: 1 epoch instead of 2.", "Partial data: mnist (train), 10 of 20 images.",
                 "Partial data: without svhn.", "One seed only, no standard error: si."):  # fmt: skip
        assert line in text
    clean = markdown(study(outcome("si", trial(0), trial(1))))
    assert not any(word in clean for word in ("Changed", "Partial", "One seed", "Different", "diverged"))


def test_cautions_tell_of_different_data_and_code():
    mixed = outcome("si", trial(0, complete=False, code="abc"), trial(1, code="abc"))
    text = markdown(study(mixed, outcome("mas", trial(0, code="def"))))
    assert "the trials used 2 different versions of mnist (train)" in text
    assert (
        "Different code: rows that are compared come from different versions of the package: abc (si); def (mas)."
        in text
    )
    assert "Different code" not in markdown(study(mixed))
    assert "unknown (mas)" in markdown(study(mixed, outcome("mas", trial(0))))


def test_markdown_tables_keep_their_columns_whatever_the_cells_hold():
    table = pd.DataFrame({"c_d": ["1"], "remarks": ["[a](b) <c> *d* `e` &lt; A & B"]}, pd.Index(["x|y"], name="a|b"))
    assert markdown_table(table) == (
        "| a\\|b | c_d | remarks |\n| --- | ---: | --- |\n"
        "| x\\|y | 1 | \\[a\\](b) \\<c> \\*d\\* \\`e\\` \\&lt; A & B |\n"
    )


@pytest.mark.parametrize("width", [80, 50, 200])
def test_no_column_vanishes_and_no_number_is_cut_on_a_narrow_terminal(width):
    labels = ["Online EWC, λ = 100", "DHP + Online EWC, λ = 100"]
    methods = [outcome(f"m{i}", *(trial(s, (0.9,) * 12) for s in range(2)), reported=PAPER, label=label)
               for i, label in enumerate(labels)]  # fmt: skip
    for table in tables(study(*methods)).values():
        text = terminal_table(table, width)
        assert all(len(line) <= width for line in text.splitlines())
        for cell in [*table.columns, *table.index, *table.to_numpy().ravel()]:
            assert cell in text


def test_csv_has_a_row_for_each_method_and_names_units():
    first = outcome("finetune", trial(0, (0.8, 0.8, 0.8)))
    si = outcome("si", trial(0), trial(1, (0.9, 0.9, 0.6)), diverged(2), reported=PAPER, label='SI, "c" = 1')
    _, row = csv.DictReader(io.StringIO(comma_separated(study(first, si, protocol="zenke", deviation="=1 epoch"))))
    expected = {
        "experiment": "tiny", "protocol": "zenke", "method": "si", "label": 'SI, "c" = 1', "n": "2", "seeds": "0 1 2",
        "accuracy_mean_percent": "85", "accuracy_standard_error_percent": "5", "bwt_mean_fraction": "-0.25",
        "bwt_standard_error_fraction": "0", "forgetting_mean_fraction": "0.25", "paper_accuracy_percent": "90",
        "paired_difference_mean_percentage_points": "10", "paired_difference_standard_error_percentage_points": "",
        "paper_bwt_fraction": "-0.1", "diverged": "diverged (1 of 3)", "partial_protocol": "'=1 epoch",
        "validation_accuracy_mean_percent": "", "candidate_of": "",
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected


def test_summary_says_what_a_reader_must_know_before_tables_and_figures():
    text = markdown(study(outcome("si", trial()), protocol="zenke"), {"accuracy.svg": "A caption."})
    head, *sections = text.split("\n## ")
    assert head.startswith("# Tiny, protocol zenke\n\nA paper.  \n")
    assert [section.splitlines()[0] for section in sections] == [MEANS, TASKS, "Figures"]
    assert "![A caption.](<accuracy.svg>)" in sections[-1]

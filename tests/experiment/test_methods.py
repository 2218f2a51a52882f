from dataclasses import replace

import pytest

from avsi.experiment import ExperimentError, Trial
from avsi.experiment.methods import grid, online_ewc


def test_candidates_are_told_apart_by_strength_and_share_the_chosen_ones_trials(experiment):
    candidates = grid(online_ewc, (10, 20, 0.5))
    assert [c.name for c in candidates] == ["online_ewc_10", "online_ewc_20", "online_ewc_0.5"]
    assert [c.strategy.keywords["strength"] for c in candidates] == [10.0, 20.0, 0.5]
    chosen = online_ewc(20.0)
    experiment = replace(experiment, methods=(chosen, *candidates))
    folders = [Trial(experiment, candidate, 0).folder for candidate in candidates]
    assert len(set(folders)) == 3
    assert folders.index(Trial(experiment, chosen, 0).folder) == 1


def test_a_candidate_of_nothing_is_refused(experiment):
    with pytest.raises(ExperimentError, match=r"online_ewc_10 is a candidate of online_ewc"):
        replace(experiment, methods=grid(online_ewc, (10,)))

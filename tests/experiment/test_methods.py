from functools import partial

import pytest

from avsi.experiment import ExperimentError, Method, methods
from avsi.models import MLP


def test_an_unknown_regime_is_refused_when_the_method_is_made():
    with pytest.raises(ExperimentError, match="regime must be one of sequential, independent, joint, got 'sequental'"):
        Method("plain", print, "sequental")


def test_references_are_avalanches_own_methods_and_bounds_and_dropout_where_there_is_a_network():
    without = methods.references(si=0.1, damping=0.2, ewc=3.0, mas=4.0)
    assert [method.name for method in without] == ["avalanche_si", "avalanche_ewc", "avalanche_mas", "scratch", "joint"]
    given = [method.strategy.keywords for method in without[:3]]
    assert given[0] == {"si_lambda": 0.1, "eps": 0.2}
    assert [given[1]["ewc_lambda"], given[2]["lambda_reg"]] == [3.0, 4.0]
    first, *others = methods.references(si=0.1, damping=0.2, ewc=3.0, mas=4.0, network=partial(MLP, 4, (3,), 2))
    assert [method.name for method in others] == [method.name for method in without]
    assert first.name == "dropout"
    assert first.model.keywords == {"dropout": 0.5}


def test_labels_say_which_labels_the_fisher_information_is_taken_over():
    assert methods.online_ewc(100.0).label == "Online EWC, λ = 100"
    assert methods.online_ewc(100.0, "exact", name="exact").label == "Online EWC, exact, λ = 100"

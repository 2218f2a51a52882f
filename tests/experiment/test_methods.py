from dataclasses import replace

import pytest

from avsi.experiment import ExperimentError, Method
from avsi.experiment.methods import online_ewc


def test_a_candidate_of_nothing_is_refused(experiment):
    with pytest.raises(ExperimentError, match=r"online_ewc_10 is a candidate of online_ewc"):
        replace(experiment, methods=(replace(online_ewc(10.0), name="online_ewc_10", candidate_of="online_ewc"),))


def test_an_unknown_regime_is_refused_when_the_method_is_made():
    with pytest.raises(ExperimentError, match="regime must be one of sequential, independent, joint, got 'sequental'"):
        Method("plain", print, "sequental")

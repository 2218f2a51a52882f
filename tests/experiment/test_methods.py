import pytest

from avsi.experiment import ExperimentError, Method


def test_an_unknown_regime_is_refused_when_the_method_is_made():
    with pytest.raises(ExperimentError, match="regime must be one of sequential, independent, joint, got 'sequental'"):
        Method("plain", print, "sequental")

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from avsi._arguments import as_number, check_count, check_flag, check_number


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3),
        (0.5, 0.5),
        (Fraction(1, 2), 0.5),
        (np.int64(3), 3),
        (np.uint8(3), 3),
        (np.float32(0.5), 0.5),
        (np.array(3), 3),
        (torch.tensor(3), 3),
        (torch.tensor(0.5), 0.5),
        (torch.nn.Parameter(torch.tensor(0.5)), 0.5),
    ],
)
def test_numbers_of_every_kind(value, number):
    assert as_number(value) == number
    assert type(as_number(value)) is type(number)


@pytest.mark.parametrize(
    "value",
    [True, np.True_, torch.tensor(True), "1", b"1", None, 1j, Decimal(1), [1], np.array([1]), torch.tensor([1]), type],
)
def test_what_is_no_number(value):
    assert as_number(value) is None
    with pytest.raises(TypeError, match="size must be a whole number, got"):
        check_count("size", value)


def test_counts():
    assert check_count("size", np.int32(2)) == 2
    for bad in (0, -1, torch.tensor(0)):
        with pytest.raises(ValueError, match=f"size must be at least 1, got {int(bad)}"):
            check_count("size", bad)
    for bad in (2.0, np.float64(2), float("nan")):
        with pytest.raises(TypeError, match="size must be a whole number, got"):
            check_count("size", bad)
    assert check_count("seed", 0, least=0) == 0
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        check_count("seed", -1, least=0)


def test_flags():
    assert check_flag("flag", np.True_) is True
    assert check_flag("flag", False) is False
    for bad in (1, "no", None, torch.tensor(True)):
        with pytest.raises(TypeError, match="flag must be True or False, got"):
            check_flag("flag", bad)


def test_numbers_in_a_range():
    assert check_number("rate", np.float32(0.5), "in [0, 1]", lambda value: 0 <= value <= 1) == 0.5
    assert type(check_number("rate", 1, "in [0, 1]", lambda value: 0 <= value <= 1)) is float
    for bad in (2, float("nan"), "1", None, True):
        error = ValueError if isinstance(bad, int | float) and bad is not True else TypeError
        with pytest.raises(error, match=r"rate must be in \[0, 1\], got"):
            check_number("rate", bad, "in [0, 1]", lambda value: 0 <= value <= 1)

"""Where samples are in a result: what is recognised, and what is not sure."""

import pytest
import torch

from avsi.importance.layouts import Layout, find_layout

ROWS = torch.randn(3, 4, 5)  # three samples, four places


def flattened(tensor, order):
    return (tensor if order == "slow" else tensor.transpose(0, 1)).flatten(0, 1)


def seen(samples, order, places, rows=ROWS):
    """The gradient for the first sample, which some of its places get, and the rows that were multiplied."""
    gradient = torch.zeros(samples, 4, 2)
    gradient[0, places] = 1
    return samples, flattened(gradient, order), flattened(rows[:samples], order)


@pytest.mark.parametrize("places", [[0], [2], [1, 3], [0, 1, 2, 3], []])
@pytest.mark.parametrize("order", ["slow", "fast"])
def test_places_and_samples_are_told_apart_whatever_the_gradient_reaches(order, places):
    two, three = seen(2, order, places), seen(3, order, places)
    layout = find_layout(two, three)
    assert layout == find_layout(three, two) == Layout(0, order)
    assert torch.equal(layout.samples_first(three[2], 3), ROWS)
    assert layout.fits(three[2], 3)
    assert not layout.fits(three[2], 5)
    assert not layout.fits(torch.tensor(0.0), 1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_samples_alone(axis):
    """Also where another dimension is as long as they are many."""
    gradients = [torch.zeros(samples, 2, 3).index_fill(0, torch.tensor([0]), 1).movedim(0, axis) for samples in (2, 3)]
    layout = find_layout((2, gradients[0], None), (3, gradients[1], None))
    assert layout == Layout(axis)
    assert layout.samples_first(gradients[1], 3).shape[0] == 3
    assert layout.fits(gradients[1], 3)
    assert not layout.fits(gradients[1].repeat_interleave(2, axis), 3)


def test_what_is_not_sure_is_no_layout():
    slow = seen(2, "slow", [0]), seen(3, "slow", [0])
    same = ROWS[:1, :1].expand(3, 4, 5)  # all samples alike at all places
    without_rows = [(samples, gradient, None) for samples, gradient, _ in slow]
    one, two, three = torch.ones(1, 2), torch.zeros(2, 4), torch.zeros(3, 4)
    assert find_layout(*slow)
    assert find_layout((2, two, None), (3, three, None))
    unsure = {
        "rows that tell nothing": (seen(2, "slow", [0], same), seen(3, "slow", [0], same)),
        "rows that are not known": without_rows,
        "rows of neither order": ((2, slow[0][1], torch.randn(8, 5)), (3, slow[1][1], torch.randn(12, 5))),
        "a gradient for others": ((2, two.index_fill(0, torch.tensor([1]), 1), None), (3, three, None)),
        "a gradient for others, again": ((2, two, None), (3, three.index_fill(0, torch.tensor([2]), 1), None)),
        "rows of another order": (
            (2, seen(2, "slow", [1])[1], seen(2, "fast", [1])[2]),
            (3, seen(3, "slow", [1])[1], seen(3, "fast", [1])[2]),
        ),
        "no dimension that grows": ((2, one, None), (3, one, None)),
        "a dimension that grows otherwise": ((2, two, None), (3, torch.zeros(5, 4), None)),
        "two dimensions that grow": ((2, torch.zeros(2, 2), None), (3, torch.zeros(3, 3), None)),
        "other dimensions": ((2, two, None), (3, torch.zeros(3, 4, 1), None)),
        "no gradient": ((2, two, None), (3, None, None)),
    }
    for why, (one, other) in unsure.items():
        assert find_layout(one, other) is None, why

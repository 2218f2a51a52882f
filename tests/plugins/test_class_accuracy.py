"""Accuracy by class, against counting by hand."""

import pytest
import torch
from torch import nn
from training import naive

from avsi.plugins.class_accuracy import ClassAccuracy
from avsi.scenarios import split_digits


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def counted(experience, model):
    found = {}
    for x, y, _ in experience.dataset.eval():
        found.setdefault(y, []).append(int(model(x[None]).argmax()) == y)
    return [sum(found[c]) / len(found[c]) if c in found else None for c in range(max(found) + 1)]


@pytest.mark.parametrize("tells", [True, False])
def test_rows_are_those_counted_by_hand(tells, monkeypatch):
    """Also where a benchmark does not say which classes there are."""
    benchmark = split_digits(scenario="class")
    experiences = list(benchmark.test_stream[:3])
    expected = [counted(experience, linear()) for experience in experiences]
    if not tells:
        for experience in experiences:
            monkeypatch.setattr(experience, "classes_in_this_experience", None)
    model, classes = linear(), ClassAccuracy()
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.1), [classes])
    strategy.eval(experiences)
    assert classes.rows() == expected
    assert any(value is None for row in expected for value in row)
    assert any(value not in {0, 1, None} for row in expected for value in row)
    classes.start()
    assert classes.rows() == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_counting_does_not_wait_for_a_gpu():
    model, classes = linear().cuda(), ClassAccuracy()
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.1), [classes], device="cuda")
    strategy.experience = split_digits(scenario="class").test_stream[0]
    labels = torch.tensor([0, 1, 1], device="cuda")
    strategy.mbatch, strategy.mb_output = [None, labels, labels], torch.eye(3, 10, device="cuda")
    classes.before_eval_exp(strategy)
    torch.cuda.set_sync_debug_mode("error")
    try:
        classes.after_eval_iteration(strategy)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert classes.rows() == [[1.0, 0.5]]

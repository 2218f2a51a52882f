import json
import math
import os
import subprocess
import sys
from functools import partial
from types import ModuleType

import pytest
import torch

from avsi.experiment.description import describe, digest, importable_name
from avsi.models import MLP, MultiHead
from avsi.scenarios import split_digits


def test_names_are_the_public_ones():
    assert importable_name(MLP) == "avsi.models.MLP"
    assert importable_name(split_digits) == "avsi.scenarios.split_digits"
    assert importable_name(torch.optim.Adam) == "torch.optim.Adam"


def test_partials_are_described_recursively_as_json():
    description = describe(partial(MLP, 64, (16,), head=partial(MultiHead, head=torch.nn.Linear)))
    assert description == {
        "call": "avsi.models.MLP",
        "args": [64, [16]],
        "kwargs": {"head": {"call": "avsi.models.MultiHead", "args": [], "kwargs": {"head": "torch.nn.Linear"}}},
    }
    assert json.loads(json.dumps(description)) == description


def test_the_order_and_the_type_of_keys_count():
    orders = [{"a": 1, "b": 2}, {"b": 2, "a": 1}]
    assert digest(describe(partial(dict, orders[0]))) != digest(describe(partial(dict, orders[1])))
    assert digest(describe({1: 2})) != digest(describe({"1": 2}))
    assert describe({"a": 1, "b": 2}) == {"a": 1, "b": 2}


@pytest.mark.parametrize("value", [object(), [object()], {"a": object()}, partial(int, object())])
def test_objects_are_refused(value):
    with pytest.raises(TypeError, match="cannot be described"):
        describe(value)


def test_a_function_that_was_defined_anew_is_said_to_be_old(monkeypatch):
    """As in a notebook whose cell was run again."""
    cells = ModuleType("cells")
    monkeypatch.setitem(sys.modules, "cells", cells)
    exec("def network(): ...", vars(cells))
    old = cells.network
    assert describe(old) == "cells.network" or describe(old)["name"] == "cells.network"
    exec("def network(): return 1", vars(cells))
    with pytest.raises(TypeError, match=r"no longer what cells\.network names; make the experiment anew"):
        describe(old)


def test_digest_sees_every_change(experiment):
    method = experiment.method("si")
    base = experiment.digest(method)
    assert digest(experiment.describe(method)) == base
    assert experiment.with_epochs(3).digest(method) != base
    assert experiment.digest(experiment.method("finetune")) != base
    assert len(base) == 10


@pytest.mark.parametrize("value", [math.nan, math.inf, partial(MLP, 64, dropout=-math.inf), [math.inf]])
def test_numbers_that_no_result_file_can_hold_are_refused_before_work_is_lost(value):
    with pytest.raises(TypeError, match=r"(nan|inf) cannot be described: .* finite numbers"):
        describe(value)


def test_a_lambda_with_a_set_is_described_the_same_in_every_process():
    code = "from avsi.experiment.description import describe; print(describe(lambda x: x in {'a', 'b', 'c', 'd'}))"
    described = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed}
        ).stdout
        for seed in "12345"
    }
    assert len(described) == 1
    assert describe(lambda x: x in {1, 2}) != describe(lambda x: x in {1, 3})

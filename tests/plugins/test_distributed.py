"""Two processes of torch.distributed, with DDP and Avalanche's helper: importances of the single process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline, with_task_labels
from torch import nn
from training import naive

from avsi import MASPlugin, OnlineEWCPlugin, SIPlugin
from avsi.consolidation import MASPenalty, OnlineEWCPenalty, SIPenalty
from avsi.data.dataset import ImageDataset, scale
from avsi.scenarios import split_digits
from avsi.scenarios.build import with_task_label

TESTS = Path(__file__).parents[1]
SIZE = 90  # samples of a task in a batch: a whole one, so that the mean gradient over processes is that of one


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 2)).double()


def plugins():
    return {"si": SIPlugin(1.0, damping=1e-2), "ewc": OnlineEWCPlugin(2.0), "mas": MASPlugin(0.02)}


def stream():
    images = split_digits().image_sets[0]
    parts = []
    for task in range(2):
        rows = torch.nonzero(images.labels // 2 == task).flatten()[:SIZE]
        data = ImageDataset(images.images, rows, images.labels[rows] % 2, lambda x: scale(x).double())
        parts.append(with_task_label(data, 0))
    return with_classes_timeline(with_task_labels(benchmark_from_datasets(train=parts))).train_stream


def through_avalanche(name, wrap, batch_size):
    plugin, network = plugins()[name], wrap(model())
    strategy = naive(network, torch.optim.SGD(network.parameters(), lr=0.1), [plugin], epochs=3, batch_size=batch_size)
    for experience in stream():
        strategy.train(experience, eval_streams=[], shuffle=False)
    return plugin.importance, network


def in_a_loop(name, wrap, rank, world):
    network = wrap(model())
    penalty = {
        "si": lambda: SIPenalty(network, 1.0, damping=1e-2),
        "ewc": lambda: OnlineEWCPenalty(network, 2.0),
        "mas": lambda: MASPenalty(network, 0.02),
    }[name]()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for experience in stream():
        samples = [experience.dataset[i] for i in range(rank, SIZE, world)]
        x, y = torch.stack([s[0] for s in samples]), torch.tensor([s[1] for s in samples])
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            with penalty.step(optimizer):
                optimizer.step()
        penalty.consolidate([(x[:20], y[:20]), (x[20:], y[20:])])
    return penalty.importance, network


def outcome(importance, network):
    parameters = getattr(network, "module", network).named_parameters()
    return {
        "importance": {name: value.clone() for name, value in importance.items()},
        "theta": {name: value.detach().clone() for name, value in parameters},
    }


def worker(folder):
    """One of two processes; started by torch's environment variables."""
    import warnings

    from avalanche.distributed import DistributedHelper

    DistributedHelper.init_distributed(random_seed=0, use_cuda=False)
    rank = DistributedHelper.rank
    results = {}
    for name in plugins():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results[f"avalanche {name}"] = outcome(*through_avalanche(name, DistributedHelper.wrap_model, SIZE // 2))
        results[f"warned {name}"] = any("not compatible" in str(warning.message) for warning in caught)
        results[f"loop {name}"] = outcome(*in_a_loop(name, nn.parallel.DistributedDataParallel, rank, 2))
    torch.save(results, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    code = f"import plugins.test_distributed as t; t.worker({str(folder)!r})"
    processes = []
    for rank in range(2):
        environment = os.environ | {
            "PYTHONPATH": str(TESTS), "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        processes.append(
            subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)
        )
    errors = [process.communicate(timeout=240)[1] for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def same(results, expected):
    for key, tensors in expected.items():
        for name, value in tensors.items():
            torch.testing.assert_close(results[key][name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["si", "ewc", "mas"])
def test_avalanche_with_two_processes_is_avalanche_with_one(ranks, name):
    expected = outcome(*through_avalanche(name, lambda network: network, SIZE))
    assert expected["importance"]["1.weight"].sum() > 0
    for results in ranks:
        same(results[f"avalanche {name}"], expected)
        assert not results[f"warned {name}"]


@pytest.mark.parametrize("name", ["si", "ewc", "mas"])
def test_a_loop_with_two_processes_is_one_with_one(ranks, name):
    expected = outcome(*in_a_loop(name, lambda network: network, 0, 1))
    for results in ranks:
        same(results[f"loop {name}"], expected)


def test_plugins_say_that_they_support_it():
    assert all(plugin.supports_distributed for plugin in plugins().values())

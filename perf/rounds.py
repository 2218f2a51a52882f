"""Timing side by side: everything in one process, in interleaved rounds, so that other load hits all of it alike."""

from __future__ import annotations

import gc
import platform
import statistics
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

WARM_UP = 1
"""Rounds that are not counted."""

clock: Callable[[], float] = time.perf_counter
"""What is read before and after each function; ``time.process_time`` where other load takes turns on the cores."""


def interleave(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    device: str,
    *,
    slow: Collection[str] = (),
    slow_rounds: int = 0,
    warm_up: int = WARM_UP,
) -> dict[str, list[float]]:
    """Time functions in interleaved rounds.

    Args:
        runs: The functions by name.
        rounds: How many rounds count.
        device: Work still under way there is waited for before and after each function.
        slow: Names of those that take part in the first rounds alone, and not in the warm-up.
        slow_rounds: In how many; with 0 they are left out.
        warm_up: Rounds before those that count.

    Returns:
        For each function its seconds, one number per round.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    runs = {name: run for name, run in runs.items() if name not in slow or slow_rounds > 0}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(-warm_up, rounds):
        for name, run in runs.items():
            if name in slow and not 0 <= turn < slow_rounds:
                continue
            synchronise(device)
            start = clock()
            run()
            synchronise(device)
            if turn >= 0:
                times[name].append(clock() - start)
    return times


def synchronise(device: str) -> None:
    """Wait for the work under way on a GPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def ratios(values: list[float], base: list[float]) -> list[float]:
    """Divide round by round."""
    return [value / other for value, other in zip(values, base, strict=False)]


def ratio(values: list[float], base: list[float]) -> float:
    """Median over rounds of the ratio within a round."""
    return statistics.median(ratios(values, base))


def spread(values: list[float]) -> tuple[float, float]:
    """First and third quartile."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def machine(device: str) -> dict[str, object]:
    """Describe what the numbers were measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "cpu": models[0] if models else platform.processor(),
        "cores": len(models),
        "threads": torch.get_num_threads(),
        "clock": clock.__name__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def copy_bandwidth(elements: int, buffers: int, device: str) -> float:
    """Measure how fast float32 tensors are copied, read and written bytes counted.

    Args:
        elements: Elements of a tensor.
        buffers: The copies go through so many tensors in turn, as a training step does: the working set decides which
            caches help.
        device: Where.

    Returns:
        Bytes per second, the median over copies.
    """
    tensors = [torch.rand(elements, device=device) for _ in range(buffers)]
    times = []
    repeats = max(3, min(50, int(4e8 / elements) // buffers))
    for turn in range(-1, repeats):
        for target, source in zip(tensors, tensors[1:] + tensors[:1], strict=True):
            synchronise(device)
            start = clock()
            target.copy_(source)
            synchronise(device)
            if turn >= 0:
                times.append(clock() - start)
    return 8 * elements / statistics.median(times)


def resident(field: str) -> int:
    """Read this process's memory: ``VmRSS`` now, ``VmHWM`` at its peak.

    Args:
        field: Which.

    Returns:
        Bytes.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def in_fork(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a forked process, which has everything imported and nothing else of this one's work.

    Args:
        function: The function.
        *arguments: Its arguments. What it returns and these are pickled.

    Returns:
        What it returns. To be called before a backward pass is made here: autograd's threads do not survive a fork.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        return pool.submit(function, *arguments).result()


def forget_peak() -> None:
    """Set the peak to what is resident now."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")

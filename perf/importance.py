"""What exact per-sample importances cost, against one forward and backward pass over the same data.

Every method runs in this process, in interleaved rounds, so that whatever else the machine does hits all of them alike;
medians over rounds are reported. The data are random numbers in the shapes of the real images.

    python -m perf.importance [--rounds 15] [--threads 2] [--device cpu] [--json results.json]
"""

import gc
import json
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import tyro
from torch import Tensor, nn

from avsi.importance import fisher_diagonal, mas_importance
from perf.rounds import interleave, ratio

Batches = list[tuple[Tensor, Tensor]]


@dataclass
class Arguments:
    """Cost of importances."""

    rounds: int = 15
    """Interleaved rounds per method."""
    slow_rounds: int = 3
    """Rounds in which slow methods take part."""
    batches: int = 8
    """Batches per round."""
    threads: int = 0
    """Threads for torch; 0: torch's own choice."""
    device: str = "cpu"
    """Where to run."""
    memory: bool = True
    """Whether to measure peak memory too, one fresh process per method."""
    json: Path | None = None
    """Where to write the numbers."""


def mlp() -> nn.Sequential:
    """784-400-400-10, for 28x28 images."""
    return nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 10))


def cnn() -> nn.Sequential:
    """The CNN of the split CIFAR-10/100 experiment of Zenke et al. (2017), for 32x32 colour images."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25),
        nn.Flatten(), nn.Linear(2304, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 10),
    )  # fmt: skip


SETTINGS: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...], int]] = {
    "MLP 784-400-400-10, batch 256": (mlp, (784,), 256),
    "CNN of Zenke et al., batch 64": (cnn, (3, 32, 32), 64),
}
TARGETS = {"MLP 784-400-400-10, batch 256": 1.5, "CNN of Zenke et al., batch 64": 2.0}


def forward_backward(model: nn.Module, batches: Batches) -> None:
    """One pass as in training: loss, gradients, nothing else."""
    for x, y in batches:
        model.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()


def _single_samples(model: nn.Module, batches: Batches, phi: Callable, loss: Callable) -> None:
    parameters = list(model.parameters())
    totals = [torch.zeros_like(parameter) for parameter in parameters]
    for x, y in batches:
        for n in range(len(x)):
            gradients = torch.autograd.grad(loss(model(x[n : n + 1]), y[n : n + 1]), parameters)
            for total, gradient in zip(totals, gradients, strict=True):
                total += phi(gradient)


def loop_fisher(model: nn.Module, batches: Batches) -> None:
    """The definition, one sample at a time."""
    _single_samples(model, batches, torch.square, nn.functional.cross_entropy)


def loop_mas(model: nn.Module, batches: Batches) -> None:
    """The definition, one sample at a time."""
    _single_samples(model, batches, torch.abs, lambda outputs, y: outputs.square().sum())


def backpack_fisher(model: nn.Module, batches: Batches) -> None:
    """BackPACK's sum of squared per-sample gradients, which for the empirical Fisher is the direct way."""
    from backpack import backpack, extensions

    loss = _extended(nn.CrossEntropyLoss(reduction="sum"))
    totals = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for x, y in batches:
        model.zero_grad()
        with backpack(extensions.SumGradSquared()):
            loss(model(x), y).backward()
        for total, parameter in zip(totals, model.parameters(), strict=True):
            total += parameter.sum_grad_squared


def backpack_mas(model: nn.Module, batches: Batches) -> None:
    """BackPACK's per-sample gradients, then absolute values."""
    from backpack import backpack, extensions

    totals = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for x, _ in batches:
        model.zero_grad()
        with backpack(extensions.BatchGrad()):
            model(x).square().sum().backward()
        for total, parameter in zip(totals, model.parameters(), strict=True):
            total += parameter.grad_batch.abs_().sum(0)
            del parameter.grad_batch


def backpack_exact(model: nn.Module, batches: Batches) -> None:
    """BackPACK's diagonal of the generalised Gauss-Newton matrix, which equals the Fisher over all labels."""
    from backpack import backpack, extensions

    loss = _extended(nn.CrossEntropyLoss(reduction="sum"))
    totals = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for x, y in batches:
        model.zero_grad()
        with backpack(extensions.DiagGGNExact()):
            loss(model(x), y).backward()
        for total, parameter in zip(totals, model.parameters(), strict=True):
            total += parameter.diag_ggn_exact


def _extended(module: nn.Module) -> nn.Module:
    from backpack import extend

    warnings.filterwarnings("ignore", "Full backward hook is firing")
    return extend(module)


BASELINE = "forward + backward"
METHODS: dict[str, Callable[[nn.Module, Batches], object]] = {
    BASELINE: forward_backward,
    "Fisher, empirical": fisher_diagonal,
    "MAS": mas_importance,
    "Fisher, sampled": lambda model, batches: fisher_diagonal(model, batches, labels="sampled"),
    "Fisher, exact": lambda model, batches: fisher_diagonal(model, batches, labels="exact"),
    "BackPACK SumGradSquared": backpack_fisher,
    "BackPACK BatchGrad, MAS": backpack_mas,
    "BackPACK DiagGGNExact": backpack_exact,
    "single samples, Fisher": loop_fisher,
    "single samples, MAS": loop_mas,
}


SLOW = {name for name in METHODS if name.startswith("single") or "xact" in name or name.endswith("MAS")} - {"MAS"}


def prepare(setting: str, method: str, batches: int, device: str) -> tuple[nn.Module, Batches]:
    """A model as the method needs it, and data."""
    torch.manual_seed(0)
    make, shape, size = SETTINGS[setting]
    model = make().eval()
    if method.startswith("BackPACK"):
        model = _extended(model)
    data = [(torch.rand(size, *shape), torch.randint(10, (size,))) for _ in range(batches)]
    return model.to(device), [(x.to(device), y.to(device)) for x, y in data]


def seconds(setting: str, arguments: Arguments) -> dict[str, list[float]]:
    """Time all methods in interleaved rounds."""
    runs = {
        method: partial(run, *prepare(setting, method, arguments.batches, arguments.device))
        for method, run in METHODS.items()
    }
    return interleave(runs, arguments.rounds, arguments.device, slow=SLOW, slow_rounds=arguments.slow_rounds)


def peak_bytes(setting: str, method: str, arguments: Arguments) -> int:
    """Peak memory of a method beyond model and data: in a fresh process on CPUs (Linux), by torch's count on CUDA."""
    if not arguments.device.startswith("cuda"):
        command = [sys.executable, "-m", "perf.importance", "--peak", setting, method, str(arguments.threads)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    model, batches = prepare(setting, method, 2, arguments.device)
    METHODS[method](model, batches)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    METHODS[method](model, batches)
    return torch.cuda.max_memory_allocated() - before


def _report_peak(setting: str, method: str, threads: str) -> None:
    torch.set_num_threads(int(threads) or torch.get_num_threads())
    model, batches = prepare(setting, method, 2, "cpu")
    METHODS[method](model, [(x[:2], y[:2]) for x, y in batches])  # libraries and kernels are loaded
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
    before = _resident("VmRSS")
    METHODS[method](model, batches)
    print(_resident("VmHWM") - before)


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def measure(arguments: Arguments) -> Iterator[dict[str, object]]:
    """One row per setting and method."""
    for setting in SETTINGS:
        times = seconds(setting, arguments)
        for method, values in times.items():
            yield {
                "setting": setting,
                "method": method,
                "milliseconds per batch": 1e3 * statistics.median(values) / arguments.batches,
                "ratio": ratio(values, times[BASELINE]),
                "peak MiB": peak_bytes(setting, method, arguments) / 2**20 if arguments.memory else None,
            }


def main(arguments: Arguments) -> None:
    """Print a table, and write it as JSON if asked to."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    rows = []
    for row in measure(arguments):
        if not rows or rows[-1]["setting"] != row["setting"]:
            print(f"\n{row['setting']}\n{'':28}{'ms/batch':>10}{'ratio':>8}{'peak MiB':>10}")
        peak = f"{row['peak MiB']:10.0f}" if row["peak MiB"] is not None else ""
        target = TARGETS[str(row["setting"])] if row["method"] in {"Fisher, empirical", "MAS"} else None
        print(
            f"{row['method']:28}{row['milliseconds per batch']:10.2f}{row['ratio']:8.2f}{peak}"
            + (f"   target {target}" if target else ""),
            flush=True,
        )
        rows.append(row)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads(), "rows": rows}, indent=1)
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        _report_peak(*sys.argv[2:])
    else:
        main(tyro.cli(Arguments))

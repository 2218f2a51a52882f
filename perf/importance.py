"""What exact per-sample importances cost, against one forward and backward pass over the same data.

Beside avsi's stand what else computes them: BackPACK, ``torch.func``, and a loop over single samples; and curvlinops,
whose diagonals are estimates from products with random vectors. A method that does not know a model's layers says so.
Every method runs in this process, in interleaved rounds, so that whatever else the machine does hits all of them alike;
medians over rounds are reported. The data are random numbers in the shapes of the real images.

    python -m perf.importance [--rounds 15] [--threads 2] [--device cpu] [--json results.json]
"""

from __future__ import annotations

import contextlib
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torchvision.models import VisionTransformer, resnet18

from avsi.importance import fisher_diagonal, mas_importance
from perf import rounds
from perf.floors import cnn as cnn_body
from perf.rounds import forget_peak, in_fork, interleave, machine, ratio, resident

Batches = list[tuple[Tensor, Tensor]]
SettingName = Literal["mlp", "cnn", "resnet18", "vit"]


@dataclass
class Arguments:
    """Cost of importances."""

    settings: tuple[SettingName, ...] = ("mlp", "cnn", "resnet18", "vit")
    """Models."""
    rounds: int = 15
    """Interleaved rounds per method for the smallest model; larger ones get fewer."""
    slow_rounds: int = 2
    """Rounds in which slow methods take part; 0: they are not measured."""
    threads: int = 0
    """Threads for torch; 0: torch's own choice."""
    device: str = "cpu"
    """Where to run."""
    cpu_time: bool = False
    """Whether to count CPU seconds of the process in place of wall time."""
    memory: bool = True
    """Whether to measure peak memory too, one forked process per method."""
    json: Path | None = None
    """File that gets the numbers; settings that it has and that are not measured now stay."""


def mlp() -> nn.Sequential:
    """784-400-400-10, for 28x28 images."""
    return nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 10))


def cnn() -> nn.Sequential:
    """The CNN of the split CIFAR-10/100 experiment of Zenke et al. (2017), for 32x32 colour images."""
    return nn.Sequential(*cnn_body(), nn.Linear(512, 10))


def vit() -> nn.Module:
    """A vision transformer of four blocks of 128 for 32x32 colour images in patches of 4."""
    model = VisionTransformer(32, 4, num_layers=4, num_heads=4, hidden_dim=128, mlp_dim=256, num_classes=10)
    nn.init.normal_(model.get_submodule("heads.head").weight, std=0.1)  # zeros let no gradient through
    return model


@dataclass(frozen=True)
class Setting:
    """A model with its data.

    Attributes:
        title: What it is.
        model: Builds the model.
        shape: Shape of an image.
        batches: Batches of 256 in a round.
        share: Share of the rounds.
        target: Of the ratio of Fisher information (empirical) and MAS to the forward and backward pass.
    """

    title: str
    model: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batches: int
    share: float
    target: float | None = None


BATCH = 256
SETTINGS: dict[str, Setting] = {
    "mlp": Setting("MLP 784-400-400-10", mlp, (784,), 4, 1.0, 1.5),
    "cnn": Setting("CNN of Zenke et al.", cnn, (3, 32, 32), 1, 0.4, 2.0),
    "resnet18": Setting("ResNet-18, 32x32 images", partial(resnet18, num_classes=10), (3, 32, 32), 1, 0.2),
    "vit": Setting("ViT, 4 blocks of 128, 65 tokens", vit, (3, 32, 32), 1, 0.2),
}
PRODUCTS = 10
"""Products with random vectors in curvlinops' estimates."""
CHUNK = 32
"""Samples at a time in ``torch.func.vmap``."""
LOOPED = 32
"""Samples of a batch that loops over single samples go through; their times are scaled to the whole batch."""


def forward_backward(model: nn.Module, batches: Batches) -> None:
    """One pass as in training: loss, gradients, nothing else."""
    for x, y in batches:
        model.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()


def _samples(batches: Batches) -> int:
    return sum(len(y) for _, y in batches)


Result = list[Tensor] | None
"""The mean over samples, parameter by parameter."""


def _single_samples(model: nn.Module, batches: Batches, phi: Callable, loss: Callable) -> Result:
    parameters = list(model.parameters())
    totals = [torch.zeros_like(parameter) for parameter in parameters]
    for x, y in batches:
        for n in range(len(x)):
            gradients = torch.autograd.grad(loss(model(x[n : n + 1]), y[n : n + 1]), parameters)
            for total, gradient in zip(totals, gradients, strict=True):
                total += phi(gradient)
    return [total / _samples(batches) for total in totals]


def loop_fisher(model: nn.Module, batches: Batches) -> Result:
    """The definition, one sample at a time."""
    return _single_samples(model, batches, torch.square, nn.functional.cross_entropy)


def loop_mas(model: nn.Module, batches: Batches) -> Result:
    """The definition, one sample at a time."""
    return _single_samples(model, batches, torch.abs, lambda outputs, y: outputs.square().sum())


def loop_exact(model: nn.Module, batches: Batches) -> Result:
    """The definition, one sample and one output at a time: what code that accompanies papers does."""
    parameters = list(model.parameters())
    totals = [torch.zeros_like(parameter) for parameter in parameters]
    for x, _ in batches:
        for image in x.split(1):
            log_probabilities = model(image).log_softmax(1)[0]
            for label, probability in enumerate(log_probabilities.detach().exp()):
                again = label < len(log_probabilities) - 1
                gradients = torch.autograd.grad(log_probabilities[label], parameters, retain_graph=again)
                for total, gradient in zip(totals, gradients, strict=True):
                    total += probability * gradient.square()
    return [total / _samples(batches) for total in totals]


def _vmap(model: nn.Module, batches: Batches, phi: Callable, loss: Callable) -> Result:
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def of_one(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return loss(functional_call(model, (parameters, buffers), (x[None],)), y[None])

    of_many = vmap(grad(of_one), in_dims=(None, 0, 0))
    totals = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for x, y in batches:
        for some, labels in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
            for name, gradients in of_many(parameters, some, labels).items():
                totals[name] += phi(gradients).sum(0)
    return [total / _samples(batches) for total in totals.values()]


def vmap_fisher(model: nn.Module, batches: Batches) -> Result:
    """``torch.func``'s per-sample gradients, in chunks."""
    return _vmap(model, batches, torch.square, nn.functional.cross_entropy)


def vmap_mas(model: nn.Module, batches: Batches) -> Result:
    """``torch.func``'s per-sample gradients, in chunks."""
    return _vmap(model, batches, torch.abs, lambda outputs, y: outputs.square().sum())


def _backpack(model: nn.Module, batches: Batches, name: str, extension: str, field: str) -> Result:
    from backpack import backpack, extensions

    loss = _extended(nn.CrossEntropyLoss(reduction="sum"))
    totals = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for x, y in batches:
        model.zero_grad()
        with backpack(getattr(extensions, extension)()):
            outputs = model(x)
            (outputs.square().sum() if name == "MAS" else loss(outputs, y)).backward()
        for total, parameter in zip(totals, model.parameters(), strict=True):
            value = getattr(parameter, field)
            total += value.abs_().sum(0) if name == "MAS" else value
            delattr(parameter, field)
    return [total / _samples(batches) for total in totals]


def backpack_fisher(model: nn.Module, batches: Batches) -> Result:
    """BackPACK's sum of squared per-sample gradients, which for the empirical Fisher is the direct way."""
    return _backpack(model, batches, "Fisher", "SumGradSquared", "sum_grad_squared")


def backpack_mas(model: nn.Module, batches: Batches) -> Result:
    """BackPACK's per-sample gradients, then absolute values."""
    return _backpack(model, batches, "MAS", "BatchGrad", "grad_batch")


def backpack_exact(model: nn.Module, batches: Batches) -> Result:
    """BackPACK's diagonal of the generalised Gauss-Newton matrix, which equals the Fisher over all labels."""
    return _backpack(model, batches, "Fisher", "DiagGGNExact", "diag_ggn_exact")


def _curvlinops(operator: str, model: nn.Module, batches: Batches) -> Result:
    import curvlinops

    parameters = list(model.parameters())
    matrix = getattr(curvlinops, operator)(
        model, nn.CrossEntropyLoss(), parameters, batches, check_deterministic=False, num_data=_samples(batches)
    )
    diagonal = curvlinops.hutchinson_diag(matrix, PRODUCTS)
    parts = diagonal.split([parameter.numel() for parameter in parameters])
    return [part.view_as(parameter) for part, parameter in zip(parts, parameters, strict=True)]


def _extended(module: nn.Module) -> nn.Module:
    from backpack import extend

    warnings.filterwarnings("ignore", "Full backward hook is firing")
    # Adding branches is a function, which BackPACK only sees once it is a module.
    return extend(module, use_converter=not isinstance(module, nn.Sequential | nn.CrossEntropyLoss))


def _ours(function: Callable[..., dict[str, Tensor]], **options: str) -> Callable[[nn.Module, Batches], Result]:
    return lambda model, batches: list(function(model, batches, **options).values())


BASELINE = "forward + backward"
METHODS: dict[str, Callable[[nn.Module, Batches], Result]] = {
    BASELINE: forward_backward,
    "Fisher, empirical": _ours(fisher_diagonal),
    "BackPACK SumGradSquared": backpack_fisher,
    "torch.func.vmap, Fisher": vmap_fisher,
    "single samples, Fisher": loop_fisher,
    "curvlinops, estimate": partial(_curvlinops, "EFLinearOperator"),
    "Fisher, exact": _ours(fisher_diagonal, labels="exact"),
    "BackPACK DiagGGNExact": backpack_exact,
    "single samples, exact": loop_exact,
    "curvlinops, exact, estimate": partial(_curvlinops, "GGNLinearOperator"),
    "Fisher, sampled": _ours(fisher_diagonal, labels="sampled"),
    "MAS": _ours(mas_importance),
    "BackPACK BatchGrad, MAS": backpack_mas,
    "torch.func.vmap, MAS": vmap_mas,
    "single samples, MAS": loop_mas,
}
AGREES_WITH = {name: "Fisher, exact" for name in METHODS if "xact" in name}
AGREES_WITH |= {name: "MAS" for name in METHODS if name.endswith("MAS")}
AGREES_WITH |= {
    name: "Fisher, empirical" for name in METHODS if name not in {BASELINE, "Fisher, sampled", *AGREES_WITH}
}
"""What of avsi each method computes, or estimates."""
QUICK = {BASELINE, "Fisher, empirical", "Fisher, sampled", "MAS"}
CANNOT = (ImportError, NotImplementedError, RuntimeError, ValueError, TypeError, AttributeError)
"""How methods say that they do not know a model."""
TOO_LARGE = {
    ("resnet18", "BackPACK BatchGrad, MAS"): "would hold 256 gradients at once, 11 GiB",
    ("resnet18", "BackPACK DiagGGNExact"): "takes more than 16 GiB",
}


def prepare(setting: str, method: str, batches: int, device: str) -> tuple[nn.Module, Batches]:
    """A model as the method needs it, and data."""
    torch.manual_seed(0)
    made = SETTINGS[setting]
    model = made.model().eval()
    if method.startswith("BackPACK"):
        model = _extended(model)
    data = [(torch.rand(BATCH, *made.shape), torch.randint(10, (BATCH,))) for _ in range(batches)]
    return model.to(device), [(x.to(device), y.to(device)) for x, y in data]


def try_out(setting: str, device: str) -> tuple[dict[str, Result], dict[str, str]]:
    """Run every method once, on a few samples.

    Returns:
        What they give, and why some of them give nothing.
    """
    found: dict[str, Result] = {}
    failed = {method: why for (key, method), why in TOO_LARGE.items() if key == setting}
    for method, run in METHODS.items():
        if method in failed:
            continue
        try:
            model, ((x, y),) = prepare(setting, method, 1, device)
            found[method] = run(model, [(x[:CHUNK], y[:CHUNK])])
        except CANNOT as error:
            failed[method] = f"{type(error).__name__}: {error}".splitlines()[0][:120]
    return found, failed


def difference(values: Result, others: Result) -> float | None:
    """The norm of the difference over the norm."""
    if values is None or others is None or len(values) != len(others):
        return None
    apart = sum(float((a - b).double().square().sum()) for a, b in zip(values, others, strict=True))
    return (apart / sum(float(b.double().square().sum()) for b in others)) ** 0.5


def peak_bytes(setting: str, method: str, arguments: Arguments) -> int:
    """Peak memory of a method beyond model and data: in a forked process on CPUs (Linux), by torch's count on CUDA."""
    if not arguments.device.startswith("cuda"):
        return in_fork(_peak_resident, setting, method, arguments.threads)
    model, batches = prepare(setting, method, 1, arguments.device)
    METHODS[method](model, batches)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    METHODS[method](model, batches)
    return torch.cuda.max_memory_allocated() - before


def _peak_resident(setting: str, method: str, threads: int) -> int:
    torch.set_num_threads(threads or torch.get_num_threads())
    model, batches = prepare(setting, method, 1, "cpu")
    METHODS[method](model, [(x[:2], y[:2]) for x, y in batches])  # libraries and kernels are loaded
    forget_peak()
    before = resident("VmRSS")
    METHODS[method](model, batches)
    return resident("VmHWM") - before


def peaks(setting: str, arguments: Arguments) -> dict[str, float]:
    """Peak memory in MiB of the methods that run; not of loops, where a sample's memory is no matter."""
    found = {}
    for method in METHODS:
        if (setting, method) not in TOO_LARGE and not method.startswith("single"):
            with contextlib.suppress(*CANNOT):
                found[method] = peak_bytes(setting, method, arguments) / 2**20
    return found


def measure(setting: str, arguments: Arguments, memory: dict[str, float]) -> Iterator[dict[str, object]]:
    """One row per method, with its peak memory if that is known."""
    made = SETTINGS[setting]
    found, failed = try_out(setting, arguments.device)
    runs, share = {}, {}
    for method in found:
        model, batches = prepare(setting, method, made.batches, arguments.device)
        loops = method.startswith("single")  # as many times as long for as many samples
        share[method] = LOOPED / BATCH if loops else 1.0
        runs[method] = partial(
            METHODS[method], model, [(x[:LOOPED], y[:LOOPED]) for x, y in batches] if loops else batches
        )
    turns = max(3, round(arguments.rounds * made.share))
    slow = {method for method in runs if method not in QUICK}
    times = interleave(runs, turns, arguments.device, slow=slow, slow_rounds=min(turns, arguments.slow_rounds))
    times = {method: [value / share[method] for value in values] for method, values in times.items()}
    for method in METHODS:
        if method in failed:
            yield {"setting": setting, "method": method, "failed": failed[method]}
            continue
        if method not in times:
            continue
        yield {
            "setting": setting,
            "method": method,
            "milliseconds per batch": 1e3 * statistics.median(times[method]) / made.batches,
            "ratio": ratio(times[method], times[BASELINE]),
            "difference": difference(found[method], found[AGREES_WITH[method]]) if method in AGREES_WITH else None,
            "peak MiB": memory.get(method),
        }


def show(row: dict[str, object]) -> None:
    """Print a row."""
    if "failed" in row:
        print(f"{row['method']:28}cannot: {row['failed']}", flush=True)
        return
    peak = f"{row['peak MiB']:10.0f}" if row["peak MiB"] is not None else ""
    made = SETTINGS[str(row["setting"])]
    target = f"   target {made.target}" if made.target and row["method"] in {"Fisher, empirical", "MAS"} else ""
    apart = f"{row['difference']:12.1e}" if row["difference"] is not None else f"{'':12}"
    print(
        f"{row['method']:28}{row['milliseconds per batch']:10.2f}{row['ratio']:8.2f}{apart}{peak}{target}", flush=True
    )


def main(arguments: Arguments) -> None:
    """Print a table for each model, and write them as JSON if asked to."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.cpu_time:
        rounds.clock = time.process_time
    path = arguments.json
    results = json.loads(path.read_text()) if path and path.exists() else {"importance": {}}
    results["machine"] = machine(arguments.device)
    memory = {setting: peaks(setting, arguments) for setting in arguments.settings if arguments.memory}
    for setting in arguments.settings:
        print(f"\n{SETTINGS[setting].title}\n{'':28}{'ms/batch':>10}{'ratio':>8}{'difference':>12}{'peak MiB':>10}")
        rows = []
        for row in measure(setting, arguments, memory.get(setting, {})):
            show(row)
            rows.append(row)
        results["importance"][setting] = rows
        if path:
            path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Arguments))

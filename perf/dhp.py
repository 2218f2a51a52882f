"""What differentiable Hebbian plasticity costs: training steps with a DHP head against the same with ``nn.Linear``.

Everything runs in this process, in interleaved rounds, so that whatever else the machine does hits all alike; medians
over rounds are reported. A step is forward pass, loss, backward pass and an SGD update. The data are random numbers.

    python -m perf.dhp [--rounds 200] [--threads 1] [--cpu-time] [--device cpu] [--compile] [--json results.json]
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import tyro
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from avsi.hebbian import show_targets, takers
from avsi.models import DHPLinear, MatchedLinear
from perf import rounds
from perf.rounds import interleave, machine, ratio

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from oracles.hebbian import dhp_forward


@dataclass
class Arguments:
    """Cost of differentiable Hebbian plasticity."""

    rounds: int = 200
    """Interleaved rounds."""
    steps: int = 5
    """Training steps per round."""
    batch_size: int = 64
    """Samples per step."""
    threads: int = 0
    """Threads for torch; 0: torch's own choice."""
    device: str = "cpu"
    """Where to run."""
    compile: bool = False
    """Whether to compile the models."""
    cpu_time: bool = False
    """Whether to count CPU seconds of the process in place of wall time."""
    json: Path | None = None
    """Where to write the numbers."""


class LoopDHP(DHPLinear):
    """The layer as Algorithm 1 has it, one class after another."""

    def forward(self, h: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits, as ``DHPLinear`` computes them."""
        targets = self.shown_targets if targets is None else targets
        z, hebb = dhp_forward(h, targets, self.weight.T, self.alpha.T, self.eta, self.hebb.T)
        self.hebb = hebb.T
        return z


HEADS: dict[str, Callable[[int, int], nn.Module]] = {
    "nn.Linear": nn.Linear,
    "DHPLinear": DHPLinear,
    "DHPLinear, eta per connection": lambda m, d: DHPLinear(m, d, per_connection_eta=True),
    "MatchedLinear": MatchedLinear,
    "loop over classes": LoopDHP,
}
BASELINE, LOOP = "nn.Linear", "loop over classes"
SETTINGS = {
    "MLP 784-400-400-10": (784, 400, 400, 10),
    "MLP 784-512-512-100": (784, 512, 512, 100),
    "the layer alone, 512-100": (512, 100),
    "the layer alone, 512-1000": (512, 1000),
}
TARGETS = {
    "MLP 784-400-400-10": "1.15 x Linear",
    "MLP 784-512-512-100": "1.2 x Linear",
    "the layer alone, 512-100": "0.2 x loop",
}


def make_step(sizes: tuple[int, ...], head: str, arguments: Arguments) -> Callable[[], None]:
    """A model with some head, and a function that trains it for one step."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for size, following in pairwise(sizes[:-1]):
        layers += [nn.Linear(size, following), nn.ReLU()]
    model = nn.Sequential(*layers, HEADS[head](*sizes[-2:])).to(arguments.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=True)
    x = torch.rand(arguments.batch_size, sizes[0], device=arguments.device, requires_grad=not layers)
    y = torch.randint(sizes[-1], (arguments.batch_size,), device=arguments.device)
    forward = torch.compile(model) if arguments.compile and head != LOOP else model

    shown = takers(model)

    def step() -> None:
        optimizer.zero_grad()
        with show_targets(shown, y):
            loss = cross_entropy(forward(x), y)
        loss.backward()
        optimizer.step()

    return step


def measure(sizes: tuple[int, ...], arguments: Arguments) -> dict[str, list[float]]:
    """Seconds per step of every head, one number per round."""

    def several(step: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(arguments.steps):
                step()

        return run

    runs = {head: several(make_step(sizes, head, arguments)) for head in HEADS}
    times = interleave(runs, arguments.rounds, arguments.device, warm_up=3)
    return {head: [value / arguments.steps for value in values] for head, values in times.items()}


def main(arguments: Arguments) -> None:
    """Print a table, and write it as JSON if asked to."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.cpu_time:
        rounds.clock = time.process_time
    rows: list[dict[str, object]] = []
    for setting, sizes in SETTINGS.items():
        times = measure(sizes, arguments)
        print(f"\n{setting}, batch {arguments.batch_size}\n{'':32}{'ms/step':>10}{'x Linear':>10}{'x loop':>10}")
        for head, values in times.items():
            to_linear, share = (ratio(values, times[other]) for other in (BASELINE, LOOP))
            milliseconds = 1e3 * statistics.median(values)
            target = f"   target {TARGETS[setting]}" if head == "DHPLinear" and setting in TARGETS else ""
            print(f"{head:32}{milliseconds:10.3f}{to_linear:10.2f}{share:10.3f}{target}", flush=True)
            rows.append(
                {
                    "setting": setting,
                    "head": head,
                    "milliseconds per step": milliseconds,
                    "ratio": to_linear,
                    "ratio to loop": share,
                }
            )
    if arguments.json:
        found = {"machine": machine(arguments.device), "rows": rows}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Arguments))

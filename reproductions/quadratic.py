"""Synaptic Intelligence on quadratic losses: section 4 of Zenke, Poole & Ganguli (ICML 2017), equations 6-14.

Gradient descent on 1/2 (theta - theta*)^T H (theta - theta*) in small steps, from theta(0) to theta*. Its path
integrals omega_k are the diagonal of Q = -sum of g delta^T over steps. With eigenvalues lambda and eigenvectors u of H,
and d the projections of theta(0) - theta* onto them, the paper derives

    Q_ij = sum_ab u_ai d_a (lambda_a lambda_b / (lambda_a + lambda_b)) d_b u_bj     in general (11),
    <Q> = sigma^2 H / 2     averaged over starts whose d are independent, with mean 0 and variance sigma^2 (12),
    Q_ii = d_i^2 H_ii / 2     for a diagonal H (13),
    Q = d_1^2 H / 2     for an H of rank 1 (14).

Equation 13 as printed lacks the factor 1/2 that follows from (11), and holds for the diagonal only, which is what SI
uses: off the diagonal (11) gives d_i d_j H_ii H_jj / (H_ii + H_jj).

The diagonal is measured by SIPlugin itself in an Avalanche training run, the rest of Q by summing g delta^T beside it.
The table gives the relative error of Q in the Frobenius norm (of its diagonal for equation 13), and the largest
relative error of a single omega_k. Steps of finite length leave an error of up to half of --step, averages a sampling
error too.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from analysis import RecordingSI, changes, check_least, folder_name, run_analysis, train_plainly
from matplotlib.figure import Figure
from torch import Tensor, nn

from avsi.data import ImageSet
from avsi.experiment import ExperimentError
from avsi.files import write_json, write_text
from avsi.results import markdown_table, save_figure, say, terminal_table
from avsi.results.store import prepare
from avsi.scenarios import Source, Task, build

LEAST = 0.25  # the smallest eigenvalue that is not 0; the largest is 1
LEFT = 1e-10  # share of the slowest direction's loss that is left at the end
SIGMA = 1.5  # standard deviation of the random starts
DAMPING = 1e-12  # xi, so small that Omega is omega / Delta^2


@dataclass(frozen=True)
class Options:
    """What to measure and where to write it."""

    out: Path = Path("results")
    """Folder for results; they go into its folder quadratic."""
    seed: int = 0
    """Decides the Hessians and the starts."""
    parameters: int = 6
    """Number of parameters, at least 2."""
    starts: int = 50_000
    """Number of random starts averaged over."""
    step: float = 0.01
    """Learning rate, as a fraction of the inverse of the largest eigenvalue; at most 0.1."""

    def check(self) -> None:
        """Refuse what cannot be measured."""
        check_least(self, parameters=2, starts=1)
        if not 0 < self.step <= 0.1:
            raise ExperimentError(f"step must be in (0, 0.1], where gradient descent follows the flow, got {self.step}")


@dataclass(frozen=True)
class Comparison:
    """A quantity as an equation has it and as it was measured: a matrix, or a vector of one value per parameter."""

    name: str
    quantity: str
    theory: Tensor
    measured: Tensor

    @property
    def error(self) -> float:
        """Relative error in the Frobenius norm."""
        return ((self.measured - self.theory).norm() / self.theory.norm()).item()

    @property
    def worst(self) -> float:
        """Largest relative error of a value per parameter (of a matrix: of its diagonal)."""
        theory, measured = (v.diagonal() if v.dim() == 2 else v for v in (self.theory, self.measured))
        return ((measured - theory) / theory).abs().max().item()


class Positions(nn.Module):
    """A model that returns its parameters: positions of independent descents, (starts, parameters)."""

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return the positions, whatever the input."""
        return self.theta


class Correlations(RecordingSI):
    """Synaptic Intelligence that also sums what lies off the diagonal: Q = -sum of g delta^T, averaged over starts."""

    q: Tensor | float = 0.0

    def after_backward(self, strategy, *args, **kwargs) -> None:
        """Keep the step's start and the gradient there."""
        super().after_backward(strategy, *args, **kwargs)
        self.gradient = strategy.model.theta.grad.clone()
        self.before = strategy.model.theta.detach().clone()

    @torch.no_grad()
    def after_update(self, strategy, *args, **kwargs) -> None:
        """Add the step."""
        super().after_update(strategy, *args, **kwargs)
        self.q = self.q - self.gradient.T @ (strategy.model.theta - self.before) / len(self.before)


def descend(hessian: Tensor, starts: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Descend from starts (N, n) to the minimum, 0, at once; returns the mean Q (n, n) and SIPlugin's Omega (N, n)."""

    def loss(theta: Tensor, labels: Tensor) -> Tensor:
        return 0.5 * ((theta @ hessian) * theta).sum()  # of all starts, so that each has its own gradient

    model, si = Positions(starts), Correlations(damping=DAMPING)
    steps = math.ceil(math.log(1 / LEFT) / (2 * step * LEAST))
    blank = torch.zeros(steps, 1, 1, 1, dtype=torch.uint8), torch.zeros(steps, dtype=torch.long)
    source = Source(*(ImageSet("blank", split, *blank, {}) for split in ("train", "test")))
    optimizer = torch.optim.SGD(model.parameters(), lr=step)
    train_plainly(model, optimizer, build([Task(source, (0,))]).train_stream, [si], criterion=loss, batch_size=1)
    q = torch.as_tensor(si.q).clone()
    q.diagonal().copy_(si.omega[0]["theta"].mean(0))
    return q, si.importance["theta"]


def eq_11(hessian: Tensor, start: Tensor) -> Tensor:
    """Compute Q (n, n) by equation 11, for an H (n, n) of full rank and one start theta(0) - theta* (n,)."""
    eigenvalues, u = torch.linalg.eigh(hessian)
    d = u.T @ start
    rates = torch.outer(eigenvalues, eigenvalues) / (eigenvalues[:, None] + eigenvalues)
    return u @ (torch.outer(d, d) * rates) @ u.T


def compare(options: Options) -> list[Comparison]:
    """Measure every case of section 4."""
    n = options.parameters
    generator = torch.Generator().manual_seed(options.seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    basis = torch.linalg.qr(normal(n, n)).Q
    curvatures = torch.linspace(LEAST, 1, n, dtype=torch.float64)
    general, diagonal = basis @ torch.diag(curvatures) @ basis.T, torch.diag(curvatures)
    rank_1 = torch.outer(basis[0], basis[0])
    # From 1/2 to 3/2 of sigma away in every direction, so that no omega is next to nothing.
    start = SIGMA * (0.5 + torch.rand(n, generator=generator, dtype=torch.float64)) * normal(n).sign()

    q_general, _ = descend(general, start[None], options.step)
    q_mean, _ = descend(general, SIGMA * normal(options.starts, n), options.step)
    q_diagonal, importance = descend(diagonal, start[None], options.step)
    q_rank_1, _ = descend(rank_1, start[None], options.step)
    return [
        Comparison("general H (11)", "Q", eq_11(general, start), q_general),
        Comparison(f"average over {options.starts} starts (12)", "Q", SIGMA**2 * general / 2, q_mean),
        Comparison("diagonal H (13)", "diagonal of Q", start**2 * curvatures / 2, q_diagonal.diagonal()),
        Comparison("H of rank 1 (14)", "Q", (start @ basis[0]) ** 2 * rank_1 / 2, q_rank_1),
        Comparison("diagonal H (5), (13)", "Ω, theory H_ii / 2", curvatures / 2, importance[0]),
    ]


def draw(comparisons: list[Comparison]) -> Figure:
    """Draw theory and measurement on top of each other, a panel for each comparison of Q."""
    figure = Figure(figsize=(9.0, 6.0), layout="constrained")
    for axes, comparison in zip(figure.subplots(2, 2).flat, comparisons, strict=False):
        theory, measured = comparison.theory, comparison.measured
        count = len(theory)
        if theory.dim() == 2:
            above = torch.triu_indices(count, count, 1)
            theory, measured = (torch.cat([q.diagonal(), q[above[0], above[1]]]) for q in (theory, measured))
            axes.axvline(count + 0.5, color="0.6", linewidth=1)
        entries = range(1, len(theory) + 1)
        axes.axhline(0, color="0.85", linewidth=1, zorder=0)
        axes.plot(entries, theory, "o", markersize=10, markerfacecolor="none", color="0.25", label="theory")
        axes.plot(entries, measured, "x", markersize=6, markeredgewidth=1.6, color="C3", label="measured")
        axes.set_title(f"{comparison.name}: error {100 * comparison.error:.2f} %", loc="left", fontsize=10)
        axes.set_xticks([])
        axes.set_xlabel("diagonal" if len(theory) == count else "diagonal | above the diagonal")
        axes.set_ylabel("entries of Q")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=9)
    return figure


def main(options: Options) -> None:
    """Measure, write table, numbers and figure, and print the table."""
    options.check()
    # Refuses a folder that cannot be written to before any work.
    folder = prepare(options.out) / folder_name("quadratic", changes(options))
    comparisons = compare(options)
    cells = tuple((c.name, c.quantity, f"{100 * c.error:.2f}", f"{100 * c.worst:.2f}") for c in comparisons)
    columns = ("case (equation)", "quantity", "error %", "largest error of a parameter %")
    title = "Path integrals on quadratic losses: measurement against theory"
    table = pd.DataFrame(cells, columns=columns).set_index(columns[0])
    settings = {key: value for key, value in asdict(options).items() if key != "out"}
    notes = f"{options.parameters} parameters, step {options.step:g}, seed {options.seed}."
    source = "Zenke, Poole & Ganguli (ICML 2017), section 4. Errors are relative: of the whole quantity in the norm"
    source += " |measured - theory| / |theory|, and the largest one of a single parameter's value."
    text = f"# Section 4: quadratic losses\n\n{source}\n{notes}\n\n## {title}\n\n{markdown_table(table)}"
    write_text(folder / "summary.md", text)
    numbers = [
        {
            "case": c.name,
            "quantity": c.quantity,
            "error": c.error,
            "largest_error": c.worst,
            "theory": c.theory.tolist(),
            "measured": c.measured.tolist(),
        }
        for c in comparisons
    ]
    write_json(folder / "quadratic.json", {"settings": settings, "comparisons": numbers})
    files = save_figure(draw(comparisons), folder / "quadratic")
    say(f"{title}\n\n{terminal_table(table)}\n\nTable: {folder / 'summary.md'}   Figure: {files[0]}")


if __name__ == "__main__":
    run_analysis(main, Options, __doc__)

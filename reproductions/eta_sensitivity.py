"""Sensitivity to the initial eta: Table 4 and Figure 4 of the DHP paper (appendix A.5).

"Differentiable Hebbian consolidation for continual learning" (Thangarasa, Miconi & Taylor; submission to ICLR 2020):
the DHP network alone, without consolidation, with eta = 0.1, 0.01, 0.001, 0.0005 and 0.0001 to begin with. Everything
else is as in permuted_mnist.py and imbalanced_permuted_mnist.py (protocol ten_epochs) and in split_mnist.py. The
paper's means over 5 trials lie within 1.2 points of each other on permuted MNIST, 0.9 on imbalanced permuted MNIST and
0.2 on split MNIST.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from imbalanced_permuted_mnist import TEN_EPOCHS as IMBALANCED_PERMUTED_MNIST
from permuted_mnist import NETWORK as WIDE
from permuted_mnist import TEN_EPOCHS as PERMUTED_MNIST
from split_mnist import DHP as SPLIT_MNIST
from split_mnist import NETWORK as NARROW

from avsi.experiment import Experiment, main
from avsi.experiment.methods import dhp, plastic

PAPER = {
    "permuted": {0.1: 77.43, 0.01: 78.60, 0.001: 78.49, 0.0005: 78.05, 0.0001: 77.83},
    "imbalanced": {0.1: 80.00, 0.01: 80.13, 0.001: 80.85, 0.0005: 80.40, 0.0001: 80.47},
    "split": {0.1: 98.43, 0.01: 98.47, 0.001: 98.32, 0.0005: 98.37, 0.0001: 98.43},
}


def sensitivity(experiment: Experiment, protocol: str, network: Callable[..., Any], classes: int | None) -> Experiment:
    """Make of a benchmark's experiment the one that varies eta; without classes the network has a head per task."""
    methods = (
        replace(dhp(plastic(network, classes, eta=eta)), name=f"dhp_{eta:g}", label=f"DHP, η = {eta:g}")
        for eta in PAPER[protocol]
    )
    return replace(
        experiment,
        name=f"eta_sensitivity_{protocol}",
        title=f"{experiment.title}, initial η",
        protocol=protocol,
        source="Differentiable Hebbian consolidation for continual learning (ICLR 2020 submission), Table 4.",
        methods=tuple(methods),
        paper={f"dhp_{eta:g}": accuracy for eta, accuracy in PAPER[protocol].items()},
        trials=5,
    )


PERMUTED = sensitivity(PERMUTED_MNIST, "permuted", WIDE, 10)
IMBALANCED = sensitivity(IMBALANCED_PERMUTED_MNIST, "imbalanced", WIDE, 10)
SPLIT = sensitivity(SPLIT_MNIST, "split", NARROW, None)

if __name__ == "__main__":
    main(PERMUTED, IMBALANCED, SPLIT)

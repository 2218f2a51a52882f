"""Explicit against proximal: the penalty's two kinds of step at the papers' strengths and at ten times those.

Permuted MNIST as in the protocol dhp of permuted_mnist.py, with three tasks of three epochs: an MLP of 400-400 ReLU
units, plain SGD, learning rate 0.01. The strengths are those of "Differentiable Hebbian consolidation for continual
learning" (Thangarasa, Miconi & Taylor; submission to ICLR 2020), 0.1 for MAS and 100 for Online EWC, and 1 and 1000.

The explicit step of a quadratic penalty is unstable under SGD where 2 * strength * max Omega * lr > 2. Importances that
are exact per sample have maxima far above their means, so strengths that were chosen with importances of batches can
lie beyond that bound; training then diverges. The proximal step minimises the penalty exactly and is stable at any
strength: what remains to be seen is what a strength does to accuracy. No paper reports these numbers.
"""

from dataclasses import replace
from functools import partial

from permuted_mnist import DHP as PERMUTED_MNIST

from avsi.experiment import Method, lazy_imports, main
from avsi.experiment.methods import finetune

with lazy_imports():
    from avsi.scenarios import permuted_mnist
    from avsi.strategies import MAS, OnlineEWC

STRENGTHS = {"mas": ("MAS", MAS, (0.1, 1.0)), "online_ewc": ("Online EWC", OnlineEWC, (100.0, 1000.0))}

EXPERIMENT = replace(
    PERMUTED_MNIST,
    name="proximal",
    title="Permuted MNIST, explicit and proximal penalties",
    protocol="",
    source="Permuted MNIST, three tasks of three epochs; no paper reports these numbers.",
    scenario=partial(permuted_mnist, n_experiences=3, permute_first=True),
    epochs=3,
    patience=None,
    methods=(
        finetune(),
        *(
            Method(
                f"{name}_{strength:g}_{penalty}",
                partial(strategy, strength=strength, penalty=penalty),
                label=f"{label}, λ = {strength:g}, {penalty}",
            )
            for name, (label, strategy, strengths) in STRENGTHS.items()
            for strength in strengths
            for penalty in ("explicit", "proximal")
        ),
    ),
    paper={},
    trials=1,
)

if __name__ == "__main__":
    main(EXPERIMENT)

"""What moves eta, and what plasticity contributes: the DHP network on the first five tasks of permuted MNIST.

"Differentiable Hebbian consolidation for continual learning" (Thangarasa, Miconi & Taylor; submission to ICLR 2020)
reports in Figure 3 that eta rises from 0.001 to 0.024 in task 1, decays after task 3, and from task 4 on rises and
decays within each task, while the traces grow without runaway. It does not say what holds eta in its range; its
Listing 1 has nothing that does. Network and optimizer are those of permuted_mnist.py, ten epochs a task.

Rates: eta projected onto [0, 1] (dhp), free as in Listing 1, or a sigmoid; traces of features of unit length; eta with
a learning rate of its own, or weight decay on all parameters.
Contributions: dhp against the same layer with alpha = 0, where the traces have no effect on the outputs; with eta = 0,
where there are no traces; and with eta fixed at its initial 0.001.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from permuted_mnist import DHP, NETWORK

from avsi.experiment import Experiment, Method, lazy_imports, main
from avsi.experiment.methods import dhp, plastic

with lazy_imports():
    from dhp_parts import dhp_without, sgd_with_rate_of_eta
    from torch.optim import SGD

    from avsi.scenarios import permuted_mnist


HEBBIAN = partial(plastic, NETWORK, 10, eta=0.001)  # given further arguments of the layer
FULL = dhp(HEBBIAN())


def variant(name: str, label: str, **own: Any) -> Method:
    """Make the DHP method with a model or an optimizer of its own."""
    return replace(FULL, name=f"dhp_{name}", label=f"DHP, {label}", **own)


def without(**parts: Any) -> partial:
    """Build the network with parts of its plasticity taken out; see dhp_without."""
    return partial(NETWORK, partial(dhp_without, **parts))


EXPERIMENT = Experiment(
    name="plasticity",
    title="What moves eta, and what plasticity contributes",
    source="Permuted MNIST, five tasks; the DHP paper (ICLR 2020 submission) has no such table.",
    scenario=partial(permuted_mnist, n_experiences=5, permute_first=True, validation=0.1),
    model=DHP.model,
    optimizer=DHP.optimizer,
    epochs=10,
    batch_size=64,
    reset_optimizer=False,
    methods=(
        FULL,
        variant("free", "η free", model=HEBBIAN(eta_constraint="none")),
        variant("sigmoid", "η a sigmoid", model=HEBBIAN(eta_constraint="sigmoid")),
        variant("unit", "unit features", model=HEBBIAN(unit_features=True)),
        variant("unit_free", "unit features, η free", model=HEBBIAN(unit_features=True, eta_constraint="none")),
        variant(
            "unit_sigmoid", "unit features, η a sigmoid", model=HEBBIAN(unit_features=True, eta_constraint="sigmoid")
        ),
        *(
            variant(
                f"eta_lr_{rate:g}",
                f"η's learning rate {rate:g}",
                optimizer=partial(sgd_with_rate_of_eta, lr=0.01, eta_lr=rate),
            )
            for rate in (1e-3, 1e-4, 1e-5)
        ),
        *(
            variant(
                f"decay_{decay:g}",
                f"weight decay {decay:g}",
                optimizer=partial(SGD, lr=0.01, weight_decay=decay, fused=True),
            )
            for decay in (1e-4, 1e-3)
        ),
        variant("fixed", "η fixed", model=without()),
        variant("no_traces", "η = 0", model=without(eta=0.0)),
        variant("no_alpha", "alpha = 0", model=without(alpha=False)),
    ),
    trials=2,
)

if __name__ == "__main__":
    main(EXPERIMENT)

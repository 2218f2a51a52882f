"""Imbalanced permuted MNIST: permuted MNIST with training images removed, other numbers of each digit in each task.

The imbalanced permuted MNIST column of Table 1 and Figure 5 of "Differentiable Hebbian consolidation for continual
learning" (Thangarasa, Miconi & Taylor; submission to ICLR 2020), with the counts of its Table 2. Network, optimizer
and early stopping are those of permuted_mnist.py. The paper chose lambda = 400 for Online EWC, 1.0 for SI and 0.1 for
MAS by a grid search on one seed. Those of Online EWC and MAS are chosen anew for exact per-sample importances, on
validation data of seed 0 and from the paper's grids; the candidates can be run by name. Validation data are thinned
out as training data are; test sets stay whole, which the paper does not say of its own. Its networks without plasticity
have an extra set of slow weights in the output layer; here only finetune_matched has.
"""

from functools import partial

from torch.optim import SGD

from avsi.experiment import Experiment, Patience, Reported, main
from avsi.experiment.methods import (
    avalanche_ewc,
    avalanche_mas,
    avalanche_si,
    dhp,
    dropout,
    finetune,
    grid,
    joint,
    mas,
    matched_capacity,
    online_ewc,
    scratch,
    si,
    with_dhp,
)
from avsi.models import MLP, DHPLinear, MatchedLinear
from avsi.scenarios import imbalanced_permuted_mnist

PLASTIC = partial(MLP, 784, (400, 400), partial(DHPLinear, out_features=10, eta=0.001))
MATCHED = partial(MLP, 784, (400, 400), partial(MatchedLinear, out_features=10))
SI = si(1.0, damping=0.1, reported=Reported(85.92, bwt=-0.06))
ONLINE_EWC, DHP_ONLINE_EWC = Reported(87.18, bwt=-0.09), Reported(87.43, bwt=-0.08)
MAS, DHP_MAS = Reported(87.32, bwt=-0.09), Reported(88.80, bwt=-0.05)

EXPERIMENT = Experiment(
    name="imbalanced_permuted_mnist",
    title="Imbalanced permuted MNIST",
    source="Differentiable Hebbian consolidation for continual learning (ICLR 2020 submission), Table 1.",
    scenario=partial(imbalanced_permuted_mnist, permute_first=True),
    model=partial(MLP, 784, (400, 400)),
    optimizer=partial(SGD, lr=0.01),
    epochs=100,
    patience=Patience(epochs=5, at_least=10),
    batch_size=64,
    reset_optimizer=False,
    methods=(
        finetune(Reported(76.44, bwt=-0.20)),
        matched_capacity(MATCHED, Reported(76.44, bwt=-0.20)),
        dropout(partial(MLP, 784, (400, 400), dropout=0.5)),
        SI,
        online_ewc(50.0, ONLINE_EWC),
        mas(0.01, MAS),
        dhp(PLASTIC, Reported(80.85, bwt=-0.14)),
        with_dhp(SI, PLASTIC, Reported(85.39, bwt=-0.06)),
        with_dhp(online_ewc(50.0), PLASTIC, DHP_ONLINE_EWC),
        with_dhp(mas(0.01), PLASTIC, DHP_MAS),
        avalanche_si(1.0, damping=0.1),
        avalanche_ewc(400.0),
        avalanche_mas(0.1),
        scratch(),
        joint(),
        *grid(online_ewc, (50, 100, 400), {400: ONLINE_EWC}),
        *grid(mas, (0.01, 0.05, 0.1), {0.1: MAS}),
        *grid(lambda strength: with_dhp(online_ewc(strength), PLASTIC), (50, 100, 400, 1000), {400: DHP_ONLINE_EWC}),
        *grid(lambda strength: with_dhp(mas(strength), PLASTIC), (0.01, 0.05, 0.1), {0.1: DHP_MAS}),
    ),
    trials=10,
)

if __name__ == "__main__":
    main(EXPERIMENT)

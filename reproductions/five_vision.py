"""Vision datasets mixture: MNIST, notMNIST, FashionMNIST, SVHN and CIFAR-10 one after the other, with a head each.

The 5-vision column of Table 1 and Figure 6 of "Differentiable Hebbian consolidation for continual learning"
(Thangarasa, Miconi & Taylor; submission to ICLR 2020). Two convolutions and a fully connected layer, plain SGD, batches
of 32, 50 epochs per task, inputs in [0, 1]. An eta for each connection, which the paper found to be more stable. Its
strengths, chosen by a random search: lambda = 100 for Online EWC, 0.1 for SI and 1.0 for MAS, not tuned here. Its
networks without plasticity have an extra set of slow weights in the output layer; here only finetune_matched has.

Protocol without_svhn: the same with the other four data sets, for where SVHN cannot be had. Its results say that they
are partial; the paper reports nothing to hold them against.
"""

from dataclasses import replace
from functools import partial

from torch.optim import SGD

from avsi.experiment import Experiment, Reported, main
from avsi.experiment.methods import (
    avalanche_ewc,
    avalanche_mas,
    avalanche_si,
    dhp,
    dropout,
    finetune,
    joint,
    mas,
    matched_capacity,
    online_ewc,
    scratch,
    si,
    with_dhp,
)
from avsi.models import DHPLinear, MatchedLinear, MultiHead, VisionMixtureNet
from avsi.scenarios import five_vision

DHP_HEAD = partial(DHPLinear, eta=0.0001, per_connection_eta=True)
PLASTIC = partial(VisionMixtureNet, partial(MultiHead, head=DHP_HEAD))
MATCHED = partial(VisionMixtureNet, partial(MultiHead, head=MatchedLinear))
SI = si(0.1, damping=0.1, reported=Reported(81.26, bwt=-0.06))
ONLINE_EWC = online_ewc(100.0, Reported(78.61, bwt=-0.07))
MAS = mas(1.0, Reported(78.51, bwt=-0.05))

EXPERIMENT = Experiment(
    name="five_vision",
    title="Vision datasets mixture",
    protocol="five_vision",
    source="Differentiable Hebbian consolidation for continual learning (ICLR 2020 submission), Table 1.",
    scenario=five_vision,
    model=VisionMixtureNet,
    optimizer=partial(SGD, lr=0.01),
    epochs=50,
    batch_size=32,
    reset_optimizer=False,
    methods=(
        finetune(Reported(60.02, bwt=-0.33)),
        matched_capacity(MATCHED, Reported(60.02, bwt=-0.33)),
        dropout(partial(VisionMixtureNet, dropout=0.5)),
        SI,
        ONLINE_EWC,
        MAS,
        dhp(PLASTIC, Reported(62.94, bwt=-0.26)),
        with_dhp(SI, PLASTIC, Reported(81.75, bwt=-0.04)),
        with_dhp(ONLINE_EWC, PLASTIC, Reported(79.10, bwt=-0.04)),
        with_dhp(MAS, PLASTIC, Reported(80.66, bwt=-0.01)),
        avalanche_si(0.1, damping=0.1),
        avalanche_ewc(100.0),
        avalanche_mas(1.0),
        scratch(),
        joint(),
    ),
    trials=10,
)

WITHOUT_SVHN = replace(
    EXPERIMENT,
    name="five_vision_without_svhn",
    title="Vision datasets mixture without SVHN",
    protocol="without_svhn",
    source="Partial: the protocol of the DHP paper's Table 1 on four of its five data sets; no paper reports it.",
    scenario=partial(five_vision, datasets=("mnist", "notmnist", "fashion_mnist", "cifar10")),
    methods=tuple(replace(method, reported=None) for method in EXPERIMENT.methods),
)

if __name__ == "__main__":
    main(EXPERIMENT, WITHOUT_SVHN)

"""Vision datasets mixture: MNIST, notMNIST, FashionMNIST, SVHN and CIFAR-10 one after the other, with a head each.

The 5-vision column of Table 1 and Figure 6 of "Differentiable Hebbian consolidation for continual learning"
(Thangarasa, Miconi & Taylor; submission to ICLR 2020). Two convolutions and a fully connected layer, plain SGD, batches
of 32, 50 epochs per task, inputs in [0, 1]. An eta for each connection, which the paper found to be more stable. Its
strengths, chosen by a random search: lambda = 100 for Online EWC, 0.1 for SI and 1.0 for MAS, not tuned here. Its
networks without plasticity have an extra set of slow weights in the output layer: the methods called matched.

Protocol without_svhn: the same with the other four data sets, for where SVHN cannot be had. Its results say that they
are partial; the paper reports nothing to hold them against.
"""

from dataclasses import replace
from functools import partial

from avsi.experiment import Experiment, lazy_imports, main
from avsi.experiment.methods import dhp_table, mas, of_matched_networks, online_ewc, references, si

with lazy_imports():
    from torch.optim import SGD

    from avsi.models import VisionMixtureNet
    from avsi.scenarios import five_vision

EXPERIMENT = Experiment(
    name="five_vision",
    title="Vision datasets mixture",
    protocol="five_vision",
    source="Differentiable Hebbian consolidation for continual learning (ICLR 2020 submission), Table 1.",
    scenario=five_vision,
    model=VisionMixtureNet,
    optimizer=partial(SGD, lr=0.01, fused=True),
    epochs=50,
    batch_size=32,
    reset_optimizer=False,
    channels_last=True,
    methods=(
        *dhp_table(
            VisionMixtureNet,
            (si(0.1, damping=0.1), online_ewc(100.0), mas(1.0)),
            eta=0.0001,
            per_connection_eta=True,
        ),
        *references(si=0.1, damping=0.1, ewc=100.0, mas=1.0, network=VisionMixtureNet),
    ),
    paper=of_matched_networks(
        {
            "finetune": (60.02, -0.33),
            "si": (81.26, -0.06),
            "online_ewc": (78.61, -0.07),
            "mas": (78.51, -0.05),
            "dhp": (62.94, -0.26),
            "dhp+si": (81.75, -0.04),
            "dhp+online_ewc": (79.10, -0.04),
            "dhp+mas": (80.66, -0.01),
        }
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
    paper={},
)

if __name__ == "__main__":
    main(EXPERIMENT, WITHOUT_SVHN)

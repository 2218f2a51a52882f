"""Split MNIST: five tasks of two digits each, an MLP of 256-256 ReLU units with a head per task, 10 epochs per task.

Protocol zenke: Figure 3 of Zenke, Poole & Ganguli, "Continual learning through synaptic intelligence" (ICML 2017).
Adam, its state reset after each task. The figure gives curves, not numbers: with c = 1 the accuracy on all tasks stays
close to 100 %, without consolidation the first two tasks drop back to chance level. The authors' notebook evaluates on
training images; this uses the test images. As in their code, hidden layers start as Keras's do (Glorot uniform) and
output layers at zero. That code resets Adam's moments and not its count of steps
(:class:`~avsi.experiment.step_count.KeepStepCount`): the methods whose names end in authors do so too.

Protocol dhp: the split MNIST column of Table 1 of "Differentiable Hebbian consolidation for continual learning"
(Thangarasa, Miconi & Taylor; submission to ICLR 2020). Plain SGD. The paper's networks without plasticity have an extra
set of slow weights in the output layer: the methods called matched, which start as those with DHP do. The paper does
not say how many output layers there are; here each task has one, whose traces and eta are its own. SI holds nothing in
the first task, as in the paper of SI.
"""

from functools import partial

from avsi.experiment import Experiment, lazy_imports, main
from avsi.experiment.methods import (
    authors_reset,
    avalanche_si,
    dhp_table,
    finetune,
    joint,
    mas,
    of_matched_networks,
    online_ewc,
    references,
    scratch,
    si,
)

with lazy_imports():
    from torch.optim import SGD, Adam

    from avsi.models import MLP, MultiHead, glorot_uniform, zero_linear
    from avsi.scenarios import split_mnist

NETWORK = partial(MLP, 784, (256, 256))

ZENKE = Experiment(
    name="split_mnist_zenke",
    title="Split MNIST",
    protocol="zenke",
    source="Zenke, Poole & Ganguli (ICML 2017), Figure 3.",
    scenario=split_mnist,
    model=partial(NETWORK, head=partial(MultiHead, head=zero_linear), init=glorot_uniform),
    optimizer=partial(Adam, lr=1e-3, betas=(0.9, 0.999), fused=True),
    epochs=10,
    batch_size=64,
    reset_optimizer=True,
    methods=(
        finetune(),
        si(1.0, damping=1e-3),
        authors_reset(finetune()),
        authors_reset(si(1.0, damping=1e-3)),
        avalanche_si(1.0, damping=1e-3),
        scratch(),
        joint(),
    ),
    trials=10,
)

DHP = Experiment(
    name="split_mnist_dhp",
    title="Split MNIST",
    protocol="dhp",
    source="Differentiable Hebbian consolidation for continual learning (ICLR 2020 submission), Table 1.",
    scenario=split_mnist,
    model=partial(NETWORK, head=MultiHead),
    optimizer=partial(SGD, lr=0.01, fused=True),
    epochs=10,
    batch_size=64,
    reset_optimizer=False,
    methods=(
        *dhp_table(NETWORK, (si(1.0, damping=1e-3), online_ewc(400.0), mas(1.5)), eta=0.001),
        *references(si=1.0, damping=1e-3, ewc=400.0, mas=1.5, network=partial(NETWORK, head=MultiHead)),
    ),
    paper=of_matched_networks(
        {
            "finetune": (90.43, -0.13),
            "si": (97.77, -0.04),
            "online_ewc": (97.65, -0.03),
            "mas": (98.24, -0.02),
            "dhp": (98.23, -0.02),
            "dhp+si": (99.15, 0.0),
            "dhp+online_ewc": (98.96, -0.01),
            "dhp+mas": (98.43, -0.01),
        }
    ),
    trials=10,
)

if __name__ == "__main__":
    main(ZENKE, DHP)

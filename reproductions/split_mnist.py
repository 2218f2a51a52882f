"""Split MNIST: five tasks of two digits each, an MLP of 256-256 ReLU units with a head per task, 10 epochs per task.

Protocol zenke: Figure 3 of Zenke, Poole & Ganguli, "Continual learning through synaptic intelligence" (ICML 2017).
Adam, its state reset after each task. The figure gives curves, not numbers: with c = 1 the accuracy on all tasks stays
close to 100 %, without consolidation the first two tasks drop back to chance level. The authors' notebook evaluates on
training images; this uses the test images. Hidden layers are initialised as in their code (Keras's Glorot uniform).

Protocol dhp: the split MNIST column of Table 1 of "Differentiable Hebbian consolidation for continual learning"
(Thangarasa, Miconi & Taylor; submission to ICLR 2020). Plain SGD. The paper's networks without plasticity have an extra
set of slow weights in the output layer; here only finetune_matched has.
"""

from functools import partial

from torch.optim import SGD, Adam

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
from avsi.models import MLP, DHPLinear, MatchedLinear, MultiHead, glorot_uniform
from avsi.scenarios import split_mnist

ZENKE = Experiment(
    name="split_mnist_zenke",
    title="Split MNIST",
    protocol="zenke",
    source="Zenke, Poole & Ganguli (ICML 2017), Figure 3.",
    scenario=split_mnist,
    model=partial(MLP, 784, (256, 256), MultiHead, init=glorot_uniform),
    optimizer=partial(Adam, lr=1e-3, betas=(0.9, 0.999)),
    epochs=10,
    batch_size=64,
    reset_optimizer=True,
    methods=(finetune(), si(1.0, damping=1e-3), avalanche_si(1.0, damping=1e-3), scratch(), joint()),
    trials=10,
)

PLASTIC = partial(MLP, 784, (256, 256), partial(MultiHead, head=partial(DHPLinear, eta=0.001)))
MATCHED = partial(MLP, 784, (256, 256), partial(MultiHead, head=MatchedLinear))
SI = si(1.0, damping=1e-3, reported=Reported(97.77, bwt=-0.04))
ONLINE_EWC = online_ewc(400.0, Reported(97.65, bwt=-0.03))
MAS = mas(1.5, Reported(98.24, bwt=-0.02))

DHP = Experiment(
    name="split_mnist_dhp",
    title="Split MNIST",
    protocol="dhp",
    source="Differentiable Hebbian consolidation for continual learning (ICLR 2020 submission), Table 1.",
    scenario=split_mnist,
    model=partial(MLP, 784, (256, 256), MultiHead),
    optimizer=partial(SGD, lr=0.01),
    epochs=10,
    batch_size=64,
    reset_optimizer=False,
    methods=(
        finetune(Reported(90.43, bwt=-0.13)),
        matched_capacity(MATCHED, Reported(90.43, bwt=-0.13)),
        dropout(partial(MLP, 784, (256, 256), MultiHead, dropout=0.5)),
        SI,
        ONLINE_EWC,
        MAS,
        dhp(PLASTIC, Reported(98.23, bwt=-0.02)),
        with_dhp(SI, PLASTIC, Reported(99.15, bwt=0.0)),
        with_dhp(ONLINE_EWC, PLASTIC, Reported(98.96, bwt=-0.01)),
        with_dhp(MAS, PLASTIC, Reported(98.43, bwt=-0.01)),
        avalanche_si(1.0, damping=1e-3),
        avalanche_ewc(400.0),
        avalanche_mas(1.5),
        scratch(),
        joint(),
    ),
    trials=10,
)

if __name__ == "__main__":
    main(ZENKE, DHP)

r"""Permuted MNIST as continual-learning-baselines trains it, where EWC and Synaptic Intelligence fall short.

"Close the performance gap" (github.com/ContinualAI/continual-learning-baselines/issues/33): ten tasks, all permuted,
one output layer, inputs normalised with MNIST's mean and standard deviation, 10 epochs in batches of 256.

Protocol ewc: one hidden layer of 512, SGD with learning rate 0.001. Reported with Avalanche's EWC, lambda = 1: 0.83;
expected: 0.94. "scratch" learns each task by itself, "joint" all at once: nothing that trains like this can do better.
Protocol ewc_adam: the same with Adam.
Protocol si: one hidden layer of 1000, Adam with learning rate 0.001. Reported with Avalanche's SI, lambda = 10,
epsilon = 0.1: 0.83; expected: 0.95.

They run Avalanche's EWC in its mode "separate"; here it is in its mode "online" without decay, as Online EWC is.
Strengths of theirs belong to Avalanche's importances, which are other quantities. Here they are chosen on validation
data of seed 0 (a tenth of each class's training images is held out throughout):

    python reproductions/close_the_gap.py --protocol si --methods si --sweep si.strength=0.01,0.1,0.3,1,10
    python reproductions/close_the_gap.py --methods online_ewc --sweep online_ewc.strength=log:1:1e3:4
    python reproductions/close_the_gap.py --methods avalanche_ewc --sweep avalanche_ewc.ewc_lambda=1,1e2,1e4
    python reproductions/close_the_gap.py --protocol ewc_adam --methods exact --sweep exact.strength=log:1e-1:1e4:6
    python reproductions/close_the_gap.py --protocol ewc_adam --methods avalanche_ewc \
        --sweep avalanche_ewc.ewc_lambda=1,1e2,1e3,1e4,1e5
"""

from dataclasses import replace
from functools import partial

from avsi.experiment import Experiment, lazy_imports, main
from avsi.experiment.methods import avalanche_ewc, avalanche_si, finetune, joint, online_ewc, scratch, si

with lazy_imports():
    from torch.optim import SGD, Adam
    from torchvision.transforms.v2.functional import normalize

    from avsi.models import MLP
    from avsi.scenarios import permuted_mnist

NORMALISED = partial(normalize, mean=[0.1307], std=[0.3081])

EWC = Experiment(
    name="close_the_gap_ewc",
    title="Permuted MNIST as continual-learning-baselines trains it, EWC",
    protocol="ewc",
    source="continual-learning-baselines, issue 33 and experiments/permuted_mnist.",
    scenario=partial(
        permuted_mnist, permute_first=True, validation=0.1, train_transform=NORMALISED, eval_transform=NORMALISED
    ),
    model=partial(MLP, 784, (512,), 10),
    optimizer=partial(SGD, lr=1e-3, fused=True),
    epochs=10,
    batch_size=256,
    reset_optimizer=False,
    methods=(
        finetune(),
        online_ewc(100.0),
        online_ewc(100.0, "exact", name="exact"),
        avalanche_ewc(1.0),
        scratch(),
        joint(),
    ),
    paper={"avalanche_ewc": 83.0},
    trials=3,
)

EWC_ADAM = replace(
    EWC,
    name="close_the_gap_ewc_adam",
    title="Permuted MNIST as continual-learning-baselines trains it, EWC with Adam",
    protocol="ewc_adam",
    optimizer=partial(Adam, lr=1e-3, fused=True),
    paper={},
)

SI = replace(
    EWC_ADAM,
    name="close_the_gap_si",
    title="Permuted MNIST as continual-learning-baselines trains it, Synaptic Intelligence",
    protocol="si",
    model=partial(MLP, 784, (1000,), 10),
    methods=(finetune(), si(0.1, damping=0.1), avalanche_si(10.0, damping=0.1), scratch(), joint()),
    paper={"avalanche_si": 83.0},
)

if __name__ == "__main__":
    main(EWC, EWC_ADAM, SI)

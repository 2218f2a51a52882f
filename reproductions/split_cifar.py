"""Split CIFAR-10/100: Figure 6 of Zenke, Poole & Ganguli, "Continual learning through synaptic intelligence".

Task 1 is CIFAR-10, tasks 2 to 6 are ten consecutive classes of CIFAR-100 each; a convolutional network with a head per
task, Adam with its state reset after each task, 60 epochs per task, no augmentation. The figure shows final test
accuracy by task; the numbers below are those of the authors' released data. Its caption says c = 0.1; what the text
says of it, such as that SI is better than from scratch on all tasks but the first, fits the data for c = 0.01. Hidden
layers start as Keras's do and heads at zero, as in the authors' code. That code resets Adam's moments and not its count
of steps, which makes the first hundreds of steps of a task several times longer
(:class:`~avsi.experiment.step_count.KeepStepCount`); the methods whose names end in authors do so too. The paper has no
Online EWC and no MAS; their strengths are the DHP paper's for split MNIST, not tuned here. DHP is in Figure 8 of the
DHP paper, which states no hyper-parameters for it: eta is its 0.001.
"""

from functools import partial

from avsi.experiment import Experiment, Reported, lazy_imports, main
from avsi.experiment.methods import authors_reset, dhp_table, finetune, mas, online_ewc, references, si

with lazy_imports():
    from torch.optim import Adam

    from avsi.models import MultiHead, SplitCIFARNet, glorot_uniform, zero_linear
    from avsi.scenarios import split_cifar

NETWORK = partial(SplitCIFARNet, init=glorot_uniform)
FINETUNE = Reported(62.5, tasks=(45.9, 54.9, 57.0, 68.7, 67.5, 81.0))
SI = Reported(73.5, tasks=(74.6, 71.8, 71.4, 74.4, 70.4, 78.6))

EXPERIMENT = Experiment(
    name="split_cifar",
    title="Split CIFAR-10/100",
    source="Zenke, Poole & Ganguli (ICML 2017), Figure 6; values from the authors' released data.",
    scenario=split_cifar,
    model=partial(NETWORK, head=partial(MultiHead, head=zero_linear)),
    optimizer=partial(Adam, lr=1e-3, betas=(0.9, 0.999), fused=True),
    epochs=60,
    batch_size=256,
    reset_optimizer=True,
    channels_last=True,
    methods=(
        *dhp_table(NETWORK, (si(0.01, damping=1e-3), online_ewc(400.0), mas(1.5)), eta=0.001),
        si(0.1, damping=1e-3, name="si_0.1"),
        authors_reset(finetune()),
        authors_reset(si(0.01, damping=1e-3)),
        *references(si=0.1, damping=1e-3, ewc=400.0, mas=1.5),
    ),
    paper={
        "finetune": FINETUNE,
        "finetune_authors": FINETUNE,
        "si": SI,
        "si_authors": SI,
        "si_0.1": Reported(72.0, tasks=(78.3, 74.3, 68.2, 71.9, 67.0, 72.5)),
        "scratch": Reported(71.1, tasks=(80.4, 69.0, 64.7, 73.3, 67.9, 71.3)),
        "dhp": 61.28,
    },
    trials=5,
)

if __name__ == "__main__":
    main(EXPERIMENT)

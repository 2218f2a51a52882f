"""Split MNIST: Figure 3 of Zenke, Poole & Ganguli, "Continual learning through synaptic intelligence" (ICML 2017).

Five tasks of two digits each; an MLP of 256-256 ReLU units with a head per task, Adam with its state reset after each
task, 10 epochs per task. The figure gives curves, not numbers: with c = 1 the accuracy on all tasks stays close to
100 %, without consolidation the first two tasks drop back to chance level. The authors' notebook evaluates on training
images; this uses the test images. Hidden layers start as Keras's do and heads at zero, as in the authors' code.
"""

from functools import partial

from torch.optim import Adam

from avsi.experiment import Experiment, main
from avsi.experiment.methods import avalanche_si, finetune, joint, scratch, si
from avsi.models import MLP, MultiHead, glorot_uniform, zero_linear
from avsi.scenarios import split_mnist

EXPERIMENT = Experiment(
    name="split_mnist",
    title="Split MNIST",
    source="Zenke, Poole & Ganguli (ICML 2017), Figure 3.",
    scenario=split_mnist,
    model=partial(MLP, 784, (256, 256), partial(MultiHead, head=zero_linear), init=glorot_uniform),
    optimizer=partial(Adam, lr=1e-3, betas=(0.9, 0.999)),
    epochs=10,
    batch_size=64,
    reset_optimizer=True,
    methods=(finetune(), si(1.0, damping=1e-3), avalanche_si(1.0, damping=1e-3), scratch(), joint()),
    trials=10,
)

if __name__ == "__main__":
    main(EXPERIMENT)

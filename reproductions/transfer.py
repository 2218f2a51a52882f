"""Transfer to a task with few examples: Figure 3 of "Intelligent synapses for multi-task and transfer learning".

Zenke, Poole & Ganguli (ICLR 2017 workshop). A network learns a large task and then a small one. The figure shows the
accuracy on the small task after learning it, which is the last column of the table by task. It gives bars, not numbers:
Synaptic Intelligence is above feature extraction (all but the output layer frozen), fine-tuning and training from
scratch in both halves; n = 5.

Protocol cifar, left: CIFAR-10's classes 0-7, then 8 against 9 with 50 images per class; chance is 50 %.
Protocol mnist_background, right: MNIST, then MNIST with background images, 10 per class; chance is 10 %. Where you have
not provided the original files the second data set is a rebuild, and the results say so.

The paper says of its protocol that the left network was convolutional and that strengths c are "typically chosen in the
range of 1"; the rest is a choice. Left: network, optimizer, batches and epochs of the authors' split CIFAR experiment
(ICML 2017). Right: those of their split MNIST experiment, but 50 epochs, as 10 are only 20 steps on the small task.
Both reset Adam between the tasks, start hidden layers as Keras does and output
layers at zero, as the authors' code for both experiments does. The other methods are not in the figure;
strengths of Online EWC and MAS are the DHP paper's for split MNIST, not tuned here.
"""

from functools import partial

from avsi.experiment import Experiment, Method, lazy_imports, main
from avsi.experiment.methods import (
    avalanche_si,
    dhp,
    feature_extraction,
    finetune,
    joint,
    mas,
    online_ewc,
    plastic,
    scratch,
    si,
    with_dhp,
)

with lazy_imports():
    from torch.optim import Adam

    from avsi.models import MLP, MultiHead, SplitCIFARNet, glorot_uniform, zero_linear
    from avsi.scenarios import cifar_transfer, mnist_background

HEADS = partial(MultiHead, head=zero_linear)
CONVOLUTIONAL = partial(SplitCIFARNet, init=glorot_uniform)
PERCEPTRON = partial(MLP, 784, (256, 256), init=glorot_uniform)


def methods(network: partial) -> tuple[Method, ...]:
    """List the methods of both halves, the figure's first."""
    chosen, hebbian = si(1.0, damping=1e-3), plastic(network)
    return (
        chosen,
        feature_extraction(),
        finetune(),
        scratch(),
        si(0.1, damping=1e-3, name="si_0.1"),
        online_ewc(400.0),
        mas(1.5),
        dhp(hebbian),
        with_dhp(chosen, hebbian),
        avalanche_si(1.0, damping=1e-3),
        joint(),
    )


CIFAR = Experiment(
    name="transfer_cifar",
    title="Transfer: CIFAR-10's classes 0-7 to 8 against 9",
    protocol="cifar",
    source="Zenke, Poole & Ganguli (ICLR 2017 workshop), Figure 3, left: accuracy on task 2.",
    scenario=cifar_transfer,
    model=partial(CONVOLUTIONAL, head=HEADS),
    optimizer=partial(Adam, lr=1e-3, betas=(0.9, 0.999), fused=True),
    epochs=60,
    batch_size=256,
    reset_optimizer=True,
    channels_last=True,
    methods=methods(CONVOLUTIONAL),
    trials=5,
)

MNIST_BACKGROUND = Experiment(
    name="transfer_mnist_background",
    title="Transfer: MNIST to MNIST with background images",
    protocol="mnist_background",
    source="Zenke, Poole & Ganguli (ICLR 2017 workshop), Figure 3, right: accuracy on task 2.",
    scenario=mnist_background,
    model=partial(PERCEPTRON, head=HEADS),
    optimizer=partial(Adam, lr=1e-3, betas=(0.9, 0.999), fused=True),
    epochs=50,
    batch_size=64,
    reset_optimizer=True,
    methods=methods(PERCEPTRON),
    trials=5,
)

if __name__ == "__main__":
    main(CIFAR, MNIST_BACKGROUND)

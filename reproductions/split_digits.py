"""Split digits: fine-tuning against Synaptic Intelligence on real handwriting that needs no download.

Five tasks of two digits each, from scikit-learn's 8x8 digits. The protocol is that of split MNIST in Zenke, Poole &
Ganguli (2017) with smaller batches, more epochs and a larger learning rate, since a task has only about 290 training
images. No paper reports this benchmark.

The networks fit their few training images perfectly, where gradients for the data's own labels vanish and the empirical
Fisher information with them; Online EWC takes the expectation over labels here.
"""

from functools import partial

from avsi.experiment import Experiment, lazy_imports, main
from avsi.experiment.methods import dhp_table, mas, online_ewc, references, si

with lazy_imports():
    from torch.optim import Adam

    from avsi.models import MLP, MultiHead
    from avsi.scenarios import split_digits

NETWORK = partial(MLP, 64, (256, 256))

EXPERIMENT = Experiment(
    name="split_digits",
    title="Split digits",
    source="Five tasks of two digits each from scikit-learn's 8x8 digits; no paper reports this benchmark.",
    scenario=split_digits,
    model=partial(NETWORK, head=MultiHead),
    optimizer=partial(Adam, lr=3e-3, fused=True),
    epochs=30,
    batch_size=16,
    reset_optimizer=True,
    methods=(
        *dhp_table(NETWORK, (si(1.0, damping=1e-3), online_ewc(1e4, labels="exact"), mas(0.5))),
        *references(si=1.0, damping=1e-3, ewc=1e4, mas=0.5, network=partial(NETWORK, head=MultiHead)),
    ),
    trials=5,
)

if __name__ == "__main__":
    main(EXPERIMENT)

"""Imbalanced permuted MNIST: permuted MNIST with training images removed, other numbers of each digit in each task.

The imbalanced permuted MNIST column of Table 1 and Figure 5 of "Differentiable Hebbian consolidation for continual
learning" (Thangarasa, Miconi & Taylor; submission to ICLR 2020), with the counts of its Table 2. Network, optimizer
and the two protocols are those of permuted_mnist.py. The paper chose lambda = 400 for Online EWC, 1.0 for SI and 0.1
for MAS by a grid search on one seed. Here SI has the paper's strength; Online EWC and MAS have the better of 50 and
100, and of 0.01 and 0.05, on validation data of seed 0 with early stopping, which is the lower one; they were
chosen with validation images drawn another way than now, by trials that are in this repository's history.

Test sets are whole. The paper does not say whether its are, or are thinned out like the training data. The second
reading needs no other training: accuracies are recorded by class, and weighted by the test images that would be left of
each they are those to be expected on thinned test sets.
"""

from dataclasses import replace
from functools import partial

from permuted_mnist import DHP as PERMUTED
from permuted_mnist import NETWORK, SI

from avsi.experiment import lazy_imports, main
from avsi.experiment.methods import dhp_table, mas, of_matched_networks, online_ewc, references

with lazy_imports():
    from avsi.scenarios import imbalanced_permuted_mnist

EARLY_STOPPING = replace(
    PERMUTED,
    name="imbalanced_permuted_mnist",
    title="Imbalanced permuted MNIST",
    scenario=partial(imbalanced_permuted_mnist, permute_first=True),
    methods=(
        *dhp_table(NETWORK, (SI(1.0), online_ewc(50.0), mas(0.01)), classes=10, eta=0.001),
        *references(si=1.0, damping=0.1, ewc=400.0, mas=0.1, network=partial(NETWORK, head=10)),
    ),
    paper=of_matched_networks(
        {
            "finetune": (76.44, -0.20),
            "si": (85.92, -0.06),
            "online_ewc": (87.18, -0.09),
            "mas": (87.32, -0.09),
            "dhp": (80.85, -0.14),
            "dhp+si": (85.39, -0.06),
            "dhp+online_ewc": (87.43, -0.08),
            "dhp+mas": (88.80, -0.05),
        }
    ),
)

TEN_EPOCHS = replace(
    EARLY_STOPPING,
    name="imbalanced_permuted_mnist_ten_epochs",
    title="Imbalanced permuted MNIST, ten epochs",
    protocol="ten_epochs",
    scenario=partial(imbalanced_permuted_mnist, permute_first=True, validation=0.1),
    epochs=10,
    patience=None,
)

if __name__ == "__main__":
    main(EARLY_STOPPING, TEN_EPOCHS)

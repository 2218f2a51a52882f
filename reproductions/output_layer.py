"""What the DHP paper's output layers contribute without plasticity: split MNIST as in its Table 1.

Networks with DHP differ from plain ones in more than traces: their output layers have no bias, start as Listing 1 has
it, and have coefficients beside the weights. Of its controls the paper says that they have "an extra set of slow
weights", and nothing of bias and initialisation; here ("matched") they have those of DHP. One comes after the other:
plain layers; without bias; with Listing 1's initialisation, too; with two sets of weights, too, which is the matched
control. The other reading of the control is there as well: two sets that start as PyTorch has it.
"""

from dataclasses import replace
from functools import partial

from split_mnist import DHP, NETWORK

from avsi.experiment import lazy_imports, main
from avsi.experiment.methods import finetune, si

with lazy_imports():
    from dhp_parts import plain_sets, slow_linear
    from torch.nn import Linear

    from avsi.models import MatchedLinear, MultiHead


EXPERIMENT = replace(
    DHP,
    name="output_layer",
    title="Split MNIST, output layers without plasticity",
    protocol="",
    source="Split MNIST as in the DHP paper (ICLR 2020 submission); it has no such table.",
    methods=tuple(
        replace(
            method,
            name=f"{method.name}_{name}",
            label=f"{method.label}, {label}",
            model=partial(NETWORK, head=partial(MultiHead, head=layer)),
        )
        for method in (finetune(), si(1.0, damping=1e-3))
        for name, label, layer in (
            ("plain", "plain", Linear),
            ("no_bias", "no bias", partial(Linear, bias=False)),
            ("one_set", "Listing 1's initialisation", slow_linear),
            ("two_sets", "matched", MatchedLinear),
            ("plain_sets", "two sets, PyTorch's initialisation", plain_sets),
        )
    ),
    paper={},
    trials=5,
)

if __name__ == "__main__":
    main(EXPERIMENT)

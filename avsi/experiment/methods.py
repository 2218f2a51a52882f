"""The methods that experiments compare: each function makes a :class:`~avsi.experiment.Method`.

Strengths are c of Synaptic Intelligence and lambda of the others, damping is xi. Where a method is told to need a
network, that is a function that builds the model, given its output layer as ``head``.

Example:
    >>> from functools import partial
    >>> from avsi.experiment.methods import finetune, mas, plastic, si, with_dhp
    >>> from avsi.models import MLP
    >>> network = partial(MLP, 784, (256, 256))
    >>> [method.name for method in (finetune(), si(1.0, damping=1e-3), with_dhp(mas(0.1), plastic(network)))]
    ['finetune', 'si', 'dhp+mas']
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from avsi.experiment.names import lazy_imports
from avsi.experiment.spec import Method

if TYPE_CHECKING:
    from avsi.importance.estimators import Labels

with lazy_imports():
    from avalanche.training import EWC as AvalancheEWC
    from avalanche.training import MAS as AvalancheMAS
    from avalanche.training import JointTraining, Naive
    from avalanche.training import SynapticIntelligence as AvalancheSI

    from avsi import DHPPlugin
    from avsi.experiment.batched_fisher import BatchedEWC
    from avsi.experiment.feature_extraction import FreezeFeatures
    from avsi.experiment.step_count import KeepStepCount
    from avsi.hebbian import DHPLinear
    from avsi.models import MatchedLinear, MultiHead
    from avsi.strategies import DHP, MAS, OnlineEWC, SynapticIntelligence

Model = Callable[..., Any]


def finetune(name: str = "finetune", label: str = "fine-tuning", **own: Any) -> Method:
    """Plain training on one task after the other, the lower bound; with ``model`` or ``optimizer``, one of its own."""
    return Method(name, Naive, label=label, **own)


def dropout(model: Model) -> Method:
    """Fine-tuning of a model with dropout."""
    return finetune("dropout", "fine-tuning, dropout", model=model)


def feature_extraction() -> Method:
    """Fine-tuning of the output layer alone, after ordinary training on the first task."""
    return Method("feature_extraction", Naive, label="feature extraction", plugins=(FreezeFeatures,))


def authors_reset(method: Method) -> Method:
    """A method with Adam reset as the SI authors' code does it: the moments, and not the count of steps."""
    name, label = f"{method.name}_authors", f"{method.label}, authors' reset"
    return replace(method, name=name, label=label, plugins=(*method.plugins, KeepStepCount))


def scratch() -> Method:
    """A fresh model for each task: what the task's data alone can teach."""
    return Method("scratch", Naive, "independent", "from scratch")


def joint() -> Method:
    """One model trained on all tasks at once: the upper bound."""
    return Method("joint", JointTraining, "joint", "joint training")


def si(strength: float, damping: float, name: str = "si") -> Method:
    """Synaptic Intelligence; give it a name where an experiment has several strengths."""
    strategy = partial(SynapticIntelligence, strength=strength, damping=damping)
    return Method(name, strategy, label=f"SI, c = {strength:g}")


def online_ewc(
    strength: float, labels: Labels = "empirical", name: str = "online_ewc", max_samples: int | None = None
) -> Method:
    """Online EWC with gamma = 1 and the per-sample Fisher information.

    Args:
        strength: lambda.
        labels: Which labels the Fisher information is taken over, see :func:`avsi.fisher_diagonal`.
        name: The method's name, where an experiment has it more than once.
        max_samples: How many samples of a task it is measured on; None: all.

    Returns:
        The method.
    """
    strategy = partial(OnlineEWC, strength=strength, labels=labels)
    if max_samples is not None:
        strategy = partial(strategy, max_samples=max_samples)
    kind = "" if labels == "empirical" else f", {labels}"
    return Method(name, strategy, label=f"Online EWC{kind}, λ = {strength:g}")


def batched_ewc(strength: float) -> Method:
    """Online EWC with squares of mini-batch gradients in batches of the training's size, shown for what it does."""
    return Method("batched", partial(BatchedEWC, strength=strength), label=f"batched, λ = {strength:g}")


def mas(strength: float) -> Method:
    """Memory Aware Synapses."""
    return Method("mas", partial(MAS, strength=strength), label=f"MAS, λ = {strength:g}")


def avalanche_si(strength: float, damping: float) -> Method:
    """Avalanche's own Synaptic Intelligence, shown for what it does."""
    return Method("avalanche_si", partial(AvalancheSI, si_lambda=strength, eps=damping), label="Avalanche's own SI")


def avalanche_ewc(strength: float) -> Method:
    """Avalanche's own EWC in its online mode without decay: squares of mini-batch gradients."""
    strategy = partial(AvalancheEWC, ewc_lambda=strength, mode="online", decay_factor=1.0)
    return Method("avalanche_ewc", strategy, label="Avalanche's own EWC")


def avalanche_mas(strength: float) -> Method:
    """Avalanche's own MAS: absolute values of mini-batch gradients, halving old importances by its default."""
    return Method("avalanche_mas", partial(AvalancheMAS, lambda_reg=strength), label="Avalanche's own MAS")


def references(si: float, damping: float, ewc: float, mas: float, network: Model | None = None) -> tuple[Method, ...]:
    """What a benchmark's methods are held against: dropout, Avalanche's own methods, from scratch and joint training.

    Args:
        si: Strength of Avalanche's Synaptic Intelligence.
        damping: Its xi.
        ewc: Strength of Avalanche's EWC.
        mas: Strength of Avalanche's MAS.
        network: Builds the network, given ``dropout``; None: without that row.

    Returns:
        The methods.
    """
    regularised = () if network is None else (dropout(partial(network, dropout=0.5)),)
    own = (avalanche_si(si, damping), avalanche_ewc(ewc), avalanche_mas(mas))
    return (*regularised, *own, scratch(), joint())


def plastic(network: Model, classes: int | None = None, **layer: Any) -> Model:
    """Give a network a DHP softmax layer.

    Args:
        network: Builds the network, given a ``head``.
        classes: Number of classes of a single head; None: a head per task.
        **layer: Arguments of ``DHPLinear``, such as ``eta``.

    Returns:
        Builds the network with its head.
    """
    return partial(network, head=_head(DHPLinear, classes, **layer))


def double_weights(network: Model, classes: int | None = None) -> Model:
    """Give a network the output layer of the DHP paper's controls, an extra set of slow weights; see `plastic`."""
    return partial(network, head=_head(MatchedLinear, classes))


def _head(layer: Model, classes: int | None, **arguments: Any) -> Model:
    if classes is not None:
        return partial(layer, out_features=classes, **arguments)
    return partial(MultiHead, head=partial(layer, **arguments) if arguments else layer)


def dhp(model: Model) -> Method:
    """Differentiable Hebbian plasticity in the output layer, of a model with ``DHPLinear`` heads."""
    return Method("dhp", DHP, label="DHP", model=model)


def with_dhp(method: Method, model: Model) -> Method:
    """A consolidation method together with DHP, such as ``dhp+si``, for a model with ``DHPLinear`` heads."""
    plugins = (*method.plugins, DHPPlugin)
    return replace(method, name=f"dhp+{method.name}", label=f"DHP + {method.label}", model=model, plugins=plugins)


def matched(method: Method, model: Model) -> Method:
    """The DHP paper's control of a method, such as ``si_matched``, for a model with ``MatchedLinear`` heads."""
    return replace(method, name=f"{method.name}_matched", label=f"{method.label}, matched", model=model)


def dhp_table(
    network: Model,
    consolidation: Iterable[Method],
    *,
    classes: int | None = None,
    with_plasticity: Iterable[Method] | None = None,
    **layer: Any,
) -> tuple[Method, ...]:
    """The rows of the DHP paper's Table 1: every method plain, with its control of equal capacity, and with DHP.

    Args:
        network: Builds the network, given a ``head``.
        consolidation: The consolidation methods.
        classes: Number of classes of a single head; None: a head per task.
        with_plasticity: The consolidation methods that go with DHP, where their strengths are others.
        **layer: Arguments of ``DHPLinear``.

    Returns:
        The methods.
    """
    alone = (finetune(), *consolidation)
    control, hebbian = double_weights(network, classes), plastic(network, classes, **layer)
    together = alone[1:] if with_plasticity is None else tuple(with_plasticity)
    return (
        *alone,
        *(matched(method, control) for method in alone),
        dhp(hebbian),
        *(with_dhp(method, hebbian) for method in together),
    )


def of_matched_networks(paper: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Say of the DHP paper's values, (accuracy, BWT) by method, that those without DHP are of the matched networks."""
    controls = {f"{name}_matched": values for name, values in paper.items() if not name.startswith("dhp")}
    return paper | controls

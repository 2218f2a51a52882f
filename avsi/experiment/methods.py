"""The methods that reproductions compare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from avalanche.training import EWC as AvalancheEWC
from avalanche.training import MAS as AvalancheMAS
from avalanche.training import JointTraining, Naive
from avalanche.training import SynapticIntelligence as AvalancheSI

from avsi import DHPPlugin
from avsi.experiment.spec import Method, Reported
from avsi.importance.estimators import Labels
from avsi.strategies import DHP, MAS, OnlineEWC, SynapticIntelligence


def finetune(reported: Reported | None = None) -> Method:
    """Plain training on one task after the other: the lower bound.

    Args:
        reported: What the paper reports.

    Returns:
        The method.
    """
    return Method("finetune", Naive, label="fine-tuning", reported=reported)


def si(strength: float, damping: float, reported: Reported | None = None, name: str = "si") -> Method:
    """Synaptic Intelligence.

    Args:
        strength: c of the paper.
        damping: xi of the paper.
        reported: What the paper reports.
        name: The method's name, where an experiment has several strengths.

    Returns:
        The method.
    """
    label = f"SI, c = {strength:g}"
    return Method(
        name, partial(SynapticIntelligence, strength=strength, damping=damping), "sequential", label, reported
    )


def online_ewc(strength: float, reported: Reported | None = None, labels: Labels = "empirical") -> Method:
    """Online EWC with the per-sample Fisher information and gamma = 1.

    Args:
        strength: lambda.
        reported: What the paper reports.
        labels: Which labels the Fisher information is taken over.

    Returns:
        The method.
    """
    label = f"Online EWC, λ = {strength:g}"
    return Method("online_ewc", partial(OnlineEWC, strength=strength, labels=labels), "sequential", label, reported)


def mas(strength: float, reported: Reported | None = None) -> Method:
    """Memory Aware Synapses.

    Args:
        strength: lambda.
        reported: What the paper reports.

    Returns:
        The method.
    """
    return Method("mas", partial(MAS, strength=strength), "sequential", f"MAS, λ = {strength:g}", reported)


def grid(
    build: Callable[[float], Method], strengths: Iterable[float], paper: Mapping[float, Reported] | None = None
) -> tuple[Method, ...]:
    """Candidates for a method's strength, to choose from on validation data.

    Args:
        build: Builds the method from a strength.
        strengths: The strengths to try.
        paper: What the paper reports, by the strength it reports it for.

    Returns:
        The candidates, named ``<method>_<strength>``.
    """
    built = [(build(float(strength)), strength) for strength in strengths]
    return tuple(
        replace(method, name=f"{method.name}_{s:g}", candidate_of=method.name, reported=(paper or {}).get(s))
        for method, s in built
    )


def dropout(model: Callable[[], Any], reported: Reported | None = None) -> Method:
    """Fine-tuning of a model with dropout.

    Args:
        model: Builds the model.
        reported: What the paper reports.

    Returns:
        The method.
    """
    return Method("dropout", Naive, label="fine-tuning, dropout", reported=reported, model=model)


def matched_capacity(model: Callable[[], Any], reported: Reported | None = None) -> Method:
    """Fine-tuning with an extra set of slow weights in place of the plastic ones: the DHP paper's control.

    Args:
        model: Builds the model, with ``MatchedLinear`` heads.
        reported: What the paper reports.

    Returns:
        The method.
    """
    return Method("finetune_matched", Naive, label="fine-tuning, matched", reported=reported, model=model)


def dhp(model: Callable[[], Any], reported: Reported | None = None) -> Method:
    """Differentiable Hebbian plasticity in the output layer.

    Args:
        model: Builds the model, with ``DHPLinear`` heads.
        reported: What the paper reports.

    Returns:
        The method.
    """
    return Method("dhp", DHP, label="DHP", reported=reported, model=model)


def with_dhp(method: Method, model: Callable[[], Any], reported: Reported | None = None) -> Method:
    """A consolidation method together with differentiable Hebbian plasticity, such as ``dhp+si``.

    Args:
        method: The consolidation method.
        model: Builds the model, with ``DHPLinear`` heads.
        reported: What the paper reports for the two together.

    Returns:
        The method.
    """
    label = f"DHP + {method.label}"
    plugins = (*method.plugins, DHPPlugin)
    return replace(method, name=f"dhp+{method.name}", label=label, reported=reported, model=model, plugins=plugins)


def avalanche_si(strength: float, damping: float) -> Method:
    """Avalanche's own Synaptic Intelligence, shown for what it does.

    Args:
        strength: c of the paper.
        damping: xi of the paper.

    Returns:
        The method.
    """
    return Method("avalanche_si", partial(AvalancheSI, si_lambda=strength, eps=damping), label="Avalanche's own SI")


def avalanche_ewc(strength: float) -> Method:
    """Avalanche's own EWC in its online mode without decay: squares of mini-batch gradients.

    Args:
        strength: lambda.

    Returns:
        The method.
    """
    strategy = partial(AvalancheEWC, ewc_lambda=strength, mode="online", decay_factor=1.0)
    return Method("avalanche_ewc", strategy, label="Avalanche's own EWC")


def avalanche_mas(strength: float) -> Method:
    """Avalanche's own MAS: absolute values of mini-batch gradients, halving old importances by its default.

    Args:
        strength: lambda.

    Returns:
        The method.
    """
    return Method("avalanche_mas", partial(AvalancheMAS, lambda_reg=strength), label="Avalanche's own MAS")


def scratch(reported: Reported | None = None) -> Method:
    """A fresh model for each task: what the task's data alone can teach.

    Args:
        reported: What the paper reports.

    Returns:
        The method.
    """
    return Method("scratch", Naive, "independent", "from scratch", reported)


def joint() -> Method:
    """One model trained on all tasks at once: the upper bound.

    Returns:
        The method.
    """
    return Method("joint", JointTraining, "joint", "joint training")

"""The methods that reproductions compare."""

from __future__ import annotations

from functools import partial

from avalanche.training import JointTraining, Naive
from avalanche.training import SynapticIntelligence as AvalancheSI

from avsi.experiment.spec import Method, Reported
from avsi.strategies import SynapticIntelligence


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


def avalanche_si(strength: float, damping: float) -> Method:
    """Avalanche's own Synaptic Intelligence, shown for what it does.

    Args:
        strength: c of the paper.
        damping: xi of the paper.

    Returns:
        The method.
    """
    return Method("avalanche_si", partial(AvalancheSI, si_lambda=strength, eps=damping), label="Avalanche's own SI")


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

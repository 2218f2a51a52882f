"""Transfer by feature extraction: what the first task taught the body of a network is kept, only heads are trained."""

from __future__ import annotations

from typing import Any

from avalanche.training.plugins import SupervisedPlugin

from avsi.models import HeadedModel


class FreezeFeatures(SupervisedPlugin):
    """Freezes a :class:`~avsi.models.HeadedModel`'s features for every experience of a stream after the first.

    From then on they get no gradient, and their layers are in evaluation mode, without dropout and with fixed batch
    statistics. It holds no state: what is frozen follows from the experience's place in its stream.
    """

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Freeze the features, unless the experience is the first; a model without a head is a TypeError."""
        if not isinstance(strategy.model, HeadedModel):
            raise TypeError(
                f"feature extraction needs a model with features and a head, an avsi.models.HeadedModel such as MLP; "
                f"got {type(strategy.model).__name__}"
            )
        if strategy.experience.current_experience > 0:
            strategy.model.features.requires_grad_(False).eval()

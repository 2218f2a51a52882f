"""Transfer by feature extraction: what the first task taught the body of a network is kept, only heads are trained."""

from __future__ import annotations

from typing import Any

from avalanche.training.plugins import SupervisedPlugin

from avsi.models import HeadedModel


class FreezeFeatures(SupervisedPlugin):
    """Freezes a :class:`~avsi.models.HeadedModel`'s features for every experience of a stream after the first.

    From then on they are a fixed function: parameters get no gradient, and the layers are in evaluation mode, without
    dropout and with fixed batch statistics. It holds no state. What is frozen follows from the experience's place in
    its stream, so that training may go on from a checkpoint with any experience.
    """

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Freeze the features, unless the experience is the first one.

        Raises:
            TypeError: If the model's features cannot be told from its head.
        """
        if not isinstance(strategy.model, HeadedModel):
            raise TypeError(
                f"feature extraction needs a model with features and a head, an avsi.models.HeadedModel such as MLP; "
                f"got {type(strategy.model).__name__}"
            )
        if strategy.experience.current_experience > 0:
            strategy.model.features.requires_grad_(False).eval()

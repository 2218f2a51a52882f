"""Training for a number of iterations in place of epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from avalanche.training.plugins import SupervisedPlugin

from avsi._arguments import check_count


class StopAfter(SupervisedPlugin):
    """Ends training on each experience after so many iterations, in the middle of an epoch if need be.

    Protocols that are given in iterations then have so many epochs that they are never reached: data are shuffled anew
    whenever they have been gone through.

    Args:
        iterations: How many, at least 1.

    Raises:
        ValueError: If it is not positive.
        TypeError: If it is no whole number.

    Examples:
        >>> import torch
        >>> from avalanche.training import Naive
        >>> from avsi.scenarios import split_digits
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
        >>> strategy = Naive(
        ...     model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), train_mb_size=32, train_epochs=100,
        ...     plugins=[StopAfter(25)], evaluator=None,
        ... )
        >>> metrics = strategy.train(split_digits().train_stream[0])
        >>> strategy.clock.train_iterations  # 10 in an epoch
        25
    """

    def __init__(self, iterations: int) -> None:
        super().__init__()
        self.iterations = check_count("iterations", iterations)

    def state_dict(self) -> dict[str, Any]:
        """Return what outlasts an experience.

        Returns:
            Nothing.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`.

        Args:
            state: The state.
        """

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Stop when it is time."""
        if strategy.clock.train_exp_iterations + 1 >= self.iterations:  # the clock comes after all plugins
            strategy.stop_training()

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Take the stop back: where it came in the last epoch, Avalanche would skip the next experience for it."""
        strategy._stop_training = False

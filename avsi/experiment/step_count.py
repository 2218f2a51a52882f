"""Adam's state as the SI authors' code resets it: the moments start at zero again, the count of steps goes on."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.training.plugins import SupervisedPlugin


class KeepStepCount(SupervisedPlugin):
    """Resets the moments of Adam before each experience, and lets its count of steps go on.

    The code of Zenke, Poole & Ganguli (ICML 2017; ganguli-lab/pathint, with Keras 2.0.5) resets the variables that were
    made in its optimizer's scope. Keras's Adam makes its moments there, and its count of steps before. With n steps
    since the reset, moments that start at zero and a bias correction that believes them complete, a step is

        (1 - beta_1^n) / sqrt(1 - beta_2^n)

    times as long as after a whole reset: with betas of 0.9 and 0.999 up to 6.6 times (n = 12), 3.2 at n = 100 and 1.2
    at n = 1200. Nothing is changed for the first experience.

    Errors:
        TypeError: If the optimizer is not Adam, or has ``amsgrad``.

    Example:
        >>> import torch
        >>> from avalanche.training import Naive
        >>> from avsi.models import MLP
        >>> model = MLP(4, (8,), 2)
        >>> adam = torch.optim.Adam(model.parameters())
        >>> strategy = Naive(model=model, optimizer=adam, train_mb_size=32, plugins=[KeepStepCount()])
    """

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Give every parameter moments of zero, and the number of the strategy's steps so far."""
        optimizer, steps = strategy.optimizer, strategy.clock.train_iterations
        if not isinstance(optimizer, torch.optim.Adam) or optimizer.defaults["amsgrad"]:
            raise TypeError(
                f"a count of steps can be kept of torch.optim.Adam without amsgrad; got {type(optimizer).__name__}"
            )
        if not steps:
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                device = parameter.device if group["fused"] or group["capturable"] else "cpu"
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(steps), device=device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }

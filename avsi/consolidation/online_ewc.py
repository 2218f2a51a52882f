"""Online Elastic Weight Consolidation (Schwarz et al., "Progress & Compress", ICML 2018)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from avsi._arguments import check_choice, check_count, check_number
from avsi.consolidation.arguments import Strength
from avsi.consolidation.penalty import PenaltyStep, QuadraticPenalty
from avsi.consolidation.ranks import mean_over_ranks
from avsi.importance import fisher_diagonal
from avsi.importance.estimators import Labels

Mode = Literal["online", "separate"]
"""Whether there is one anchor, or one for each task."""


class OnlineEWCPenalty(QuadraticPenalty):
    r"""Online EWC: importance is the diagonal of the Fisher information, exact per sample.

    At the end of a task, over the data given and with the model in evaluation mode (see
    :func:`avsi.fisher_diagonal`)::

        Omega_k <- gamma * Omega_k + mean_n (d log p(y_n|x_n) / d theta_k)^2,   anchor_k <- theta_k

    Only the task's own outputs count in a multi-head model. See :class:`QuadraticPenalty` for the penalty, which has
    no factor 1/2: a lambda that multiplies lambda/2 in another paper is half as large here.

    ``mode="separate"`` is the EWC of Kirkpatrick et al. (2017), with a quadratic term for each task about the
    parameters at its end. Their sum is one quadratic again, up to a constant, with Omega their sum and the anchor their
    mean weighted with Omega: ``anchor_k <- (gamma * Omega_k * anchor_k + F_k * theta_k) / (gamma * Omega_k + F_k)``. So
    it needs no more memory than the other; :meth:`value` leaves out the constant.

    Args:
        model: The model.
        strength: lambda, at least 0; or one value per task, the last one repeated.
        gamma: How much of the old importance stays, in [0, 1]. The papers that report strengths state none; 1 sums.
        labels: Which labels the Fisher information is taken over, see :func:`avsi.fisher_diagonal`.
        mode: ``"online"`` or ``"separate"``.
        max_samples: Measure on so many of a task's samples, drawn at random; None: on all.
        seed: Seed of what is drawn, ``labels="sampled"`` and ``max_samples``, one per trial: it follows from the seed
            and the number of the task. By default that of torch's random numbers (``torch.initial_seed()``) when the
            penalty is made. A part of the state. Processes of ``torch.distributed`` draw for their own samples, so
            what is drawn depends on how many there are.
        exclude: Glob patterns of parameter names to leave out.
        penalty: ``"explicit"`` or ``"proximal"``.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a value has the wrong type.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = nn.init.zeros_(model.weight)  # so p = 1/2, and F = p (1 - p) x^2
        >>> penalty = OnlineEWCPenalty(model, strength=100.0)
        >>> penalty.consolidate([(torch.tensor([[2.0, 4.0]]), torch.tensor([0]))])
        >>> penalty.importance["weight"]
        tensor([[1., 4.],
                [1., 4.]])
    """

    def __init__(
        self,
        model: nn.Module | None,
        strength: Strength,
        *,
        gamma: float = 1.0,
        labels: Labels = "empirical",
        mode: Mode = "online",
        max_samples: int | None = None,
        seed: int | None = None,
        exclude: Iterable[str] = (),
        penalty: PenaltyStep = "explicit",
    ) -> None:
        self.gamma = check_number("gamma", gamma, "in [0, 1]", lambda value: 0 <= value <= 1)
        check_choice("labels", labels, get_args(Labels))
        self.labels: Labels = labels
        self.separate = check_choice("mode", mode, get_args(Mode)) == "separate"
        self.max_samples = None if max_samples is None else check_count("max_samples", max_samples)
        self.seed = torch.initial_seed() if seed is None else check_count("seed", seed, least=0)
        super().__init__(model, strength, exclude=exclude, penalty=penalty)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, see :meth:`QuadraticPenalty.state_dict`.

        Returns:
            The shared state, and the seed.
        """
        return super().state_dict() | {"seed": self.seed}

    def new_importance(
        self, parameters: Mapping[str, nn.Parameter], batches: Iterable[Any] | None
    ) -> dict[str, Tensor]:
        """Decay Omega and add the Fisher information of the task that just ended.

        Args:
            parameters: The penalised parameters by name.
            batches: The task's data.

        Returns:
            The new Omega.
        """
        # Sampled labels differ from task to task and from trial to trial, and are the same in a run that was resumed.
        seed = random.Random(f"{self.seed}:{self.experiences_seen}").getrandbits(63)
        fisher = mean_over_ranks(
            fisher_diagonal,
            self.model,
            batches,
            labels=self.labels,
            parameters=parameters,
            max_samples=self.max_samples,
            seed=seed,
        )
        return {name: self.gamma * self.importance[name] + added for name, added in fisher.items()}

    def new_anchor(self, name: str, importance: Tensor, parameter: Tensor) -> Tensor:
        """Compute where a parameter is held from now on, see the class.

        Args:
            name: The parameter's name.
            importance: Its new Omega.
            parameter: The parameter.

        Returns:
            The anchor.
        """
        if not self.separate:
            return parameter
        old = self.gamma * self.importance[name]
        return torch.where(importance > 0, torch.lerp(parameter, self.anchor[name], old / importance), parameter)

"""Which penalised parameters a step concerns: as a rule, the same as in the step before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import gt
from typing import Any
from weakref import ref

from torch import Tensor, nn

from avsi.consolidation.reached import GRADIENT, Reached
from avsi.consolidation.stability import inner_optimizer, learning_rate, learning_rates


class Targets:
    """Finds the parameters that a backward pass reached, and those of them that an optimizer steps.

    Args:
        parameters: The penalised parameters by name.
        state: A penalty's state for them, by name, in the order in which :class:`Reached` takes it.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], state: Sequence[Mapping[str, Tensor]]) -> None:
        self._parameters, self._state = parameters, state
        # Which of the parameters the last backward pass left out, and the others with the state for them.
        self._pattern: list[bool] = []
        self._reached: Reached | None = None
        # Of these, what each optimizer steps, with its groups and their learning rates when that was found.
        self._stepped: dict[ref[Any], tuple[list[Any], list[float], Reached | None]] = {}

    def reached(self) -> Reached | None:
        """Find the parameters that the last backward pass reached.

        Returns:
            They with their state, None if it reached none.
        """
        pattern = [gradient is None for gradient in map(GRADIENT, self._parameters.values())]
        if pattern != self._pattern:
            self._pattern, self._stepped = pattern, {}
            self._reached = self._gather([name for name, p in self._parameters.items() if p.grad is not None])
        return self._reached

    def stepped(self, optimizer: Any, check: Callable[[Any, Mapping[str, float]], None]) -> Reached | None:
        """Find those of them that an optimizer steps: as a rule, all.

        Args:
            optimizer: The optimizer.
            check: Called with the optimizer and the learning rates by name, when they are others than before or higher.

        Returns:
            They with their state, None if there are none.
        """
        reached = self.reached()
        if reached is None:
            return None
        key, groups = ref(inner_optimizer(optimizer)), optimizer.param_groups
        # A group that is exchanged has another length, or other ends: to compare it whole would take too long.
        ends = [(len(held), id(held[0]), id(held[-1])) if (held := group["params"]) else () for group in groups]
        rates = [*map(learning_rate, groups)]
        known = self._stepped.get(key)
        if known is None or known[0] != ends or any(map(gt, rates, known[1])):
            held = learning_rates(optimizer)
            names = [name for name, p in self._parameters.items() if p.grad is not None and id(p) in held]
            check(optimizer, {name: held[id(self._parameters[name])] for name in names})
            every = len(names) == len(reached.parameters)
            known = self._stepped[key] = ends, rates, reached if every else self._gather(names)
        return known[2]

    def _gather(self, names: list[str]) -> Reached | None:
        if not names:
            return None
        parameters: list[Tensor] = [self._parameters[name] for name in names]
        return Reached(parameters, *([tensors[name] for name in names] for tensors in self._state))

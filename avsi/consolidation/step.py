"""An optimizer's step with penalties in it: what encloses it, what is known of it, and who says that it was taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from torch import Tensor
from torch.optim import Optimizer

from avsi.consolidation.reached import Added, Reached

if TYPE_CHECKING:
    from avsi.consolidation.penalty import QuadraticPenalty


class RunningStep:
    """What a penalty knows of the step that was begun and has not ended."""

    def __init__(self) -> None:
        self.saw_gradient = False
        """Whether the penalty looked at the gradient of the task loss."""
        self.is_open = False
        """Whether the penalty entered the step."""
        self.was_taken = False
        """Whether the optimizer took it, as far as it says so."""
        self.added: list[Added] = []
        """What was added to gradients."""
        self.due: Reached | None = None
        """To what gradients the penalty is added once the optimizer within a wrapper steps."""
        self.pulls: dict[int, tuple[Reached, list[float]]] = {}
        """Proximal steps that are due after the optimizers', by the optimizer's identity."""
        self.gradient: Tensor | None = None
        """One of those that the penalty entered."""
        self.version: int | None = None
        """Its version, where the optimizer was given a closure to run."""

    def pull(self) -> None:
        """Take the proximal steps that are due."""
        for reached, rates in self.pulls.values():
            reached.pull(rates)
        self.pulls = {}

    def entered(self, gradient: Tensor) -> bool:
        """Tell whether a gradient is the one that the penalty entered.

        Args:
            gradient: What stands in ``.grad`` now.

        Returns:
            Whether it is, and was not computed anew since.
        """
        return gradient is self.gradient and self.version in (None, gradient._version)


class Step:
    """An optimizer's step with a penalty in it, see :meth:`QuadraticPenalty.step`.

    Args:
        penalty: The penalty.
        optimizer: The optimizer, if known.
    """

    __slots__ = ("_early", "_optimizer", "_penalty")

    def __init__(self, penalty: QuadraticPenalty, optimizer: Any) -> None:
        self._penalty, self._optimizer = penalty, optimizer
        self._early: list[QuadraticPenalty] = []

    def __enter__(self) -> None:
        try:
            self._begin()
        except BaseException as error:  # what was noted of a step that is refused must not be taken for the next one's
            self.__exit__(type(error), error, None)
            raise

    def _begin(self) -> None:
        penalty, optimizer = self._penalty, self._optimizer
        penalty._get_ready(optimizer)
        # Whoever enters first lets all others on the model look at the gradient before anything is added to it.
        for peer in penalty._peers:
            other = peer()
            if other is not None and other.follows_steps and not other._running.saw_gradient:
                other._get_ready(optimizer)
                other.observe()
                if other is not penalty:
                    self._early.append(other)
        penalty.add(optimizer)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._penalty.finish()
        else:
            self._penalty._forget_step()
        for other in self._early:
            if other._running.saw_gradient:
                other._forget_step()


def announce(optimizer: Optimizer, penalty: QuadraticPenalty) -> None:
    """Have an optimizer tell a penalty when it begins and ends a step, for as long as the penalty lives.

    Args:
        optimizer: The optimizer.
        penalty: The penalty.
    """
    told = ref(penalty)

    def note_beginning(stepped: Optimizer, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        if (penalty := told()) is not None:
            penalty._note_beginning(stepped, any(map(callable, (*given, *named.values()))))

    def note_end(stepped: Optimizer, *_: Any) -> None:
        if (penalty := told()) is not None:
            penalty._note_step(stepped)

    optimizer.register_step_pre_hook(note_beginning)
    optimizer.register_step_post_hook(note_end)

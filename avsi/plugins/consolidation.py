"""The Avalanche side of the quadratic penalty."""

from __future__ import annotations

from typing import Any

from avalanche.benchmarks.scenarios import SequenceCLStream
from torch import Tensor, nn

from avsi._avalanche import _at_task_boundary, stream_length
from avsi.consolidation.divergence import DivergenceError
from avsi.consolidation.parameters import unwrap
from avsi.consolidation.penalty import QuadraticPenalty
from avsi.importance.estimators import check_layers
from avsi.importance.samples import check_outputs, unpack
from avsi.plugins.divergence import DivergencePlugin, stop
from avsi.plugins.evaluation_pass import (
    Track,
    evaluation_batches,
    show_if_long,
    task_experiences,
    trained_classifier,
)


class ConsolidationPlugin(DivergencePlugin):
    r"""Lets a penalty, any :class:`~avsi.consolidation.QuadraticPenalty`, work in Avalanche's training loops.

    The penalised loss is, without a factor 1/2 (Zenke et al. 2017, eq. 4)::

        L~ = L + strength * sum_k Omega_k (theta_k - anchor_k)^2

    The penalty enters in ``before_update``: after the backward pass, so that every plugin can see the gradient of the
    task loss alone, and before the optimizer's step. ``strategy.loss`` stays the task loss. Steps that the strategy
    announces and its optimizer does not take (because gradients are accumulated, say) count for nothing.

    Importances are measured over the experience's own data, with evaluation transforms, through the classifier that
    was trained. An online stream is consolidated at its task boundaries where it shows them, else after each of its
    experiences. In ``torch.distributed`` each process goes through its share of the data.

    Args:
        core: The penalty, without a model.

    Attributes:
        core: The penalty.
        track: Shows the progress of the pass over the data.

    Raises:
        TypeError: If it is no such penalty.

    Examples:
        >>> import torch
        >>> from avalanche.training import Naive
        >>> from avsi.consolidation import QuadraticPenalty
        >>> from avsi.models import MLP, MultiHead
        >>> class Uniform(QuadraticPenalty):
        ...     def new_importance(self, parameters, batches):
        ...         return {name: torch.ones_like(parameter) for name, parameter in parameters.items()}
        >>> model, plugin = MLP(64, (16,), MultiHead), ConsolidationPlugin(Uniform(None, strength=0.01))
        >>> strategy = Naive(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), plugins=[plugin])
    """

    about = "importance"
    """What progress calls the pass over the data."""
    needs_logits = False
    """Whether the model's outputs in training have to be a tensor."""

    def __init__(self, core: QuadraticPenalty) -> None:
        super().__init__()
        if not isinstance(core, QuadraticPenalty):
            raise TypeError(f"core must be a QuadraticPenalty such as SIPenalty(None, strength=1.0), got {core!r:.80}")
        self.core = core
        self.track: Track = show_if_long
        self._iterations = self._steps = 0

    @property
    def strengths(self) -> tuple[float, ...]:
        """The strengths by experience, the last one repeated."""
        return self.core.strengths

    @property
    def strength(self) -> float:
        """The strength in force: that of the running experience, or between experiences of the next one."""
        return self.core.strength

    @property
    def exclude(self) -> tuple[str, ...]:
        """Glob patterns of parameters that are left out."""
        return self.core.exclude

    @property
    def experiences_seen(self) -> int:
        """The number of experiences that were consolidated."""
        return self.core.experiences_seen

    @property
    def importance(self) -> dict[str, Tensor]:
        """Omega: parameter name -> tensor of the parameter's shape."""
        return self.core.importance

    @property
    def anchor(self) -> dict[str, Tensor]:
        """The parameters at the end of the last experience: parameter name -> tensor of the parameter's shape."""
        return self.core.anchor

    def penalty(self, model: nn.Module) -> Tensor:
        """Compute ``strength * sum_k Omega_k (theta_k - anchor_k)^2`` for a model.

        Args:
            model: The model; parameters without an importance count as 0.

        Returns:
            Scalar tensor, differentiable in the model's parameters.
        """
        return self.core.value(model)

    def state_dict(self) -> dict[str, Any]:
        """Return the penalty's state: tensors and numbers only.

        Returns:
            See :meth:`avsi.consolidation.QuadraticPenalty.state_dict`.
        """
        return self.core.state_dict()

    def load_state_dict(self, state: Any) -> None:
        """Take over a state made by :meth:`state_dict`; the tensors are copied.

        Args:
            state: The state of a plugin of the same class.
        """
        self.core.load_state_dict(state)

    # Hooks, in the order Avalanche calls them.

    def after_train_dataset_adaptation(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse what could not be trained or penalised, before any work is done.

        Raises:
            ValueError: If the plugin is there twice, the experience has no samples, the optimizer maximises, or there
                are more strengths than experiences.
            TypeError: If there is no optimizer, or it is L-BFGS.
        """
        name = type(self).__name__
        if sum(plugin is self for plugin in strategy.plugins) > 1:
            raise ValueError(
                f"the same {name} is in the strategy's plugins twice, and would penalise twice; remove one"
            )
        if len(strategy.adapted_dataset) == 0:
            raise ValueError(
                f"experience {self.experiences_seen} has no training samples; remove it from the stream or give it data"
            )
        if strategy.optimizer is None:
            raise TypeError(
                f"{name} cannot work with {type(strategy).__name__}, which has no optimizer: it takes no gradient "
                "steps that a penalty could enter"
            )
        self.core.check_optimizer(strategy.optimizer)
        stream = getattr(strategy.experience, "_origin_stream", None)
        if isinstance(stream, SequenceCLStream) and len(self.strengths) > stream_length(stream):
            raise ValueError(
                f"strength has {len(self.strengths)} values, but the stream has {stream_length(stream)} experiences; "
                "give at most one value per experience (the last one is repeated)"
            )

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Bind the state to the model's parameters as they are now, and begin a task where there is a boundary.

        Raises:
            ValueError: If the plugin has learned experiences of another model.
        """
        super().before_training_exp(strategy, *args, **kwargs)
        self._iterations = self._steps = 0
        if self.experiences_seen and self.core.model not in (None, unwrap(strategy.model)):
            name = type(self).__name__
            raise ValueError(
                f"this {name} has learned from another model; make a new {name} for a new model, or call "
                "plugin.core.bind(model) first where it is a copy of the old one. A strategy that makes a new model "
                "for each experience, such as GDumb, leaves nothing to consolidate"
            )
        self.core.bind(strategy.model)
        if self.needs_logits:
            check_layers(strategy.model)
        if _at_task_boundary(strategy.experience, before=True):
            self.core.begin_task(strategy.optimizer)

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Bind again where an evaluation between epochs has replaced parameters (a growing classifier).

        Avalanche tells the optimizer of such parameters with the next experience only; until then it would not train
        them, and neither plugin nor user would see it.
        """
        super().before_training_epoch(strategy, *args, **kwargs)
        present = dict(strategy.model.named_parameters())
        if any(present.get(name, old) is not old for name, old in (strategy.optimized_param_id or {}).items()):
            strategy.make_optimizer()
        self.core.bind(strategy.model)

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Count the iteration."""
        self._iterations += 1

    def after_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse inputs and outputs that importances cannot be measured on, in the first iteration.

        Raises:
            TypeError: If they are not tensors. Outputs that are not a row of logits for each sample are a ValueError.
        """
        outputs = strategy.mb_output
        if not self.needs_logits or self._iterations != 1:
            return
        unpack((strategy.mb_x, None))
        if isinstance(outputs, dict) and not hasattr(strategy.experience, "task_labels"):
            raise TypeError(
                f"the model of {type(strategy).__name__} answers for every task, because the experience does not tell "
                "its task labels; give the stream some with avalanche.benchmarks.with_task_labels"
            )
        if not isinstance(outputs, Tensor):
            raise TypeError(
                f"{type(self).__name__} measures importances on the logits of a classifier, and the model of "
                f"{type(strategy).__name__} returns a {type(outputs).__name__}; SIPlugin works with any loss"
            )
        check_outputs(outputs, len(outputs))

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Look at the loss and at the task gradient, before penalties are added and the optimizer steps."""
        super().after_backward(strategy, *args, **kwargs)
        self.core.observe()

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Let the penalty enter the step, for the parameters that the task loss reached."""
        self.core.add(strategy.optimizer)

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """End the step, and stop where it blew weights up. One that the strategy left out counts for nothing."""
        self._steps += 1
        try:
            self.core.finish()
        except DivergenceError as error:
            stop(strategy, error.found, strategy.clock.train_epoch_iterations)

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Look for divergence and for steps that were not announced."""
        super().after_training_epoch(strategy, *args, **kwargs)
        self._check(strategy)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Measure importance and move the anchor to the parameters reached.

        Raises:
            RuntimeError: If there was nothing to learn from.
        """
        super().after_training_exp(strategy, *args, **kwargs)
        self._check(strategy)
        if _at_task_boundary(strategy.experience, before=False):
            if not (self._iterations or self.core.steps_seen):
                raise RuntimeError(
                    f"experience {self.experiences_seen} was trained for no iteration, so there is nothing to "
                    "consolidate: there was no batch (drop_last with fewer samples than one holds) or no epoch "
                    "(train_epochs=0, or a stop that an early stopping plugin left over from the experience before), "
                    f"or {type(strategy).__name__} announces no iterations"
                )
            self.core.bind(strategy.model)
            with trained_classifier(strategy.model):
                self.core.consolidate(self.batches(strategy))

    def batches(self, strategy: Any) -> Any:
        """Read the data that importance is measured over.

        Args:
            strategy: The strategy, at the end of an experience.

        Returns:
            Batches of (x, y) or (x, y, task_labels).
        """
        return evaluation_batches(strategy, task_experiences(strategy), self.track, self.about, own_share=True)

    def _check(self, strategy: Any) -> None:
        if self._iterations and not self._steps:
            raise RuntimeError(
                f"{type(strategy).__name__} trained for {self._iterations} iterations without announcing a step of the "
                f"optimizer: it never calls before_update, where {type(self).__name__} adds its penalty. Use another "
                "strategy, or write the loop with the penalties of avsi.consolidation"
            )
        try:
            self.core.check()
        except DivergenceError as error:
            before = self._steps - strategy.clock.train_epoch_iterations  # steps of the experience's earlier epochs
            stop(strategy, error.found, max(0, error.step - before))

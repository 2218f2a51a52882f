"""Shows the labels of training mini-batches to the DHP layers of an Avalanche strategy's model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from avalanche.training.plugins import CoPEPlugin, CWRStarPlugin, LFLPlugin

from avsi.hebbian import DHPLinear, LabelSource, TakesTargets, show_targets, takers
from avsi.plugins.divergence import DivergencePlugin, stop_within


@dataclass
class _Wrapped:
    """A method of a strategy, called through a plugin.

    Attributes:
        plugin: The plugin.
        wrapper: What is called, with the method and its arguments.
        method: The method.
        own: Whether the strategy object had it in place of its class's.
    """

    plugin: DHPPlugin
    wrapper: Callable[..., Any]
    method: Callable[..., Any]
    own: bool

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.wrapper(self.method, *args, **kwargs)


class DHPPlugin(DivergencePlugin):
    """Gives each training mini-batch's labels to every :class:`~avsi.models.DHPLinear` of the strategy's model.

    Labels belong to ``strategy.forward()``, the forward pass over the current mini-batch, whatever replay or another
    plugin has put into it: they are shown when it begins and taken away when it ends, also with an error. In a
    :class:`~avsi.models.MultiHead` each head gets those of its own samples. A strategy that calls ``forward()`` several
    times in a step updates the traces each time.

    Other training-mode passes of a strategy or its plugins, say over A-GEM's memory or all heads at once in LwF,
    use the traces but leave them alone: the labels of their samples are not known. So do all passes in evaluation,
    and importance passes. Outside of the strategy's training a DHPLinear that gets no labels raises an error.

    To know where these begin and end, the plugin wraps methods of the strategy object while it trains.

    Examples:
        >>> from avalanche.training import Naive
        >>> from avsi.models import MLP, DHPLinear
        >>> import torch
        >>> model = MLP(64, (32,), head=lambda features: DHPLinear(features, 10))
        >>> strategy = Naive(
        ...     model=model,
        ...     optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        ...     criterion=torch.nn.CrossEntropyLoss(),
        ...     plugins=[DHPPlugin()],
        ... )
    """

    def __init__(self) -> None:
        super().__init__()
        self.supports_distributed = False  # each process has its own samples, and so its own traces
        self._source = LabelSource()
        self._takers: list[TakesTargets] = []
        self._iterations = self._labelled_passes = 0

    # Hooks, in the order Avalanche calls them.

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Wrap the strategy's methods.

        Raises:
            ValueError: If the strategy has another plugin of this class.
        """
        if sum(isinstance(plugin, DHPPlugin) for plugin in strategy.plugins) > 1:
            raise ValueError("the strategy has more than one DHPPlugin; one is enough (the strategy DHP has its own)")
        self._wrap(strategy, "forward", partial(self._forward, strategy))
        # An error may end the training at any point. These calls make up all of it that runs models.
        for name in ("_before_training_exp", "_train_exp", "_after_training_exp"):
            self._wrap(strategy, name, self._train)

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Find the model's DHP layers.

        Raises:
            ValueError: If there are none.
            TypeError: If another plugin would take a hidden layer for the output layer.
        """
        super().before_training_exp(strategy, *args, **kwargs)
        if not any(isinstance(module, DHPLinear) for module in strategy.model.modules()):
            raise ValueError(
                f"DHPPlugin found no DHPLinear in the model, a {type(strategy.model).__name__}; give it one, for "
                "instance as head=DHPLinear of a MultiHead, or leave the plugin out"
            )
        for plugin in strategy.plugins:
            by_name = isinstance(plugin, CWRStarPlugin) and plugin.cwr_layer_name is not None
            if isinstance(plugin, CoPEPlugin | CWRStarPlugin | LFLPlugin) and not by_name:
                raise TypeError(
                    f"{type(plugin).__name__} works on the last torch.nn.Linear of a model, and a DHPLinear is none: "
                    "it would take a hidden layer for the output layer. Use it with a model without DHP layers"
                    + (" or name the layer with cwr_layer_name" if isinstance(plugin, CWRStarPlugin) else "")
                )
        self._bind(strategy)
        self._iterations = self._labelled_passes = 0

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Count the iteration."""
        self._iterations += 1

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Look for divergence, and make sure that labels were shown.

        Raises:
            RuntimeError: If the strategy never called its ``forward()``.
        """
        super().after_training_exp(strategy, *args, **kwargs)
        if self._iterations and not self._labelled_passes:
            raise RuntimeError(
                f"{type(strategy).__name__} trained without calling its forward(), the only place where DHPPlugin "
                "shows labels, so no trace was updated; pass targets to the layers yourself"
            )

    def after_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Unwrap the strategy's methods."""
        for name, value in list(vars(strategy).items()):
            if self._is_ours(value):
                delattr(strategy, name)
                if value.own:
                    setattr(strategy, name, value.method)
        self._takers = []

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Find the DHP layers again after an evaluation in the middle of training, which may have added heads."""
        if self._source.active:
            self._bind(strategy)

    def _bind(self, strategy: Any) -> None:
        self._takers = takers(strategy.model)
        for module in strategy.model.modules():
            if isinstance(module, TakesTargets):
                module.label_source = self._source

    def _wrap(self, strategy: Any, name: str, wrapper: Callable[..., Any]) -> None:
        method = getattr(strategy, name)
        if not self._is_ours(method):  # an error may have kept an earlier training from unwrapping it
            setattr(strategy, name, _Wrapped(self, wrapper, method, name in vars(strategy)))

    def _is_ours(self, method: Any) -> bool:
        return isinstance(method, _Wrapped) and method.plugin is self

    def _train(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._source.active = True
        try:
            return method(*args, **kwargs)
        finally:
            self._source.active = False

    def _forward(self, strategy: Any, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not (strategy.is_training and self._source.active):
            return method(*args, **kwargs)
        self._labelled_passes += 1
        try:
            with show_targets(self._takers, strategy.mb_y):
                return method(*args, **kwargs)
        except FloatingPointError:  # a DHPLinear refuses features that are not finite; here it is known why
            stop_within(strategy, "the features of a DHPLinear are not finite")

"""The state of an Avalanche strategy between two experiences, as plain data, and back.

Plain data are numbers, strings, None, tensors, and lists, tuples and dicts of them: ``torch.load(weights_only=True)``
reads them. Plugins answer for themselves with ``state_dict`` and ``load_state_dict``; for Avalanche's own,
:data:`ATTRIBUTES` does; a plugin without instance attributes has no state.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from avalanche.evaluation.metrics.accuracy import ExperienceAccuracy, StreamAccuracy
from avalanche.evaluation.metrics.forgetting_bwt import Forgetting, StreamBWT, StreamForgetting
from avalanche.models import MultiTaskModule
from avalanche.training.determinism.rng_manager import RNGManager
from avalanche.training.plugins import EvaluationPlugin as AvalancheEvaluationPlugin
from avalanche.training.plugins import EWCPlugin, SynapticIntelligencePlugin
from avalanche.training.plugins import MASPlugin as AvalancheMASPlugin
from avalanche.training.plugins.clock import Clock
from avalanche.training.templates.base_sgd import PeriodicEval
from avalanche.training.utils import ParamData
from torch import Tensor
from torch.nn import Module
from torch.optim import SGD

from avsi._generators import is_generator
from avsi.experiment.sources import is_own
from avsi.plugins.batches import InMemoryBatches
from avsi.plugins.divergence import DivergencePlugin
from avsi.plugins.evaluation import EvaluationPlugin
from avsi.plugins.hebbian import DHPPlugin

ATTRIBUTES: dict[type, tuple[str, ...]] = {
    # The strategy's own.
    Clock: tuple(vars(Clock())),  # all its counts
    PeriodicEval: (),
    EvaluationPlugin: ("last_metric_results", "metrics"),
    AvalancheEvaluationPlugin: ("last_metric_results", "metrics"),
    ExperienceAccuracy: (),  # reset when an evaluation begins
    StreamAccuracy: (),
    StreamBWT: ("forgetting",),
    StreamForgetting: ("forgetting",),
    Forgetting: ("initial", "last"),
    # Plugins without a state_dict.
    InMemoryBatches: (),
    DHPPlugin: (),  # binds itself to the model when a training begins
    DivergencePlugin: (),  # looks at one epoch at a time
    EWCPlugin: ("saved_params", "importances"),
    AvalancheMASPlugin: ("params", "importance"),
    SynapticIntelligencePlugin: ("ewc_data", "syn_data"),
}
"""By class, the attributes that outlast an experience; of these very classes, since a subclass may add others."""

# fmt: off
TEMPLATE = frozenset([
    "_criterion", "_distributed_check", "_eval_streams", "_stop_training", "adapted_dataset", "clock",
    "current_eval_stream", "dataloader", "device", "eval_every", "eval_mb_size", "evaluator", "experience",
    "is_training", "loss", "mb_output", "mbatch", "model", "optimized_param_id", "optimizer", "plugins",
    "retain_graph", "train_epochs", "train_mb_size",
    "_experiences", "_is_fitted",  # JointTraining's, which trains once
    "forward", "criterion",  # under autocast
])
# fmt: on
"""Attributes of Avalanche's ``SupervisedTemplate``: settings, what is kept here, and what lives within a pass only."""

MODULE = frozenset(vars(MultiTaskModule()))
"""Attributes that layers have, kept as parameters and buffers, or set by training, evaluation and adaptation."""

OPTIMIZER = frozenset(vars(SGD([torch.zeros(())])))
"""Attributes that every optimizer has, likewise."""

PARAM_DATA = "avalanche.training.utils.ParamData"
CUDA = "torch.cuda"
Plugins = Collection[Any]


class NotKeptError(Exception):
    """A strategy has state that cannot be had as plain data; the message names it."""


def strategy_state(strategy: Any, shared: Plugins = ()) -> dict[str, Any]:
    """Collect, as plain data with live tensors, all that decides how a strategy goes on, but for random states."""
    own = [n for n, v in vars(strategy).items() if n not in TEMPLATE and not _is_among(v, strategy.plugins)]
    if own:
        raise NotKeptError(f"attribute {', '.join(own)} of {type(strategy).__name__}")
    model = strategy.model
    weights = dict(model.state_dict())
    names = {id(parameter): name for name, parameter in (strategy.optimized_param_id or {}).items()}
    state = {
        "model": weights,
        "buffers": {name: buffer for name, buffer in model.named_buffers() if name not in weights},
        "frozen": [name for name, parameter in model.named_parameters() if not parameter.requires_grad],
        "optimizer": strategy.optimizer.state_dict(),
        "optimized": [[names.get(id(p), "") for p in group["params"]] for group in strategy.optimizer.param_groups],
        "plugins": [(type(p).__name__, _plugin_state(p)) for p in strategy.plugins if not _is_among(p, shared)],
    }
    loss = _tensors(strategy._criterion)
    return pack(state | ({"criterion": loss} if loss else {}))


def _tensors(criterion: Any) -> dict[str, Tensor]:
    return dict([*criterion.named_parameters(), *criterion.named_buffers()]) if isinstance(criterion, Module) else {}


def restore_strategy(
    strategy: Any,
    state: Mapping[str, Any],
    finished: Iterable[Any],
    evaluated: Iterable[Any],
    shared: Plugins = (),
) -> None:
    """Bring a newly made strategy to the state of one that was evaluated after each finished experience."""
    # As in training, so that parameters come in the same order.
    for experience in finished:
        _adapt(strategy, experience, list(evaluated))
    model = strategy.model
    buffers = dict(model.named_buffers())
    try:
        model.load_state_dict(state["model"])
        for name, value in state["buffers"].items():
            buffers[name].copy_(value)
        for name, tensor in _tensors(strategy._criterion).items():
            tensor.data.copy_(state["criterion"][name])
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in state["frozen"])
        strategy.optimizer.load_state_dict(state["optimizer"])
        plugins = [plugin for plugin in strategy.plugins if not _is_among(plugin, shared)]
        for plugin, (_, kept) in zip(plugins, state["plugins"], strict=True):
            if type(plugin) in ATTRIBUTES:
                _unpack(kept, strategy.device, plugin)
            elif hasattr(plugin, "load_state_dict"):
                plugin.load_state_dict(kept)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"the state does not fit the strategy: {error}") from error
    # Order of parameters, classes of plugins, and that loading has left nothing out.
    if fingerprint(strategy_state(strategy, shared)) != fingerprint(state):
        raise ValueError("the strategy's state is not the given one after loading it")


def attributes(strategy: Any) -> dict[str, Any]:
    """Collect what a user's own layers, loss and optimizer hold as plain data, such as counts of steps.

    That is outside of their state_dict.

    Args:
        strategy: The strategy.

    Returns:
        Values by layer's name ("criterion" for the loss, "optimizer") and attribute's.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, key, value in held_attributes(strategy):
        with contextlib.suppress(NotKeptError):
            found.setdefault(name, {})[key] = pack(value)
    return {name: held for name, held in found.items() if held}


def fixed_attributes(strategy: Any) -> dict[str, str]:
    """Compute the fingerprint of what :func:`attributes` leaves out, which must therefore stay as it was made.

    Args:
        strategy: The strategy.

    Returns:
        Fingerprints by "name.attribute".

    Raises:
        NotKeptError: If there is something of which nobody could tell whether it has changed.
    """
    found = {}
    model, loss = strategy.model, strategy._criterion
    kept = [strategy, model, loss, strategy.optimizer, *strategy.plugins, *_tensors(loss).values()]
    kept += [*model.modules(), *model.parameters(), *model.buffers()]
    identities = {id(item) for item in kept}
    for name, key, value in held_attributes(strategy):
        try:
            pack(value)
        except NotKeptError:
            written = io.BytesIO()
            try:
                _Pickler(written, identities).dump(value)
            except Exception as error:
                raise NotKeptError(f"{name or 'model'}.{key}, a {type(value).__name__}") from error
            found[f"{name or 'model'}.{key}"] = hashlib.sha256(written.getbuffer()).hexdigest()
    return found


class _Pickler(pickle.Pickler):
    """Writes code by its name, and leaves out what is kept otherwise: objects of these identities, and generators."""

    def __init__(self, file: io.BytesIO, kept: Collection[int]) -> None:
        super().__init__(file)
        self.kept = kept

    def persistent_id(self, value: Any) -> str | None:
        if isinstance(value, FunctionType | BuiltinFunctionType | type):
            return f"{value.__module__}.{value.__qualname__}"
        if isinstance(value, ModuleType):
            return value.__name__
        return "kept" if id(value) in self.kept or is_generator(value) else None


def held_attributes(strategy: Any) -> Iterator[tuple[str, str, Any]]:
    """List what a user's own layers, loss and optimizer hold outside of their state_dict: owner, name and value."""
    for name, owner in _own_objects(strategy).items():
        for key, value in vars(owner).items():
            # A scheduler puts methods of its own into the optimizer.
            if key not in MODULE | OPTIMIZER and not isinstance(value, FunctionType | MethodType):
                yield name, key, value


def restore_attributes(strategy: Any, kept: Mapping[str, Any]) -> None:
    """Set attributes to what :func:`attributes` gave."""
    owners = _own_objects(strategy)
    now = attributes(strategy)
    for name, held in kept.items():
        for key, value in held.items():
            if fingerprint(value) != fingerprint(now.get(name, {}).get(key)):
                setattr(owners[name], key, _unpack(_moved(value, strategy.device), strategy.device))


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device, copy=True) if isinstance(value, Tensor) else value


def _own_objects(strategy: Any) -> dict[str, Any]:
    # A user's own layers by name, the loss and the optimizer.
    named = {**dict(strategy.model.named_modules()), "criterion": strategy._criterion, "optimizer": strategy.optimizer}
    return {n: item for n, item in named.items() if is_own(type(item).__module__) and hasattr(item, "__dict__")}


def _adapt(strategy: Any, experience: Any, evaluated: Iterable[Any]) -> None:
    # What train() and eval() do to the model, and to the optimizer's list of parameters, before the first batch.
    strategy.model.train()
    strategy.is_training, strategy.experience = True, experience
    strategy.check_model_and_optimizer()
    strategy.model.eval()
    strategy.is_training = False
    for strategy.experience in evaluated:
        strategy.model = strategy.model_adaptation()
    strategy.model.train()
    strategy.experience = None


def _plugin_state(plugin: Any) -> Any:
    if type(plugin) in ATTRIBUTES:
        return pack(plugin)
    if hasattr(plugin, "state_dict") and hasattr(plugin, "load_state_dict"):
        return plugin.state_dict()
    if vars(plugin):
        raise NotKeptError(f"plugin {type(plugin).__name__}, which has no state_dict and load_state_dict")
    return {}


def _is_among(value: Any, plugins: Plugins) -> bool:
    return any(value is plugin for plugin in plugins)


def pack(value: Any) -> Any:
    """Turn a value, objects of Avalanche's included, into plain data; anything else is a NotKeptError."""
    if value is None or type(value) in {bool, int, float, str}:
        return value
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {pack(key): pack(item) for key, item in value.items()}
    if type(value) in {list, tuple}:
        return type(value)(pack(item) for item in value)
    if type(value) is ParamData:
        return PARAM_DATA, value.name, value.device.type, value.data
    if type(value) in ATTRIBUTES:
        return {name: pack(getattr(value, name)) for name in ATTRIBUTES[type(value)]}
    raise NotKeptError(f"a {type(value).__name__}")


def _unpack(state: Any, device: torch.device, current: Any = None) -> Any:
    # The reverse of pack. Packed data do not say of which class they were, so the value that the fresh strategy has in
    # that place decides: an object of ATTRIBUTES gets its attributes set, a defaultdict stays one.
    if type(current) in ATTRIBUTES:
        for name in ATTRIBUTES[type(current)]:
            setattr(current, name, _unpack(state[name], device, getattr(current, name)))
        return current
    if isinstance(state, dict):
        items = {key: _unpack(item, device) for key, item in state.items()}
        return defaultdict(current.default_factory, items) if isinstance(current, defaultdict) else items
    if isinstance(state, tuple):
        if state[:1] == (PARAM_DATA,):
            _, name, kind, data = state
            place = device if kind == device.type else torch.device(kind)  # perhaps another GPU than before
            return ParamData(name, init_tensor=data.to(place, copy=True), device=place)
        return tuple(_unpack(item, device) for item in state)
    if isinstance(state, list):
        places = current if isinstance(current, list) and len(current) == len(state) else [None] * len(state)
        return [_unpack(item, device, place) for item, place in zip(state, places, strict=True)]
    return state


def random_states(device: str) -> dict[str, Any]:
    """Collect, as plain data, the random states that Avalanche seeds: Python's, NumPy's, torch's, the device's."""
    kind = torch.device(device).type
    if kind not in {"cpu", "cuda"}:
        raise NotKeptError(f"random states of device {device}")
    generators = RNGManager.random_generators.items()
    states = {name: generator["save_state"]() for name, generator in generators if name != CUDA}
    if kind == "cuda":
        states[CUDA] = torch.cuda.get_rng_state(device)
    algorithm, key, *rest = states["numpy"]
    return pack(states | {"numpy": (algorithm, key.tolist(), *rest)})


def restore_random_states(states: Mapping[str, Any], device: str) -> None:
    """Set the random generators to states that :func:`random_states` gave."""
    for name, state in states.items():
        if name == CUDA:
            torch.cuda.set_rng_state(state, device)
        else:
            RNGManager.random_generators[name]["load_state"](state)


def fingerprint(value: Any) -> str:
    """Compute the SHA-256 of plain data: of types, order, keys and values, bit for bit; not of devices."""
    digest = hashlib.sha256()
    _feed(digest, pack(value))
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}:".encode())
        digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, dict):
        digest.update(f"dict{len(value)}:".encode())
        for key, item in value.items():
            _feed(digest, key)
            _feed(digest, item)
    elif isinstance(value, list | tuple):
        digest.update(f"{type(value).__name__}{len(value)}:".encode())
        for item in value:
            _feed(digest, item)
    else:
        text = repr(value)
        digest.update(f"{type(value).__name__}{len(text)}:{text}".encode())

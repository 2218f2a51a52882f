"""Every private name of Avalanche that avsi uses, with why; a test notices when one is gone or takes other arguments.

Avalanche promises nothing about these, so ``avalanche-lib`` has an upper bound in pyproject.toml.
"""

from __future__ import annotations

from typing import Any

from avalanche.benchmarks.utils.data import _FlatDataWithTransform
from avalanche.training.utils import _at_task_boundary

__all__ = [
    "INSTANCE_NAMES",
    "PRIVATE_NAMES",
    "_FlatDataWithTransform",
    "_at_task_boundary",
    "joint_experiences",
    "know_targets",
    "stream_length",
    "unpacked",
]

PRIVATE_NAMES: dict[str, dict[str, str]] = {
    "avalanche.training.utils": {
        "_at_task_boundary": "whether an online stream begins or ends a task here; nothing public says it",
    },
    "avalanche.benchmarks.utils.data": {
        "_FlatDataWithTransform": "what data sets are wrapped in; batches from memory look through it",
    },
    "avalanche.benchmarks.scenarios:SequenceCLStream": {
        "_full_length": "how long a stream was before it was sliced: strengths are given per experience of the whole",
    },
    "avalanche.training.templates:SupervisedTemplate": {
        "_unpack_minibatch": "how the strategy takes a batch apart, so that importances see what training saw",
        "_before_training_exp": "adaptation of the model and hooks: DHP shows labels within",
        "_train_exp": "training: DHP shows labels within",
        "_after_training_exp": "hooks at the end of an experience: DHP shows labels within",
    },
    "avalanche.benchmarks.utils.data_loader:MultiDatasetDataLoader": {
        "_get_loader": "the one place that says how Avalanche samples from its data sets",
    },
}
"""By module, or module and class, the private names and why they are used."""

INSTANCE_NAMES: dict[str, dict[str, str]] = {
    "avalanche.training:JointTraining": {
        "_experiences": "the experiences that it trains on together; the strategy shows only the last",
    },
    "avalanche.training:Naive": {
        "_criterion": "the loss, which Avalanche keeps under this name only",
        "_stop_training": "whether training is to stop, read within an epoch",
        "_eval_streams": "what is evaluated on while training",
        "_distributed_check": "part of a strategy's attributes, which checkpoints list",
    },
    "avalanche.training.plugins:EvaluationPlugin": {
        "_metric_values": "values that wait to be logged: a callback that nobody hears passes them on nevertheless",
        "_update_metrics_and_loggers": "what every callback of the evaluator calls; ours do where somebody listens",
    },
    "avalanche.benchmarks.scenarios:CLExperience": {
        "_origin_stream": "the stream, where there is one; the public property raises an error where there is none",
    },
    "avalanche.benchmarks.scenarios.dataset_scenario:DatasetExperience": {
        "_dataset": "what `dataset` gives, which can only be read: smoke tests shorten it",
    },
    "avalanche.benchmarks.utils:AvalancheDataset": {
        "_flat_data": "the samples under a data set's wrapper",
        "_data_attributes": "what is appended to each sample, such as task labels",
    },
    "avalanche.benchmarks.utils:DataAttribute": {
        "_uniques": "the values of targets, which Avalanche finds by reading them one by one",
    },
    "avalanche.benchmarks.utils.flat_data:FlatData": {
        "_datasets": "the parts of a concatenation",
        "_indices": "the rows of a subset",
    },
    "avalanche.benchmarks.utils.data:_FlatDataWithTransform": {
        "_transform_groups": "transforms of training and evaluation",
        "_frozen_transform_groups": "transforms that were made part of the data",
    },
}
"""The same for attributes that instances have."""


def stream_length(stream: Any) -> int:
    """Count the experiences of a stream, also where the user trains on a slice of it.

    Args:
        stream: An Avalanche stream.

    Returns:
        How many experiences the whole stream has.
    """
    return int(stream._full_length())


def joint_experiences(strategy: Any) -> list[Any]:
    """Find what Avalanche's joint training trains on.

    Args:
        strategy: A ``JointTraining``.

    Returns:
        The experiences.
    """
    return list(strategy._experiences)


def know_targets(data: Any, values: set[int]) -> None:
    """Tell a data set which values its targets have; by itself it reads all of them, 2 microseconds each.

    Args:
        data: An Avalanche data set with targets.
        values: The values.
    """
    data.targets._uniques = values


def unpacked(strategy: Any, batch: Any, *, with_tasks: bool) -> tuple[Any, ...]:
    """Take a batch apart as a strategy does in training, be it a dict or in an order of its own.

    Args:
        strategy: The strategy; its own running batch stays as it is.
        batch: The batch.
        with_tasks: Whether task labels are wanted.

    Returns:
        (x, y), or (x, y, task_labels), on the strategy's device.
    """
    before = strategy.mbatch
    try:
        strategy.mbatch = batch
        strategy._unpack_minibatch()
        pair = strategy.mb_x, strategy.mb_y
        return (*pair, strategy.mb_task_id) if with_tasks else pair
    finally:
        strategy.mbatch = before

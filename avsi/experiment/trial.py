"""A trial: an experiment, a method and a seed. What it is called, where its result lies, and running it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsi.experiment.description import digest
from avsi.experiment.spec import Experiment, ExperimentError, Method

if TYPE_CHECKING:
    from avsi.experiment.progress import TrialProgress

LAST_SEED = 2**32 - 1  # of NumPy


def trial_file(folder: Path, seed: int) -> Path:
    """Name the file of a trial's result, which need not exist, in the folder of its method."""
    return folder / f"seed-{seed:03d}.json"


@dataclass(frozen=True)
class Setting:
    """Where and with what trials run. Not part of a trial's description: results record device and data.

    Attributes:
        device: A torch device.
        data_root: Folder of prepared data sets, None for the default.
        download: Whether missing data may be downloaded.
        tensorboard: Folder for TensorBoard logs, None for none.
        loggers: Make further loggers of Avalanche's, each called with the trial.
    """

    device: str = "cpu"
    data_root: Path | None = None
    download: bool = True
    tensorboard: Path | None = None
    loggers: tuple[Callable[[Trial], Any], ...] = ()


@dataclass(frozen=True)
class Trial:
    """One training of one method with one seed.

    Example:
        >>> from functools import partial
        >>> from torch.optim import SGD
        >>> from avsi.experiment import Experiment, Trial, methods
        >>> from avsi.models import MLP, MultiHead
        >>> from avsi.scenarios import split_digits
        >>> experiment = Experiment(
        ...     name="digits", title="Digits", source="An example.", scenario=split_digits,
        ...     model=partial(MLP, 64, (16,), MultiHead), optimizer=partial(SGD, lr=0.1),
        ...     epochs=1, batch_size=32, reset_optimizer=False, methods=(methods.finetune(),), trials=1,
        ... )
        >>> trial = Trial(experiment, experiment.method("finetune"), seed=0)
        >>> print(trial)
        finetune, seed 0
        >>> len(trial.run()["task_accuracy"])
        5

    Attributes:
        experiment: The experiment.
        method: The method.
        seed: Seeds every random generator, and the benchmark.
        description: All that decides its result, but for the seed, as JSON data; kept on the way to another process,
            where the functions of a script have other names.
    """

    experiment: Experiment
    method: Method
    seed: int
    description: dict[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= LAST_SEED:
            raise ExperimentError(f"seed must be at least 0 and at most {LAST_SEED}, got {self.seed}")
        object.__setattr__(self, "description", self.experiment.describe(self.method))

    def __str__(self) -> str:
        return f"{self.method.name}, seed {self.seed}"

    def __getstate__(self) -> dict[str, Any]:
        # A function of another method that cannot be imported elsewhere is not this one's fault.
        return vars(self) | {"experiment": replace(self.experiment, methods=(), paper={})}

    @property
    def digest(self) -> str:
        """The fingerprint of the description."""
        return digest(self.description)

    @property
    def folder(self) -> Path:
        """The folder of the method's results, below a results folder: no other protocol's trials are in it."""
        return Path(self.experiment.name) / f"{self.method.trial_name}-{self.digest}"

    @property
    def file(self) -> Path:
        """The file of its result, below a results folder."""
        return trial_file(self.folder, self.seed)

    def run(
        self, setting: Setting | None = None, progress: TrialProgress | None = None, checkpoint: Path | None = None
    ) -> dict[str, Any]:
        """Run the trial, or resume it where it was interrupted.

        Args:
            setting: Device, data and logs; default: the CPU and the default data.
            progress: Told of every step.
            checkpoint: File that keeps the trial's state after each finished task. If it is there, the trial resumes
                from it, and only times and ``resumed`` differ from an uninterrupted trial's. The caller deletes it.

        Returns:
            The result, as JSON data. Accuracies and errors are fractions; ``accuracy_matrix`` and ``bwt`` are None
            where tasks are not learned in sequence. ``weights`` and ``state`` hold a SHA-256 for each training: trials
            with equal ones are equal bit for bit. ``status`` is "finished" or "diverged"; ``divergence`` then says
            where and why, and there is no accuracy.
        """
        from avsi.experiment.running import run  # only here, for it loads Avalanche

        return run(self, setting or Setting(), progress, checkpoint)

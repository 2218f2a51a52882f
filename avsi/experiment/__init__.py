"""What runs: experiments, methods, trials, checkpoints. Nothing of Avalanche is loaded before a trial is run."""

from typing import TYPE_CHECKING, Any

from avsi.experiment.names import lazy_imports
from avsi.experiment.spec import Experiment, ExperimentError, Method, Patience, Reported
from avsi.experiment.trial import Setting, Trial

if TYPE_CHECKING:
    from avsi.launch.cli import main

__all__ = [
    "Experiment",
    "ExperimentError",
    "Method",
    "Patience",
    "Reported",
    "Setting",
    "Trial",
    "lazy_imports",
    "main",
]


def __getattr__(name: str) -> Any:
    if name == "main":  # the command line stands on what is in here
        try:
            from avsi.launch.cli import main
        except ModuleNotFoundError as error:
            extra = "experiments need an extra: pip install '.[experiments]' in a clone"
            raise ImportError(f"{error}; {extra}") from error

        return main
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

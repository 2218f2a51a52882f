"""Experiments: trials by seed, a results folder, tables, figures and a command line."""

from avsi.experiment.cli import main
from avsi.experiment.early_stopping import Patience
from avsi.experiment.spec import Experiment, ExperimentError, Method, Reported

__all__ = ["Experiment", "ExperimentError", "Method", "Patience", "Reported", "main"]

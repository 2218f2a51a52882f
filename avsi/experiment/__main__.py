"""The command line over results: ``python -m avsi.experiment report RESULTS``."""

from __future__ import annotations

import sys
from pathlib import Path

import tyro
from rich.console import Console

from avsi.experiment.report import rebuild
from avsi.experiment.spec import ExperimentError


def report(results: tyro.conf.Positional[Path], /) -> None:
    """Rebuild summaries, tables and figures of every experiment in a results folder, and its report.html.

    Everything is made of the files found there; the scripts that ran the experiments are not needed.

    Args:
        results: The results folder, such as that of a script's --out.
    """
    console, errors = Console(), Console(stderr=True)
    try:
        written = rebuild(results)
    except ExperimentError as error:
        errors.print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)
    for file in written.files:
        console.print(str(file), markup=False, highlight=False, soft_wrap=True)
    for problem in written.problems:
        errors.print(f"error: left out: {problem}", style="red", markup=False, highlight=False)
    if written.problems:
        sys.exit(2)


def main(args: list[str] | None = None) -> None:
    """Run a command.

    Args:
        args: The command line, default ``sys.argv[1:]``.
    """
    commands = {"report": report}
    tyro.extras.subcommand_cli_from_dict(commands, prog="python -m avsi.experiment", description=__doc__, args=args)


if __name__ == "__main__":
    main()

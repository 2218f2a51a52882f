"""The command line over results: ``python -m avsi.results report RESULTS``."""

from __future__ import annotations

import sys
from pathlib import Path

import tyro

from avsi.results.report import say, show, write_report
from avsi.results.store import ResultsError


def command(results: tyro.conf.Positional[Path], /) -> None:
    """Rebuild summaries, tables and figures of every experiment in a results folder, and its report.html.

    Everything is made of the files found there; the scripts that ran the experiments are not needed. Files that cannot
    be read are left out and named; the exit status is then 1.

    Args:
        results: The results folder, such as that of a script's --out.
    """
    try:
        written = write_report(results.expanduser())
    except ResultsError as error:
        say(f"error: {error}", sys.stderr)
        sys.exit(2)
    show(written)
    sys.exit(1 if written.problems else 0)


def main(args: list[str] | None = None) -> None:
    """Run a command."""
    tyro.extras.subcommand_cli_from_dict(
        {"report": command}, prog="python -m avsi.results", description=__doc__, args=args
    )


if __name__ == "__main__":
    main()

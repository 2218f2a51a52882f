"""What is made of a results folder: its trials as one table, summaries, figures and a page.

Names are imported on first use, so that whoever only writes results does not load pandas and matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avsi.results.figures import heat_map, save_figure
    from avsi.results.report import say, show, write_report
    from avsi.results.store import ResultsError
    from avsi.results.study import trials
    from avsi.results.tables import markdown_table, terminal_table

__all__ = [
    "ResultsError", "heat_map", "markdown_table", "save_figure", "say", "show", "terminal_table", "trials",
    "write_report",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    for module in ("store", "study", "tables", "figures", "report") if name in __all__ else ():
        found = getattr(import_module(f"avsi.results.{module}"), name, None)
        if found is not None:
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

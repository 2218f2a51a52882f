"""Everything that is made of a results folder: summaries, tables, figures and a page, from its files alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import get_terminal_size
from typing import TextIO

from filelock import FileLock

from avsi.files import write_text
from avsi.results.figures import captions, write_figures
from avsi.results.page import Section, analysis_section, page, study_section
from avsi.results.store import EXPERIMENT, ResultsError, harmless, reason
from avsi.results.study import Study, left_out, read_studies, subfolders
from avsi.results.tables import comma_separated, markdown, terminal

PAGE = "report.html"
SPELLED = str.maketrans({"±": "+-", "λ": "lambda", "η": "eta", "ξ": "xi"})  # where there are only letters of ASCII


@dataclass(frozen=True)
class Report:
    """What was written: the page, tables and figures of which experiments, and which files are left out and why."""

    page: Path
    studies: tuple[Study, ...]
    problems: tuple[str, ...] = ()


def write_report(folder: str | Path, only: str | None = None) -> Report:
    """Write summaries, tables and figures of the experiments in a results folder, and its page.

    Several runs on one results folder may do so at the same time: what is left shows the trials of all of them.

    Args:
        folder: The results folder.
        only: Name of the study (experiment and protocol) whose files are written; those of others are written only
            where their summary no longer matches their trials. Default: all.

    Returns:
        What was written. What cannot be read is left out, and the page says so.

    Raises:
        ResultsError: If the folder is missing, cannot be written to or holds no results.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ResultsError(f"there is no folder {folder}; give a results folder, such as that of a script's --out")
    if (folder / f"{EXPERIMENT}.json").exists() or any(folder.glob("seed-*.json")):
        raise ResultsError(f"{folder} is the folder of one experiment; give the results folder that it is in")
    try:
        # One report at a time: the last of several runs to write sees the trials of all.
        with FileLock(folder / ".report.lock"):
            return _report(folder, only)
    except OSError as error:
        raise ResultsError(f"cannot write the report of {folder} ({reason(error)})") from error


def _report(folder: Path, only: str | None) -> Report:
    found: list[Study] = []
    sections: list[Section] = []
    problems: list[str] = []
    for child in subfolders(folder):
        with left_out(problems):
            studies, of_child = read_studies(child)
            problems += of_child
            for study in studies:
                numbers, table = comma_separated(study), study.file("summary", "csv")
                old = not table.is_file() or table.read_bytes() != numbers.encode()
                renewed = old or only in {None, study.name}
                if renewed:
                    write_figures(study)
                summary = markdown(study, captions(study))
                if renewed:
                    write_text(study.file("summary", "md"), summary)
                    write_text(table, numbers)
                sections.append(study_section(study, summary))
                found.append(study)
            analysis = not any(child.glob(f"{EXPERIMENT}*.json"))  # else the summary is of trials that are gone
            if analysis and os.path.lexists(child / "summary.md"):
                sections.append(analysis_section(child))
    if not (sections or problems):
        raise ResultsError(f"{folder} holds no results: no folder in it has trials or a summary.md")
    problems = [harmless(problem.replace(f"{folder}/", "")) for problem in problems]
    write_text(folder / PAGE, page(sections, problems, folder))
    return Report(folder / PAGE, tuple(found), tuple(problems))


def show(written: Report, name: str = "", methods: Sequence[str] = ()) -> None:
    """Print the tables of some methods, and where the files are; a terminal that knows no more gets ASCII.

    Args:
        written: What was written.
        name: Name of the study whose tables are printed; default: none.
        methods: Its methods; default: all.
    """
    for study in written.studies:
        chosen = study.only(methods) if methods else study
        if study.name == name and len(chosen.trials):
            say(terminal(chosen, get_terminal_size((80, 24)).columns))
            say(f"Tables: {study.file('summary', 'md')}  {study.file('summary', 'csv')}; figures beside them")
    for problem in written.problems:
        say(f"left out: {problem}", sys.stderr)
    say(f"Report: {written.page}")


def say(text: str, file: TextIO | None = None) -> None:
    """Print a text on any terminal: letters that it cannot show are replaced, and what would steer it is left out.

    Args:
        text: The text.
        file: Where to; default: standard output.
    """
    file = file or sys.stdout
    text = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
    encoding = getattr(file, "encoding", None) or "ascii"
    if text.encode(encoding, "ignore").decode(encoding) != text:
        text = text.translate(SPELLED).encode(encoding, "replace").decode(encoding)
    print(text, file=file)

"""Everything that is made of finished trials: summaries, tables, figures and an HTML page, from the files alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from rich.console import Console

from avsi.experiment.figures import KINDS, save_figure
from avsi.experiment.html_report import Analysis, is_analysis, page, read_analysis
from avsi.experiment.results import Results, write_text
from avsi.experiment.spec import Experiment, ExperimentError
from avsi.experiment.study import FILE, TRIALS, Study, read_studies, write_study
from avsi.experiment.summary import cautions, comma_separated, explanations, markdown, tables

PAGE = "report.html"


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        studies: The experiments written anew.
        files: The files written, the page last.
        problems: Why experiments of the same results folder are not in the page.
    """

    studies: tuple[Study, ...]
    files: tuple[Path, ...]
    problems: tuple[str, ...] = ()


def write_report(experiment: Experiment, results: Results) -> Report:
    """Write summary, table and figures of an experiment, and the page of the whole results folder.

    Several runs on one results folder may do so at the same time: what is left shows the trials of all of them.

    Args:
        experiment: The experiment.
        results: Where its trials are.

    Returns:
        What was written: nothing but ``experiment.json`` where no trial is finished. Other experiments that cannot be
        read are left out of the page, which says so; a damaged file of this one is an ExperimentError that names it.
    """
    own = write_study(experiment, results)
    suffix = own.stem[len(FILE) :]
    with _alone(results.folder):
        studies = [study for study in read_studies(own.parent) if study.suffix == suffix]
        files = [file for study in studies for file in _write_study_files(results.folder, study)]
        problems: list[str] = []
        if studies:
            shown, analyses, problems = _read(results.folder)
            files += _write_page(results.folder, shown, analyses, problems)
    return Report(tuple(studies), tuple(files), tuple(problems))


def rebuild(folder: Path) -> Report:
    """Write summaries, tables and figures of every experiment in a results folder, and its page.

    Args:
        folder: The results folder.

    Returns:
        What was written. Experiments that cannot be read are left out, and the page says so.

    Raises:
        ExperimentError: If the folder is missing or holds no results.
    """
    if not folder.is_dir():
        raise ExperimentError(f"there is no folder {folder}; give a results folder, such as that of a script's --out")
    if (folder / f"{FILE}.json").exists() or any(folder.glob("seed-*.json")):
        raise ExperimentError(f"{folder} is the folder of one experiment; give the results folder that it is in")
    with _alone(folder):
        studies, analyses, problems = _read(folder)
        if not (studies or analyses or problems):
            raise ExperimentError(
                f"{folder} holds no results: no folder in it has {TRIALS} with {FILE}.json, nor a summary.md or figures"
            )
        files = [file for study in studies for file in _write_study_files(folder, study)]
        files += _write_page(folder, studies, analyses, problems)
    return Report(tuple(studies), tuple(files), tuple(problems))


def show(report: Report, names: list[str], console: Console, quiet: bool = False) -> None:
    """Print the tables of some methods, and where the files are.

    Args:
        report: What was written.
        names: The methods.
        console: Where to.
        quiet: Print only where the files are.
    """
    for study in () if quiet else (study.only(names) for study in report.studies):
        if not study.trials:
            continue
        console.print(study.heading, style="bold", markup=False, highlight=False)
        for table in tables(study):
            console.print(table.rich())
        for line in (*explanations(study), *cautions(study)):
            console.print(line, markup=False, highlight=False)
    for problem in report.problems:
        console.print(f"not in {PAGE}: {problem}", markup=False, highlight=False, soft_wrap=True)
    for name, endings in (("Tables", {".md", ".csv"}), ("Figures", {".png"}), ("Report", {".html"})):
        files = [str(file) for file in report.files if file.suffix in endings]
        if files:
            console.print(f"{name}: {'  '.join(files)}", markup=False, highlight=False, soft_wrap=True)


def _alone(folder: Path) -> FileLock:
    # One report at a time: the last of several runs to write sees the trials of all.
    return FileLock(folder / ".report.lock")


def _read(folder: Path) -> tuple[list[Study], list[Analysis], list[str]]:
    studies: list[Study] = []
    analyses: list[Analysis] = []
    problems: list[str] = []
    for child in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        try:
            found = read_studies(child)
            studies += found
            if not found and not any(child.glob(f"{FILE}*.json")) and is_analysis(child):
                analyses.append(read_analysis(child))
        except ExperimentError as error:
            problems.append(str(error))
    return studies, analyses, problems


def _write_study_files(folder: Path, study: Study) -> list[Path]:
    own = folder / study.name
    summary, table = own / f"summary{study.suffix}.md", own / f"summary{study.suffix}.csv"
    write_text(summary, markdown(study))
    write_text(table, comma_separated(study))
    files = [summary, table]
    for kind in KINDS:
        figure = kind.draw(study)
        if figure is not None:
            files += save_figure(figure, own / f"{kind.name}{study.suffix}")
    return files


def _write_page(folder: Path, studies: list[Study], analyses: list[Analysis], problems: list[str]) -> list[Path]:
    for study in studies:  # figures are taken from their files, which may be older than another experiment's trials
        own = folder / study.name
        table = own / f"summary{study.suffix}.csv"
        newest = max(file.stat().st_mtime_ns for file in own.glob(TRIALS))
        if not table.exists() or table.stat().st_mtime_ns < newest:
            _write_study_files(folder, study)
    write_text(folder / PAGE, page(folder, studies, analyses, problems))
    return [folder / PAGE]

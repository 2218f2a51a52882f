"""The page over a results folder: one HTML file that needs nothing else, neither files nor network."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import floor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from avsi.experiment.curves import Panel, panels
from avsi.experiment.figures import KINDS
from avsi.experiment.results import trial_file
from avsi.experiment.spec import ExperimentError
from avsi.experiment.study import Outcome, Study
from avsi.experiment.summary import Rows, cautions, explanations, partial_data, tables

MEDIA = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclass(frozen=True)
class Picture:
    """A figure inside the page.

    Attributes:
        source: A data URI.
        caption: What it shows.
    """

    source: str
    caption: str


@dataclass(frozen=True)
class Analysis:
    """A folder without trials: what a script wrote of an analysis of its own.

    Attributes:
        name: The folder's name.
        title: Heading.
        text: Its summary as HTML.
        pictures: Its figures.
    """

    name: str
    title: str
    text: Markup
    pictures: tuple[Picture, ...]


def is_analysis(folder: Path) -> bool:
    """Decide whether a folder without trials has something to show.

    Args:
        folder: The folder.

    Returns:
        True if it holds a ``summary.md`` or figures.
    """
    return (folder / "summary.md").exists() or bool(_figure_files(folder))


def read_analysis(folder: Path) -> Analysis:
    """Read what a script wrote of an analysis.

    Args:
        folder: Its folder, with ``summary.md``, figures (SVG, PNG where there is no SVG), or both.

    Returns:
        The analysis.

    Raises:
        ExperimentError: If a file cannot be read.
    """
    summary, title, text = folder / "summary.md", folder.name, Markup()
    try:
        if summary.exists():
            title, text = render_markdown(summary.read_text(encoding="utf-8"), folder.name)
        pictures = tuple(Picture(_data_uri(file), f"{file.name}") for file in _figure_files(folder))
    except (OSError, UnicodeDecodeError) as error:
        raise ExperimentError(f"cannot read the analysis in {folder} ({error}); run its script again") from error
    return Analysis(folder.name, title, text, pictures)


def render_markdown(text: str, title: str) -> tuple[str, Markup]:
    """Turn Markdown into a section's HTML: raw HTML in it stays text, images become their descriptions.

    Args:
        text: Markdown.
        title: The section's title, if the text has no heading of the first level.

    Returns:
        The title, and the rest with its headings one level lower.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    rules: dict[str, Any] = markdown.renderer.rules  # type: ignore[attr-defined]
    rules["image"] = lambda tokens, index, *_: str(escape(tokens[index].content))
    rules["table_open"] = lambda *_: '<div class="scroll" tabindex="0"><table>\n'
    rules["table_close"] = lambda *_: "</table></div>\n"
    tokens = markdown.parse(text)
    if len(tokens) > 2 and tokens[0].type == "heading_open" and tokens[0].tag == "h1":
        title, tokens = tokens[1].content, tokens[3:]
    for token in tokens:
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{min(int(token.tag[1]) + 1, 6)}"
    return title, Markup(markdown.renderer.render(tokens, markdown.options, {}))


def _figure_files(folder: Path) -> list[Path]:
    vector = sorted(folder.glob("*.svg"))
    stems = {file.stem for file in vector}
    pixels = sorted(file for file in folder.glob("*.png") if file.stem not in stems)
    return [file for file in (*vector, *pixels) if not file.name.startswith(".")]


def _data_uri(file: Path) -> str:
    return f"data:{MEDIA[file.suffix]};base64,{b64encode(file.read_bytes()).decode()}"


def page(folder: Path, studies: Sequence[Study], analyses: Sequence[Analysis], problems: Sequence[str]) -> str:
    """Write the page.

    Args:
        folder: The results folder, with the studies' figures.
        studies: The experiments.
        analyses: Analyses of their own.
        problems: What is left out, and why.

    Returns:
        HTML.
    """
    template = files("avsi.experiment").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        experiments=[section(folder, study) for study in studies],
        analyses=analyses,
        problems=[problem.replace(f"{folder}/", "") for problem in problems],
    )


def section(folder: Path, study: Study) -> dict[str, Any]:
    """Collect what the page shows of an experiment.

    Args:
        folder: The results folder.
        study: The experiment.

    Returns:
        The template's variables.
    """
    own = folder / study.name
    known = {f"{kind.name}{study.suffix}.svg": kind.caption for kind in KINDS}
    pictures = [Picture(_data_uri(own / name), caption) for name, caption in known.items() if (own / name).exists()]
    if not study.suffix:  # others belong to changed protocols, or to scripts that draw more
        changed = tuple(f"{kind.name}-" for kind in KINDS)
        others = [file for file in _figure_files(own) if file.name not in known and not file.name.startswith(changed)]
        pictures += [Picture(_data_uri(file), file.name) for file in others]
    finished = [method for method in study.methods if method.trials]
    return {
        "id": f"{study.name}{study.suffix}",
        "study": study,
        "count": len(study.trials),
        "methods": len(study.compared),
        "partial": bool(study.deviation or partial_data(study.methods)),
        "explanations": explanations(study),
        "cautions": cautions(study),
        "tables": tables(study),
        "pictures": pictures,
        "curves": curves(study),
        "trials": trials_table(study),
        "settings": settings(finished),
        "raw": [(method, json.dumps(method.trials[0].get("description"), indent=1, ensure_ascii=False))
                for method in _once(finished)],
        "data": data_table(study),
        "environments": environments_table(study),
    }  # fmt: skip


def _once(methods: Sequence[Outcome]) -> list[Outcome]:
    # A candidate that was chosen shares its trials with the method compared, which comes first.
    return list({method.folder: method for method in reversed(methods)}.values())[::-1]


def curves(study: Study) -> list[dict[str, Any]]:
    """Plot the curves of every trial.

    Args:
        study: The study.

    Returns:
        For each method with curves: its label, its trials with their panels, and what the panels' lines are.
    """
    finished = _once([method for method in study.methods if method.trials])
    learned = [
        trial["accuracy_matrix"][t][i]
        for method in finished
        if method.regime == "sequential"
        for trial in method.trials
        for t in range(len(trial["accuracy_matrix"]))
        for i in range(t + 1)
    ]
    low = 10.0 * floor(10 * min(learned, default=0.0))  # the same for all, so that they can be compared
    found = []
    for method in finished:
        plots = [(trial, panels(trial, min(low, 90.0))) for trial in method.trials]
        if any(shown for _, shown in plots):
            found.append(
                {"method": method, "trials": plots, "lines": line_names([p for _, shown in plots for p in shown])}
            )
    return found


def line_names(plots: Sequence[Panel]) -> list[tuple[str, ...]]:
    """List what lines of panels are, once for panels with the same lines.

    Args:
        plots: The panels.

    Returns:
        Names of lines, by style.
    """
    return list(dict.fromkeys(plot.names for plot in plots))


def trials_table(study: Study) -> list[dict[str, Any]]:
    """List all trials with what is recorded of their runs.

    Args:
        study: The study.

    Returns:
        For each trial its method's label, its values as text, and where its file is, relative to the page.
    """
    rows = []
    for method in _once([method for method in study.methods if method.trials]):
        for trial in method.trials:
            file = trial_file(Path(study.name, method.folder), trial["seed"]).as_posix()
            environment = trial.get("environment", {})
            rows.append(
                {
                    "label": method.label,
                    "seed": trial["seed"],
                    "accuracy": f"{100 * trial['accuracy']:.2f}",
                    "bwt": "" if trial["bwt"] is None else f"{trial['bwt']:.3f}",
                    "seconds": "" if trial.get("wall_time_s") is None else f"{trial['wall_time_s']:.0f}",
                    "device": environment.get("device", ""),
                    "threads": environment.get("threads", ""),
                    "started": trial.get("started", "").replace("T", " ").replace("+00:00", " UTC"),
                    "file": quote(file),
                }
            )
    return rows


def settings(methods: Sequence[Outcome]) -> tuple[list[tuple[str, str]], list[dict[str, str]]]:
    """Write out the configuration, as code.

    Args:
        methods: Methods with trials.

    Returns:
        What all methods share, and for each method what is its own.
    """
    described = [(method, method.trials[0].get("description", {})) for method in methods]
    names = list(dict.fromkeys(name for _, description in described for name in description))
    shared, own = [], []
    for name in (name for name in names if name not in {"experiment", "method"}):
        values = list(dict.fromkeys(expression(description.get(name)) for _, description in described))
        if len(values) == 1:
            shared.append((name.replace("_", " "), values[0]))
        else:
            own.append(name)
    rows = []
    for method, description in described:
        trained = description.get("method", {})
        rows.append(
            {"method": method.name, "regime": method.regime, "strategy": expression(trained.get("strategy"))}
            | {name.replace("_", " "): expression(description.get(name)) for name in own}
            | {"plugins": ", ".join(expression(plugin) for plugin in trained.get("plugins", []))}
            | {"digest": str(method.trials[0].get("digest", ""))}
        )
    return shared, rows


def expression(value: Any) -> str:
    """Write a description (see ``avsi.experiment.description``) as a Python expression.

    Args:
        value: JSON data.

    Returns:
        The expression; names without their modules' path.
    """
    if isinstance(value, Mapping) and value.keys() == {"call", "args", "kwargs"}:
        arguments = [expression(item) for item in value["args"]]
        arguments += [f"{key}={expression(item)}" for key, item in value["kwargs"].items()]
        return f"{expression(value['call'])}({', '.join(arguments)})"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={expression(item)}" for key, item in value.items())
    if isinstance(value, list):
        return f"({', '.join(map(expression, value))}{',' * (len(value) == 1)})"
    if isinstance(value, str):
        return value.rpartition(".")[2] if value.replace(".", "").replace("_", "").isalnum() else repr(value)
    return "none" if value is None else repr(value)


def data_table(study: Study) -> Rows:
    """List the data that the trials used.

    Args:
        study: The study.

    Returns:
        The table.
    """
    rows = {
        (
            str(item["name"]),
            str(item["split"]),
            str(item["images"]),
            str(item["published"]),
            "all" if item["complete"] else "partial",
            str(item["fingerprint"])[:12],
            str(item.get("source", "")),
        )
        for trial in study.trials
        for item in trial["data"]
    }
    columns = ("data set", "split", "images", "published", "used", "SHA-256", "source")
    return Rows("Data", columns, tuple(sorted(rows)))


def environments_table(study: Study) -> Rows:
    """List the different environments that trials ran in, a column each.

    Args:
        study: The study.

    Returns:
        The table.
    """
    counts: dict[str, int] = {}
    for trial in study.trials:
        text = json.dumps(trial.get("environment", {}))
        counts[text] = counts.get(text, 0) + 1
    found = sorted(counts, key=lambda text: (-counts[text], text))
    environments = [json.loads(text) for text in found]
    names = list(dict.fromkeys(name for environment in environments for name in environment))
    rows = [("trials", *(str(counts[text]) for text in found))]
    rows += [(name, *(str(environment.get(name, "")) for environment in environments)) for name in names]
    columns = ("environment", *(str(index + 1) for index in range(len(found))))
    return Rows("Environment", columns, tuple(rows))

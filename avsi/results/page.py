"""The page over a results folder: one HTML file that needs nothing else, rendered from the summaries' Markdown."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

from avsi.results.store import LONGEST, ResultsError, plain, read_bytes
from avsi.results.study import Study
from avsi.results.tables import literal, markdown_table

MEDIA = {".svg": "image/svg+xml", ".png": "image/png"}
DEEPEST = 12  # levels of a description that are written out


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        id: Where a link leads.
        title: Heading.
        about: What the contents say beside it.
        body: HTML.
        details: Titles and HTML of what is folded away.
    """

    id: str
    title: str
    about: str
    body: Markup
    details: list[tuple[str, Markup]] = field(default_factory=list)


def page(sections: Sequence[Section], problems: Sequence[str], command: str, made: str) -> str:
    """Return the page as HTML: its parts, what is left out and why, the command that makes it, and when it was made."""
    template = files("avsi.results").joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        sections=sections, problems=problems, command=command, made=made, version=version("avsi")
    )


def study_section(study: Study, summary: str) -> Section:
    """Return an experiment's part of the page: its summary and, folded away, all trials, configuration, data."""
    title, body = render(summary, study.folder, study.name)
    details = {"All trials": _trials_table(study), "Configuration": _settings_table(study)}
    details |= {"Data": _data_table(study), "Environment": _environment_table(study)}
    folded = [(name, render(markdown_table(table), study.folder)[1]) for name, table in details.items() if table.size]
    if study.command:
        folded.append(("Command", Markup("<p><code>{}</code></p>").format(study.command)))
    if study.others:
        text = "They belong to no method of the experiment as it is now: " + ", ".join(study.others)
        folded.append(("Trials not shown", Markup("<p>{}</p>").format(text)))
    methods, trials = len(study.compared), len(study.trials)
    about = f"{study.name}: {_count(methods, 'method')}, {_count(trials, 'trial')}"
    return Section(quote(study.name), title, about, body, folded)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def analysis_section(folder: Path) -> Section | None:
    """Make the part of a folder without trials: what a script wrote of an analysis of its own.

    Args:
        folder: Its folder, with ``summary.md``, figures (SVG, PNG where there is no SVG), or both.

    Returns:
        The part; None if there is neither.

    Raises:
        ResultsError: If a file cannot be read.
    """
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    figures = [name for name in names if name.endswith(".svg")]
    figures += [name for name in names if name.endswith(".png") and f"{name[:-4]}.svg" not in figures]
    if "summary.md" not in names and not figures:
        return None
    text = ""
    if "summary.md" in names:
        try:
            text = read_bytes(folder / "summary.md").decode()
        except UnicodeDecodeError as error:
            raise ResultsError(f"{folder / 'summary.md'} is no text ({error}); run its script again") from error
    text += "".join(f"\n\n![{literal(name)}](<{name}>)\n" for name in figures if f"<{name}>" not in text)
    title, body = render(text, folder, folder.name)
    return Section(quote(plain(folder.name)), title, plain(folder.name), body)


def render(text: str, folder: Path, title: str = "") -> tuple[str, Markup]:
    """Turn Markdown into a section's HTML: raw HTML in it stays text, figures of the folder become part of the page.

    Args:
        text: Markdown.
        folder: Where the figures are. Other images become their descriptions.
        title: The section's title, if the text has no heading of the first level.

    Returns:
        The title, and the rest with its headings one level lower.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    rules: dict[str, Any] = markdown.renderer.rules  # type: ignore[attr-defined]
    rules["image"] = lambda tokens, index, *_: _image(tokens[index], folder)
    rules["table_open"] = lambda *_: '<div class="scroll" tabindex="0"><table>\n'
    rules["table_close"] = lambda *_: "</table></div>\n"
    tokens = markdown.parse(text)
    if len(tokens) > 2 and tokens[0].type == "heading_open" and tokens[0].tag == "h1":
        title, tokens = "".join(child.content for child in tokens[1].children or []), tokens[3:]
    for token in tokens:
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{min(int(token.tag[1]) + 1, 6)}"
    return plain(title), Markup(markdown.renderer.render(tokens, markdown.options, {}))


def _image(token: Token, folder: Path) -> str:
    name, caption = unquote(str(token.attrs["src"])), "".join(child.content for child in token.children or [])
    if Path(name).name != name or Path(name).suffix not in MEDIA:
        return str(escape(caption))
    try:
        content = b64encode(read_bytes(folder / name)).decode()
    except ResultsError as error:
        return str(escape(f"{caption} ({error})"))
    source = f"data:{MEDIA[Path(name).suffix]};base64,{content}"
    return (
        Markup('<span class="scroll" tabindex="0" style="display:block"><img alt="{}" src="{}"></span>'
               '<span class="quiet">{}</span>').format(caption, source, caption)
    )  # fmt: skip


def _trials_table(study: Study) -> pd.DataFrame:
    # List all trials with what is recorded of their runs.
    rows = [
        {
            "method": method.label,
            "seed": str(trial["seed"]),
            "accuracy %": "diverged" if trial["accuracy"] is None else f"{100 * trial['accuracy']:.2f}",
            "BWT": "" if trial["bwt"] is None else f"{trial['bwt']:.3f}",
            "wall time s": "" if trial.get("wall_time_s") is None else f"{trial['wall_time_s']:.0f}",
            "device": plain(trial.get("environment", {}).get("device", "")),
            "code": plain(trial.get("code") or "")[:12],
            "started": plain(trial.get("started", ""))[:19].replace("T", " "),
            "file": f"{plain(method.folder)}/seed-{trial['seed']:03d}.json",
        }
        for method in study.run
        for trial in method.trials
    ]
    frame = pd.DataFrame(rows).set_index("method")
    return frame.loc[:, (frame != "").any()]


def _settings_table(study: Study) -> pd.DataFrame:
    # Write out the configuration, as code: what all methods share, and for each method what is its own.
    described = {}
    for method in study.run:
        description = dict(method.trials[0].get("description", {}))
        trained = description.pop("method", {})
        description |= {key: trained.get(key) for key in ("strategy", "plugins")} if isinstance(trained, dict) else {}
        described[method.label] = {
            plain(key).replace("_", " "): _expression(value) for key, value in description.items()
        }
    frame = pd.DataFrame(described).T.fillna("")
    frame = frame.drop(columns="experiment", errors="ignore")
    frame = frame.loc[:, (frame != "").any()]
    shared = [column for column in frame if frame[column].nunique() == 1 and len(frame) > 1]
    rows = [("all methods", column, frame[column].iloc[0]) for column in shared]
    rows += [
        (label, column, row[column]) for label, row in frame.iterrows() for column in frame if column not in shared
    ]
    return pd.DataFrame([row for row in rows if row[2]], columns=["method", "setting", "value"]).set_index("method")


def _expression(value: Any, depth: int = 0) -> str:
    # Write a description (see ``avsi.experiment.description``) as a Python expression.
    if depth > DEEPEST:
        return "..."
    if isinstance(value, Mapping) and isinstance(value.get("args"), list) and isinstance(value.get("kwargs"), Mapping):
        arguments = [_expression(item, depth + 1) for item in value["args"]]
        arguments += [f"{plain(key)}={_expression(item, depth + 1)}" for key, item in value["kwargs"].items()]
        return plain(f"{_expression(value.get('call'), depth + 1)}({', '.join(arguments)})", 4 * LONGEST)
    if isinstance(value, Mapping):
        return plain(", ".join(f"{key}={_expression(item, depth + 1)}" for key, item in value.items()), 4 * LONGEST)
    if isinstance(value, list):
        items = [_expression(item, depth + 1) for item in value[:100]]
        return plain(f"({', '.join(items)}{',' * (len(value) == 1)})", 4 * LONGEST) if value else ""
    if isinstance(value, str) and re.fullmatch(r"[\w.]+", value):
        return plain(value.rpartition(".")[2])
    return "" if value is None else plain(repr(value))


def _data_table(study: Study) -> pd.DataFrame:
    # List the data that the trials used.
    keys = {"data set": "name", "split": "split", "images": "images", "published": "published",
            "complete": "complete", "SHA-256": "fingerprint", "source": "source"}  # fmt: skip
    rows = {
        tuple(plain(item.get(key, ""))[: 12 if key == "fingerprint" else None] for key in keys.values())
        for trial in study.trials
        for item in trial["data"]
    }
    return pd.DataFrame(sorted(rows), columns=list(keys)).set_index("data set")


def _environment_table(study: Study) -> pd.DataFrame:
    # List the different environments that trials ran in, a column each.
    found = [tuple((plain(k), plain(v)) for k, v in t.get("environment", {}).items()) for t in study.trials]
    counts = pd.Series(found, dtype=object).value_counts()
    columns = [{"trials": str(count)} | dict(environment) for environment, count in counts.items()]
    frame = pd.DataFrame(columns).T.fillna("").rename_axis("environment")
    return frame.set_axis([str(index + 1) for index in range(len(columns))], axis="columns")

"""The page over a results folder: one HTML file that needs nothing else, rendered from Markdown."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from avsi.results.store import MAX_TEXT, ResultsError, harmless, read_bytes, read_text
from avsi.results.study import Study
from avsi.results.tables import literal, markdown_table

MEDIA = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclass(frozen=True)
class Section:
    """A part of the page: its name and title in the contents, its Markdown, and what is folded away, by title."""

    folder: Path
    name: str
    title: str
    text: str
    details: dict[str, str] = field(default_factory=dict)


def page(sections: Sequence[Section], problems: Sequence[str], folder: Path) -> str:
    """Return the page over a results folder as HTML: its parts, and why files are left out."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"render": render, "quote": quote}
    template = Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        sections=sections,
        problems=problems,
        command=harmless(f"python -m avsi.results report {folder}"),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("avsi"),
    )


def study_section(study: Study, summary: str) -> Section:
    """Return an experiment's part of the page: its summary and, folded away, its trials and how they were run."""
    details = {
        "All trials": markdown_table(_trials_table(study)),
        "Configuration, data and environment": markdown_table(_settings_table(study)),
        "Command": literal(study.command),
    }
    return Section(study.folder, study.name, study.heading, summary, details)


def analysis_section(folder: Path) -> Section:
    """Return the part of a folder without trials: a script's own ``summary.md``, and the figures beside it."""
    text, figures = read_text(folder / "summary.md"), sorted(path.name for path in folder.glob("*.svg"))
    heading = re.match("# (.*)", text)
    text += "".join(f"\n\n![{literal(figure)}](<{figure}>)\n" for figure in figures if f"<{figure}>" not in text)
    title = heading[1].replace("\\", "") if heading else folder.name
    return Section(folder, harmless(folder.name), harmless(title), text)


def render(text: str, folder: Path) -> Markup:
    """Turn Markdown into HTML: raw HTML stays text, figures of the folder become part of the page."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.add_render_rule("image", _image)
    markdown.add_render_rule("table_open", lambda *_: '<div class="scroll" tabindex="0"><table>\n')
    markdown.add_render_rule("table_close", lambda *_: "</table></div>\n")
    lowered = re.sub("^#", "##", text, flags=re.MULTILINE)  # the page's own heading is above all
    return Markup(markdown.render(lowered, {"folder": folder}))


def _image(renderer: Any, tokens: Any, index: int, options: Any, env: dict[str, Path]) -> str:
    name, caption = unquote(tokens[index].attrs["src"]), "".join(part.content for part in tokens[index].children)
    if Path(name).name != name or Path(name).suffix not in MEDIA:
        return str(escape(caption))
    try:
        content = b64encode(read_bytes(env["folder"] / name)).decode()
    except ResultsError as error:
        return str(escape(f"{caption} ({error})"))
    source = f"data:{MEDIA[Path(name).suffix]};base64,{content}"
    return (
        Markup('<span class="scroll" tabindex="0" style="display:block"><img alt="{}" src="{}"></span>'
               '<span class="quiet">{}</span>').format(caption, source, caption)
    )  # fmt: skip


def _trials_table(study: Study) -> pd.DataFrame:
    """List all trials with what is recorded of their runs."""
    trials = study.trials.reset_index().drop_duplicates("file")
    columns = ["seed", "status", "accuracy", "bwt", "wall_time_s", "code", "started"]
    texts = trials[columns].round(4).map(lambda value: "" if pd.isna(value) else str(value)[:19])
    files = [harmless(str(file.relative_to(study.folder))) for file in trials.file]
    return texts.assign(file=files).set_index(trials.method.map(study.methods.label))


def _settings_table(study: Study) -> pd.DataFrame:
    """Write out how trials were run, as code: what all methods share, then for each method what is its own."""
    rows = []
    for (name, _), trial in study.trials.iterrows():
        data = {f"data: {item.get('name')}, {item.get('split')}": item for item in trial.data}
        settings = (trial.description or {}) | data | (trial.environment or {})
        rows += [(study.methods.label[name], key, _expression(value)) for key, value in settings.items()]
    table = pd.DataFrame(rows, columns=["method", "setting", "value"]).drop_duplicates()
    shared = table.groupby(["setting", "value"]).method.transform("size") == study.run.label.nunique()
    common = table[shared].assign(method="all methods").drop_duplicates()
    return pd.concat([common, table[~shared]]).set_index("method")


def _expression(value: Any) -> str:
    """Write a description (see ``avsi.experiment.description``) as a Python expression."""
    if isinstance(value, dict):
        if value.keys() == {"name", "source"}:  # a function or class of the user's own
            return f"{_expression(value['name'])} ({value['source']})"
        arguments = value.get("kwargs") if "call" in value else value
        named = arguments if isinstance(arguments, dict) else {}
        texts = list(map(_expression, value["args"])) if isinstance(value.get("args"), list) else []
        texts += [f"{key}={_expression(item)}" for key, item in named.items()]
        text = f"{_expression(value['call'])}({', '.join(texts)})" if "call" in value else ", ".join(texts)
    elif isinstance(value, list):
        text = f"({', '.join(map(_expression, value[:100]))}{',' * (len(value) == 1)})"
    else:
        importable = isinstance(value, str) and re.fullmatch(r"[a-z_]+(\.\w+)+", value)
        text = value.rpartition(".")[2] if importable else repr(value)
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "..."

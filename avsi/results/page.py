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

from avsi.results.store import LONGEST, ResultsError, harmless, read_bytes, read_text
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
    """Return an experiment's part of the page: its summary and, folded away, all trials, configuration, data."""
    trials = study.trials.reset_index().drop_duplicates("file")
    tables = {
        "All trials": _trials_table(study, trials),
        "Configuration": _settings_table(study),
        "Data": _data_table(trials),
        "Environment": _environment_table(trials),
    }
    details = {title: markdown_table(table) for title, table in tables.items() if table.size}
    return Section(study.folder, study.name, study.heading, summary, details | {"Command": literal(study.command)})


def analysis_section(folder: Path) -> Section | None:
    """Make the part of a folder without trials: a script's own ``summary.md``, figures, or both; None without them."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    figures = [name for name in names if name.endswith(".svg")]
    figures += [name for name in names if name.endswith(".png") and f"{name[:-4]}.svg" not in figures]
    if "summary.md" not in names and not figures:
        return None
    name = harmless(folder.name)
    text = read_text(folder / "summary.md") if "summary.md" in names else ""
    text = text if text.startswith("# ") else f"# {literal(name)}\n\n{text}"
    text += "".join(f"\n\n![{literal(figure)}](<{figure}>)\n" for figure in figures if f"<{figure}>" not in text)
    return Section(folder, name, harmless(text.partition("\n")[0][2:].replace("\\", "")), text)


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


def _trials_table(study: Study, trials: pd.DataFrame) -> pd.DataFrame:
    """List all trials with what is recorded of their runs."""
    columns = {
        "seed": trials.seed.astype(str),
        "accuracy %": (100 * trials.accuracy).map("{:.2f}".format, na_action="ignore").fillna(trials.status),
        "BWT": trials.bwt.map("{:.3f}".format, na_action="ignore"),
        "wall time s": trials.wall_time_s.map("{:.0f}".format, na_action="ignore"),
        "device": trials.environment.map(lambda environment: (environment or {}).get("device")),
        "code": trials.code.map(lambda code: code and code[:12]),
        "started": trials.started.map(lambda time: time and time[:19].replace("T", " ")),
        "file": trials.file.map(lambda file: harmless(str(file.relative_to(study.folder)))),
    }
    return pd.DataFrame(columns).fillna("").set_index(trials.method.map(study.methods.label))


def _settings_table(study: Study) -> pd.DataFrame:
    """Write out the configuration, as code: what all methods share, then for each method what is its own."""
    rows = [
        (method.label, key.replace("_", " "), _expression(value))
        for name, method in study.run.iterrows()
        for key, value in (study.of(name).description.iloc[0] or {}).items()
    ]
    table = pd.DataFrame(rows, columns=["method", "setting", "value"])
    shared = table.groupby(["setting", "value"]).method.transform("size") == len(study.run)
    common = table[shared].assign(method="all methods").drop_duplicates()
    return pd.concat([common, table[~shared]]).set_index("method")


def _expression(value: Any) -> str:
    """Write a description (see ``avsi.experiment.description``) as a Python expression."""
    if isinstance(value, dict):
        arguments = value.get("kwargs") if "call" in value else value
        texts = list(map(_expression, value["args"])) if isinstance(value.get("args"), list) else []
        named = arguments if isinstance(arguments, dict) else {}
        texts += [f"{key}={_expression(item)}" for key, item in named.items()]
        text = f"{_expression(value['call'])}({', '.join(texts)})" if "call" in value else ", ".join(texts)
    elif isinstance(value, list):
        text = f"({', '.join(map(_expression, value[:100]))}{',' * (len(value) == 1)})"
    else:
        importable = isinstance(value, str) and re.fullmatch(r"[\w.]+", value)
        text = value.rpartition(".")[2] if importable else repr(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def _data_table(trials: pd.DataFrame) -> pd.DataFrame:
    """List the data that the trials used."""
    keys = ["name", "split", "images", "published", "complete", "source", "fingerprint"]
    table = pd.DataFrame(list(trials.data.explode().dropna()), columns=keys, dtype=object).fillna("").astype(str)
    return table.drop_duplicates().sort_values(keys).set_index("name")


def _environment_table(trials: pd.DataFrame) -> pd.DataFrame:
    """List the different environments that trials ran in, a column each."""
    table = pd.DataFrame([environment or {} for environment in trials.environment], dtype=object)
    if table.empty:
        return table
    counts = table.fillna("").astype(str).value_counts()
    columns = [f"{count} trial{'s' * (count != 1)}" for count in counts]
    return counts.index.to_frame().T.set_axis(columns, axis="columns").rename_axis("environment")

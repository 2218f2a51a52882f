"""The page over a results folder: one HTML file that needs nothing else, rendered from the summaries' Markdown."""

from __future__ import annotations

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
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

from avsi.results.store import LONGEST, ResultsError, plain, read_bytes, read_text
from avsi.results.study import Study
from avsi.results.tables import literal, markdown_table, table

MEDIA = {".svg": "image/svg+xml", ".png": "image/png"}
DEEPEST = 12  # levels of a description that are written out


@dataclass(frozen=True)
class Section:
    """A part of the page: its contents' link, heading and remark, its HTML, and titles and HTML of what is folded."""

    id: str
    title: str
    about: str
    body: Markup
    details: list[tuple[str, Markup]] = field(default_factory=list)


def page(sections: Sequence[Section], problems: Sequence[str], folder: Path) -> str:
    """Return the page over a results folder as HTML: its parts, and why files are left out."""
    template = files("avsi.results").joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        sections=sections,
        problems=problems,
        command=f"python -m avsi.results report {plain(folder)}",
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("avsi"),
    )


def study_section(study: Study, summary: str) -> Section:
    """Return an experiment's part of the page: its summary and, folded away, all trials, configuration, data."""
    title, body = render(summary, study.folder, study.name)
    details = {
        "All trials": _trials_table(study),
        "Configuration": _settings_table(study),
        "Data": _data_table(study),
        "Environment": _environment_table(study),
    }
    folded = [
        (name, render(markdown_table(of_study), study.folder)[1]) for name, of_study in details.items() if of_study.size
    ]
    if study.command:
        folded.append(("Command", Markup("<p><code>{}</code></p>").format(study.command)))
    if study.others:
        text = "They belong to no method of the experiment as it is now: " + ", ".join(study.others)
        folded.append(("Trials not shown", Markup("<p>{}</p>").format(text)))
    about = f"{study.name}: {_count(len(study.compared), 'method')}, {_count(len(study.trials), 'trial')}"
    return Section(quote(study.name), title, about, body, folded)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def analysis_section(folder: Path) -> Section | None:
    """Make the part of a folder without trials: a script's own ``summary.md``, figures, or both; None without them."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    figures = [name for name in names if name.endswith(".svg")]
    figures += [name for name in names if name.endswith(".png") and f"{name[:-4]}.svg" not in figures]
    if "summary.md" not in names and not figures:
        return None
    text = read_text(folder / "summary.md") if "summary.md" in names else ""
    text += "".join(f"\n\n![{literal(name)}](<{name}>)\n" for name in figures if f"<{name}>" not in text)
    title, body = render(text, folder, folder.name)
    return Section(quote(plain(folder.name)), title, plain(folder.name), body)


def render(text: str, folder: Path, title: str = "") -> tuple[str, Markup]:
    """Turn Markdown into a title and HTML: raw HTML stays text, figures of the folder become part of the page."""
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
    """List all trials with what is recorded of their runs."""
    return table(
        [
            {
                "method": method.label,
                "seed": str(trial["seed"]),
                "accuracy %": "diverged" if trial["accuracy"] is None else f"{100 * trial['accuracy']:.2f}",
                "BWT": "" if trial["bwt"] is None else f"{trial['bwt']:.3f}",
                "wall time s": "" if trial.get("wall_time_s") is None else f"{trial['wall_time_s']:.0f}",
                "device": plain((trial.get("environment") or {}).get("device", "")),
                "code": plain(trial.get("code") or "")[:12],
                "started": plain(trial.get("started") or "")[:19].replace("T", " "),
                "file": plain(study.trial_file(method, trial).relative_to(study.folder), 4 * LONGEST),
            }
            for method in study.run
            for trial in method.trials
        ]
    )


def _settings_table(study: Study) -> pd.DataFrame:
    """Write out the configuration, as code: what all methods share, then for each method what is its own."""
    rows, methods = [], study.run
    for method in methods:
        description = dict(method.trials[0].get("description") or {})
        trained = description.pop("method", {})
        description |= {key: trained.get(key) for key in ("strategy", "plugins")} if isinstance(trained, dict) else {}
        written = {plain(key).replace("_", " "): _expression(value) for key, value in description.items()}
        rows += [(method.label, key, value) for key, value in written.items() if value and key != "experiment"]
    frame = pd.DataFrame(rows, columns=["method", "setting", "value"])
    by_value = frame.groupby(["setting", "value"]).method.transform("size")
    shared = by_value.eq(len(methods)) & (len(methods) > 1)
    common = frame[shared].assign(method="all methods").drop_duplicates()
    return pd.concat([common, frame[~shared]]).set_index("method")


def _expression(value: Any, depth: int = 0) -> str:
    """Write a description (see ``avsi.experiment.description``) as a Python expression."""
    if depth > DEEPEST:
        return "..."
    if isinstance(value, dict):
        calls = isinstance(value.get("args"), list) and isinstance(value.get("kwargs"), dict)
        arguments = [_expression(item, depth + 1) for item in value["args"]] if calls else []
        named = value["kwargs"] if calls else value
        arguments += [f"{plain(key)}={_expression(item, depth + 1)}" for key, item in named.items()]
        text = ", ".join(arguments)
        return plain(f"{_expression(value.get('call'), depth + 1)}({text})" if calls else text, 4 * LONGEST)
    if isinstance(value, list):
        items = [_expression(item, depth + 1) for item in value[:100]]
        return plain(f"({', '.join(items)}{',' * (len(value) == 1)})", 4 * LONGEST) if value else ""
    if isinstance(value, str) and re.fullmatch(r"[\w.]+", value):
        return plain(value.rpartition(".")[2])
    return "" if value is None else plain(repr(value))


def _data_table(study: Study) -> pd.DataFrame:
    """List the data that the trials used."""
    keys = ("name", "split", "images", "published", "complete", "source", "fingerprint")
    items = {tuple(plain(item.get(key, "")) for key in keys) for trial in study.trials for item in trial["data"]}
    return table([dict(zip(keys, item, strict=True)) for item in sorted(items)])


def _environment_table(study: Study) -> pd.DataFrame:
    """List the different environments that trials ran in, a column each."""
    environments = [trial.get("environment") or {} for trial in study.trials]
    counts = Counter(tuple((plain(k), plain(v)) for k, v in environment.items()) for environment in environments)
    columns = [{"trials": str(count)} | dict(environment) for environment, count in counts.most_common()]
    frame = pd.DataFrame(columns, [str(index) for index in range(1, len(columns) + 1)])
    return frame.T.fillna("").rename_axis("environment")

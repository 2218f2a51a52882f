"""Writes the tables of README.md anew from the published numbers: ``python -m perf.readme``."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from perf.importance import BATCH, SETTINGS
from perf.whole_runs import TARGETS, TITLES

HERE = Path(__file__).parent
COLUMNS = ("first task", "later tasks")


def steps_table(results: dict[str, Any]) -> str:
    """Steps, consolidation and memory, one table per model."""
    tables = []
    for rows in results["steps"].values():
        naive = rows[0]
        lines = [
            f"**{naive['title']}**: {naive['parameters']:,} parameters, Naive {naive['milliseconds per step']:.2f} ms "
            f"per step, copies at {naive['copy GB/s']:.0f} GB/s",
            "",
            "| | first task | later tasks | floor, first / later | target | consolidation | of a stock epoch | held |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for row in rows[1:]:
            ratios = []
            for column in COLUMNS:
                low, high = row[f"{column}, quartiles"]
                ratios.append(f"{row[column]:.2f} ({low:.2f}-{high:.2f})")
            floor = " / ".join(f"{value:.2f}" for value in row["floor"]) if row["floor"] else ""
            target = f"{row['target']:.2f}" if row["target"] else ""
            passes = ["", ""]
            if row["consolidation"] is not None:
                passes = [f"{row['consolidation']:.2f}", f"{row['consolidation to stock epoch']:.2f}"]
            held = f"{row['held between steps']:.1f} ({row['held in a step']:.1f})"
            lines.append("| " + " | ".join([row["method"], *ratios, floor, target, *passes, held]) + " |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def breakdown_table(results: dict[str, Any]) -> str:
    """Where a step goes."""
    lines = ["| ms | forward | backward | optimizer | plugin | Avalanche |", "|---|---:|---:|---:|---:|---:|"]
    for key, rows in results["breakdown"].items():
        for row in rows:
            parts = [f"{row[part]:.2f}" for part in ("forward", "backward", "optimizer", "plugin", "Avalanche")]
            lines.append(f"| {key}: {row['method']} | " + " | ".join(parts) + " |")
    return "\n".join(lines)


def tasks_table(results: dict[str, Any]) -> str:
    """Growth with tasks."""
    lines = ["| MLP 256-256 | tasks | ms per step | to task 2 | held |", "|---|---:|---:|---:|---:|"]
    for row in results["tasks"]:
        low, high = row["quartiles"]
        lines.append(
            f"| {row['method']}, {row['heads']} | {row['tasks']} | {row['milliseconds per step']:.2f} | "
            f"{row['ratio to task 2']:.3f} ({low:.3f}-{high:.3f}) | {row['held']:.1f} |"
        )
    return "\n".join(lines)


def parameters_table(results: dict[str, Any]) -> str:
    """Growth with parameters."""
    lines = [
        "| | parameters | ms per step | to Naive | extra ms (quartiles) | extra ns per parameter | held |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in results["parameters"]:
        low, high = row["quartiles"]
        lines.append(
            f"| {row['method']} | {row['parameters']:,} | {row['milliseconds per step']:.2f} | {row['ratio']:.2f} | "
            f"{row['extra milliseconds']:.2f} ({low:.2f}-{high:.2f}) | {row['extra nanoseconds per parameter']:.2f} | "
            f"{row['held']:.1f} |"
        )
    return "\n".join(lines)


def runs_table(results: dict[str, Any]) -> str:
    """Whole runs, one table per run and length."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in results["runs"].values():
        groups.setdefault((row["run"], row["every"]), []).append(row)
    tables = []
    for (run, every), rows in sorted(groups.items(), key=lambda item: (list(TITLES).index(item[0][0]), item[0][1])):
        target = f"; target {TARGETS[run]}" if run in TARGETS else ""
        length = f", one image in {every}" if every > 1 else ""
        other = "the batch-1 loop" if run == "fisher" else "stock Avalanche"
        lines = [
            f"**{TITLES[run][0].upper()}{TITLES[run][1:]}**{length}{target}",
            "",
            f"| | by hand, s | avsi, s | avsi to by hand | {other}, s | to avsi |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for row in rows:
            seconds = row["seconds"]
            name = ", ".join(part for part in (row["method"], row["optimizer"]) if part)
            stock = (
                [f"{seconds['Avalanche']:.1f}", f"{row['stock to avsi']:.2f}"] if "stock to avsi" in row else ["", ""]
            )
            low, high = row["quartiles"]
            own = [f"{seconds['by hand']:.2f}", f"{seconds['avsi']:.2f}", f"{row['ratio']:.2f} ({low:.2f}-{high:.2f})"]
            lines.append("| " + " | ".join([name, *own, *stock]) + " |")
            if "to gradients of batches" in row:
                lines += ["", f"{row['to gradients of batches']:.2f} times as long as with gradients of batches."]
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def importance_table(results: dict[str, Any]) -> str:
    """Importances, one table per model."""
    tables = []
    for setting, rows in results["importance"].items():
        lines = [
            f"**{SETTINGS[setting].title}**, batch {BATCH}",
            "",
            "| | ms/batch | to forward + backward | difference | peak MiB |",
            "|---|---:|---:|---:|---:|",
        ]
        for row in rows:
            if "failed" in row:
                lines.append(f"| {row['method']} | cannot: {row['failed']} | | | |")
                continue
            apart = f"{row['difference']:.0e}" if row["difference"] else ""
            peak = f"{row['peak MiB']:.0f}" if row["peak MiB"] is not None else ""
            lines.append(
                f"| {row['method']} | {row['milliseconds per batch']:.1f} | {row['ratio']:.2f} | {apart} | {peak} |"
            )
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def memory_table(results: dict[str, Any]) -> str:
    """Peak memory."""
    lines = [
        "| | parameters, MiB | step, MiB | beyond Naive, in parameters | consolidation, MiB |",
        "|---|---:|---:|---:|---:|",
    ]
    for rows in results["memory"].values():
        naive = rows[0]
        for row in rows:
            beyond = (row["step"] - naive["step"]) / row["parameters"]
            consolidation = f"{row['consolidation']:.0f}" if "consolidation" in row else ""
            lines.append(
                f"| {row['setting']}: {row['method']} | {row['parameters']:.0f} | {row['step']:.0f} | {beyond:.1f} | "
                f"{consolidation} |"
            )
    return "\n".join(lines)


HEBBIAN = {
    "ms/step": ("milliseconds per step", ".2f"),
    "x Linear": ("ratio", ".2f"),
    "x loop": ("ratio to loop", ".2f"),
}
FEEDING = {
    "s/epoch": ("seconds per epoch", ".3f"),
    "us/batch": ("microseconds per batch", ".0f"),
    "ratio": ("ratio", ".2f"),
}
"""Column -> key and format."""


def settings_tables(results: dict[str, Any], *, name: str, columns: dict[str, tuple[str, str]]) -> str:
    """One table per setting, a row for each of what is called by a name."""
    tables = []
    for setting in dict.fromkeys(row["setting"] for row in results["rows"]):
        lines = [f"| {setting} | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
        for row in results["rows"]:
            if row["setting"] == setting:
                numbers = [f"{row[key]:{form}}" for key, form in columns.values()]
                lines.append(f"| {' | '.join([row[name], *numbers])} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def cluster_table(results: dict[str, Any]) -> str:
    """A sweep in local processes and on Ray."""
    parts = {"local": "two local processes", "cluster": "Ray, two nodes", "killed": "the same, a node lost"}
    lines = [f"| {results['trials']} trials | s | by round | weights equal |", "|---|---:|---|---|"]
    for row in results["rows"]:
        rounds = ", ".join(f"{seconds:.1f}" for seconds in row["seconds"])
        equal = "yes" if row["equal"] else "**no**"
        lines.append(f"| {parts[row['part']]} | {row['median']:.1f} | {rounds} | {equal} |")
    return "\n".join(lines)


def machine_line(results: dict[str, Any]) -> str:
    """What the numbers were measured on."""
    m = results["machine"]
    clock = "CPU seconds of the process" if m["clock"] == "process_time" else "wall time"
    return f"torch {m['torch']}, {m['threads']} thread of {m['cores']} cores ({m['cpu']}), {clock}."


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "machine": ("cpu", machine_line),
    "steps": ("cpu", steps_table),
    "breakdown": ("cpu", breakdown_table),
    "tasks": ("cpu", tasks_table),
    "parameters": ("cpu", parameters_table),
    "runs": ("whole_runs", runs_table),
    "runs machine": ("whole_runs", machine_line),
    "importance": ("importance", importance_table),
    "importance machine": ("importance", machine_line),
    "memory": ("memory", memory_table),
    "dhp": ("dhp", partial(settings_tables, name="head", columns=HEBBIAN)),
    "dhp machine": ("dhp", machine_line),
    "data": ("data", partial(settings_tables, name="method", columns=FEEDING)),
    "data machine": ("data", machine_line),
    "cluster": ("cluster", cluster_table),
    "cluster machine": ("cluster", machine_line),
}
"""By mark in README.md: the file of ``results`` and what makes a table of it."""


def fill(text: str, folder: Path) -> str:
    """Put tables between their marks, ``<!-- name -->`` and ``<!-- end -->``."""
    for name, (file, table) in TABLES.items():
        start, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, _, after = text.partition(start)
        _, _, rest = after.partition(end)
        results = json.loads((folder / f"{file}.json").read_text())
        text = f"{before}{start}\n{table(results)}\n\n{end}{rest}"
    return text


if __name__ == "__main__":
    readme = HERE / "README.md"
    readme.write_text(fill(readme.read_text(), HERE / "results"))

"""Writes the tables of README.md anew from the published numbers: ``python -m perf.readme``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


def trial_table(results: dict[str, Any]) -> str:
    """End to end."""
    row = results["trial"]
    lines = ["| seconds | building | training | evaluation | in all | accuracy |", "|---|---:|---:|---:|---:|---:|"]
    for name in row["seconds"]:
        parts = [f"{row[part][name]:.1f}" for part in ("building", "training", "evaluation", "seconds")]
        lines.append(f"| {name} | " + " | ".join(parts) + f" | {row['accuracy'][name]:.3f} |")
    low, high = row["ratio by task, range"]
    lines += ["", f"avsi is {row['ratio']:.2f} times as fast (by task between {low:.1f} and {high:.1f})."]
    return "\n".join(lines)


def machine_line(results: dict[str, Any]) -> str:
    """What the numbers were measured on."""
    m = results["machine"]
    clock = "CPU seconds of the process" if m["clock"] == "process_time" else "wall time"
    return f"torch {m['torch']}, {m['threads']} thread of {m['cores']} cores ({m['cpu']}), {clock}."


TABLES = {
    "machine": machine_line,
    "steps": steps_table,
    "breakdown": breakdown_table,
    "tasks": tasks_table,
    "parameters": parameters_table,
    "trial": trial_table,
}


def fill(text: str, results: dict[str, Any]) -> str:
    """Put tables between their marks, ``<!-- name -->`` and ``<!-- end -->``."""
    for name, table in TABLES.items():
        start, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, _, after = text.partition(start)
        _, _, rest = after.partition(end)
        text = f"{before}{start}\n{table(results)}\n\n{end}{rest}"
    return text


if __name__ == "__main__":
    readme = HERE / "README.md"
    readme.write_text(fill(readme.read_text(), json.loads((HERE / "results" / "cpu.json").read_text())))

"""The page on speed says what the committed measurements say."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guides" / "speed_and_memory.md").read_text()
RESULTS = ROOT / "perf" / "results"
MEASURED = json.loads((RESULTS / "cpu.json").read_text())
WHOLE_RUNS = json.loads((RESULTS / "whole_runs.json").read_text())["runs"]
ROWS = {"mlp256": "MLP 256-256, batch 64", "mlp2000": "MLP 2000-2000", "cnn": "CNN for CIFAR", "resnet18": "ResNet-18"}


def test_ratios_of_later_steps():
    for size, start in ROWS.items():
        line = next(line for line in PAGE.splitlines() if line.startswith(f"| {start}"))
        shown = [cell.strip() for cell in line.strip("|").split("|")[1:]]
        assert shown == [f"{row['later tasks']:.2f}" for row in MEASURED["steps"][size][1:]]


def test_seconds_of_a_whole_trial():
    run = WHOLE_RUNS["permuted, SI, SGD, 1/1"]
    ours, stock = run["seconds"]["avsi"], run["seconds"]["Avalanche"]
    ratio = run["stock to avsi"]
    assert f"{ours:.1f} s here and {stock:.1f} s with stock Avalanche, {ratio:.2f} times as long" in PAGE


def test_seconds_of_a_sweep_on_a_cluster():
    measured = json.loads((RESULTS / "cluster.json").read_text())
    rows = {row["part"]: row for row in measured["rows"]}
    assert all(row["equal"] and len(row["seconds"]) == 3 for row in rows.values())
    page = (ROOT / "docs" / "guides" / "clusters.md").read_text()
    assert (
        f"runs {measured['trials']} short trials on a cluster of two nodes of one machine and kills one in the middle: "
        f"{rows['cluster']['median']:.1f} s, with the loss of a node {rows['killed']['median']:.1f} s, in two local "
        f"processes {rows['local']['median']:.1f} s"
    ) in page

"""The page on speed says what the committed measurements say."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guides" / "speed_and_memory.md").read_text()
MEASURED = json.loads((ROOT / "perf" / "results" / "cpu.json").read_text())
ROWS = {"mlp256": "MLP 256-256, batch 64", "mlp2000": "MLP 2000-2000", "cnn": "CNN for CIFAR", "resnet18": "ResNet-18"}


def test_ratios_of_later_steps():
    for size, start in ROWS.items():
        line = next(line for line in PAGE.splitlines() if line.startswith(f"| {start}"))
        shown = [cell.strip() for cell in line.strip("|").split("|")[1:]]
        assert shown == [f"{row['later tasks']:.2f}" for row in MEASURED["steps"][size][1:]]


def test_seconds_of_a_whole_trial():
    seconds = MEASURED["trial"]["seconds"]
    assert f"{seconds['avsi']:.1f} s here and {seconds['Avalanche']:.1f} s with stock Avalanche" in PAGE

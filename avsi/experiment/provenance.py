"""What a result says of where it comes from: data, software and hardware."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import avsi.scenarios
import avsi.strategies
from avsi.data import DATASETS, published_size

PACKAGES = ("avsi", "avalanche-lib", "torch", "torchvision", "numpy", "scikit-learn")


def describe_data(benchmark: Any) -> list[dict[str, Any]]:
    """Describe the image sets that a benchmark knows of, and whether they are all that was published of its classes."""
    rows = []
    for image_set in getattr(benchmark, "image_sets", ()):
        classes = benchmark.classes[image_set.name]
        used = int(torch.isin(image_set.labels, torch.tensor(list(classes))).sum())
        known = image_set.name in DATASETS
        published = published_size(image_set.name, image_set.split, classes) if known else used
        rows.append(
            {
                "name": image_set.name,
                "split": image_set.split,
                "fingerprint": image_set.fingerprint(),
                "images": used,
                "published": published,
                "complete": used == published,
                "source": image_set.metadata.get("source", ""),
            }
        )
    return rows


def describe_environment(device: str) -> dict[str, Any]:
    """Describe software and hardware: versions, platform, the CPU's vector instructions, device and threads."""
    accelerator = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": f"{device} {accelerator}".strip(),
        "threads": torch.get_num_threads(),
    }


@cache
def code_fingerprint() -> str:
    """Compute ten digits of the SHA-256 of the package's sources: results with the same are from the same code."""
    found = hashlib.sha256()
    for package in (avsi, avsi.scenarios, avsi.strategies):  # the last two may lie elsewhere
        folder = Path(package.__path__[0])
        for file in sorted(folder.rglob("*.py")):
            found.update(f"{package.__name__}/{file.relative_to(folder).as_posix()}\n".encode())
            found.update(file.read_bytes())
    return found.hexdigest()[:10]

"""What a result says of where it comes from: data, software and hardware."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from avsi.data import DATASETS, published_size

PACKAGES = ("avsi", "avalanche-lib", "torch", "torchvision", "numpy", "scikit-learn")


def describe_data(benchmark: Any) -> list[dict[str, Any]]:
    """Describe the images a benchmark uses, and whether they are all that was published of those classes.

    Args:
        benchmark: The benchmark. One that does not know its image sets is not described.

    Returns:
        For each image set: name, split, SHA-256 fingerprint, images used, images published of those classes (those
        used, where nobody published it), whether that is all of them, and where the file came from.
    """
    rows = []
    for image_set in getattr(benchmark, "image_sets", ()):
        classes = benchmark.classes[image_set.name]
        counts = torch.bincount(image_set.labels, minlength=max(classes) + 1)
        used = int(sum(counts[c] for c in classes))
        known = image_set.name in DATASETS
        expected = published_size(image_set.name, image_set.split, classes) if known else used
        rows.append(
            {
                "name": image_set.name,
                "split": image_set.split,
                "fingerprint": image_set.fingerprint(),
                "images": used,
                "published": expected,
                "complete": used == expected,
                "source": image_set.metadata.get("source", ""),
            }
        )
    return rows


def describe_environment(device: str) -> dict[str, Any]:
    """Describe software and hardware.

    Args:
        device: The torch device in use.

    Returns:
        Versions, platform, the CPU's vector instructions that torch uses, device and threads.
    """
    accelerator = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    return {
        "python": platform.python_version(),
        **{name: package_version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": f"{device} {accelerator}".strip(),
        "threads": torch.get_num_threads(),
    }


def package_version(name: str) -> str:
    """Look up an installed package's version.

    Returns:
        The version, or "not installed".
    """
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


@cache
def code_fingerprint() -> str:
    """Compute a fingerprint of the package's sources: results with the same one come from the same code.

    Returns:
        Ten hexadecimal digits of a SHA-256.
    """
    import avsi.scenarios
    import avsi.strategies

    found = hashlib.sha256()
    for package in (avsi, avsi.scenarios, avsi.strategies):  # the last two may lie elsewhere
        folder = Path(package.__path__[0])
        for file in sorted(folder.rglob("*.py")):
            found.update(f"{package.__name__}/{file.relative_to(folder).as_posix()}\n".encode())
            found.update(file.read_bytes())
    return found.hexdigest()[:10]

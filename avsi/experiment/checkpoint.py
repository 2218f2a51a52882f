"""Checkpoints of trials: a trial that was cut goes on after its last finished experience."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from avsi.experiment.results import write_bytes
from avsi.experiment.spec import ExperimentError
from avsi.experiment.strategy_state import fingerprint

FORMAT = 1
START_OVER = "delete the file to start the trial over"


def checkpoint_path(result: Path) -> Path:
    """Name the checkpoint that belongs to a result file.

    Args:
        result: The result's path, ``<folder>/seed-NNN.json``.

    Returns:
        ``<folder>/seed-NNN.checkpoint``.
    """
    return result.with_suffix(".checkpoint")


def discard_checkpoint(path: Path) -> None:
    """Delete a trial's checkpoint, if there is one.

    To be called after the trial's result is on disk, never before. A cut in between leaves a checkpoint that nobody
    reads, since a trial that has a result is not run; where one is to be run again, this is to be called first.

    Args:
        path: The checkpoint's path.
    """
    path.unlink(missing_ok=True)


@dataclass
class Checkpoint:
    """A trial's checkpoint, and the time that the trial has taken with all its interruptions.

    Attributes:
        path: The file; None: nothing is kept.
        trial: What the trial is and where it runs, as JSON data. Only a checkpoint of the same is gone on from: with
            other data or other software a resumed trial would not end as an uncut one.
        started: When the trial began, at first.
        clock: ``time.perf_counter()`` when this run of it began.
        earlier: Seconds of earlier runs, each up to its last checkpoint.
        resumed: How many times the trial has gone on from a checkpoint; runs that were cut before they wrote one are
            no part of it.
    """

    path: Path | None
    trial: Mapping[str, Any]
    started: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    clock: float = field(default_factory=time.perf_counter)
    earlier: float = 0.0
    resumed: int = 0

    @property
    def seconds(self) -> float:
        """How long the trial has run so far."""
        return self.earlier + time.perf_counter() - self.clock

    def write(self, state: Mapping[str, Any]) -> None:
        """Keep a state, in place of the last one; the file is written whole or not at all.

        Args:
            state: Plain data, as ``avsi.experiment.strategy_state.pack`` makes it.
        """
        if self.path is None:
            return
        content = {
            "format": FORMAT,
            "trial": self.trial,
            "started": self.started,
            "seconds": self.seconds,
            "resumed": self.resumed,
            "state": state,
        }
        buffer = io.BytesIO()
        torch.save(content | {"sha256": fingerprint(content)}, buffer)
        write_bytes(self.path, buffer.getvalue())

    def read(self) -> dict[str, Any] | None:
        """Read the state to go on from, and count on from its times.

        Returns:
            The state, or None if there is none.

        Raises:
            ExperimentError: If the file is damaged, or is not this trial's.
        """
        if self.path is None:
            return None
        try:
            content = torch.load(io.BytesIO(self.path.read_bytes()), map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except Exception as error:  # unpickling damaged bytes can raise anything
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ExperimentError(f"cannot read the checkpoint {self.path} ({reason}); {START_OVER}") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ExperimentError(f"{self.path} is not a checkpoint of format {FORMAT}; {START_OVER}")
        if content.pop("sha256", None) != fingerprint(content):
            raise ExperimentError(f"the checkpoint {self.path} is damaged; {START_OVER}")
        changes = "; ".join(differences(content["trial"], self.trial))
        if changes:
            cure = " (--threads sets the number of threads)" if "environment.threads" in changes else ""
            raise ExperimentError(
                f"the checkpoint {self.path} would not lead to the result of an uncut trial: {changes}; put that back "
                f"as it was{cure}, or {START_OVER}"
            )
        self.started, self.earlier, self.resumed = content["started"], content["seconds"], content["resumed"] + 1
        return content["state"]


def differences(then: Any, now: Any, name: str = "") -> Iterator[str]:
    """Find where two JSON data differ.

    Args:
        then: The old data.
        now: The new data.
        name: What they are.

    Yields:
        For each difference its place and both values.
    """
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in {**then, **now}:
            yield from differences(then.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for index, pair in enumerate(zip(then, now, strict=True)):
            yield from differences(*pair, f"{name}[{index}]")
    elif then != now:
        yield f"{name} was {then!r} and is {now!r}"

"""Checkpoints: a trial that was interrupted resumes after its last finished task."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from avsi.experiment.description import differences
from avsi.experiment.events import Said, Tell
from avsi.experiment.provenance import code_fingerprint
from avsi.experiment.spec import ExperimentError
from avsi.experiment.strategy_state import fingerprint
from avsi.files import write_bytes

if TYPE_CHECKING:
    from avsi.experiment.trial import Trial

FORMAT = 1
START_OVER = "delete the file to start the trial over"


@dataclass
class Checkpoint:
    """A trial's checkpoint, and the time that the trial has taken with all its interruptions."""

    path: Path | None  # None: nothing is kept
    trial: Mapping[str, Any] = field(default_factory=dict)  # what it is and where it runs, as JSON data
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    clock: float = field(default_factory=time.perf_counter)  # when this run of it began
    earlier: float = 0.0  # seconds of earlier runs, each up to its last checkpoint
    resumed: int = 0  # how many times it has gone on from a checkpoint

    @property
    def seconds(self) -> float:
        """How long the trial has run so far."""
        return self.earlier + time.perf_counter() - self.clock

    def take_threads(self, tell: Tell) -> None:
        """Compute with as many threads as the trial began with, and say so where others were asked for."""
        asked = torch.get_num_threads()
        began = self.found["trial"]["environment"]["threads"] if self.found else asked
        if began != asked:
            torch.set_num_threads(began)
            threads = f"{began} thread{'s' * (began != 1)}"
            tell(Said(f"goes on with {threads}, as it began, not {asked}, which would add in another order"))

    def identify(self, trial: Trial, data: list[dict[str, Any]], environment: Mapping[str, Any]) -> None:
        """Record what decides the trial's numbers: a checkpoint is refused where one of them differs."""
        kept = {key: value for key, value in environment.items() if key != "platform"}
        self.trial = {
            "seed": trial.seed,
            "description": trial.description,
            "code": code_fingerprint(),
            "data": [{key: value for key, value in row.items() if key != "source"} for row in data],
            "environment": kept | {"device": re.sub(r":\d+", "", environment["device"], count=1)},
        }

    def write(self, state: Mapping[str, Any]) -> None:
        """Keep a state, in place of the last one; the file is written whole or not at all."""
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
        """Read the state to go on from, if there is one, and count on from its times; another trial's is refused."""
        content = self.found
        if content is None:
            return None
        changes = "; ".join(differences(content["trial"], self.trial))
        if changes:
            raise ExperimentError(
                f"the checkpoint {self.path} would not lead to the result of an uninterrupted trial: {changes}; put "
                f"that back as it was, or {START_OVER}"
            )
        self.started, self.earlier, self.resumed = content["started"], content["seconds"], content["resumed"] + 1
        return content["state"]

    @cached_property
    def found(self) -> dict[str, Any] | None:
        """What an earlier run has left in the file, read and checked once; None: nothing."""
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
        return content

"""What a run leaves on disk as it goes: metrics, skipped batches, and the loss at both ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from sutura.core.errors import UserError
from sutura.core.log import MetricsLog, read_metrics, say
from sutura.train.checkpointing import Position, disk_errors

METRICS, BAD = "metrics.jsonl", "bad_batches.jsonl"


@dataclass(frozen=True)
class LossSummary:
    """Loss at both ends of a run; the end is smoothed, since one step's loss says little.

    Args:
        first: of the first step.
        final_mean: over the last `window` steps.
        final_sd: over the same steps; 0 when there is but one.
        window: steps averaged.
    """

    first: float
    final_mean: float
    final_sd: float
    window: int


class Record:
    """Losses in memory, metrics and skipped batches on disk.

    Args:
        directory: of the files; None keeps nothing.
        position: where the run goes on.
        limit: steps that may be skipped.
        resume: read what the files hold up to the position.
        writes: whether this process writes them.
    """

    def __init__(
        self, directory: Path | None, position: Position, limit: int, resume: bool, *, writes: bool = True
    ) -> None:
        self.limit = limit
        self.bad_batches = position.bad_batches
        self.losses: list[float] = []
        self.history = None if directory is None else directory / METRICS
        self.logs: dict[str, MetricsLog] = {}
        if directory is None:
            return
        at = position.step if resume else None
        if writes:
            with disk_errors(f"{METRICS} in {directory}", "Free some space and resume."):
                self.logs = {name: MetricsLog(directory / name, resume_at=at) for name in (METRICS, BAD)}
        if resume:
            rows = list(read_metrics(directory / METRICS)) if (directory / METRICS).is_file() else []
            rows = [row for row in rows if row["step"] <= position.step]
            if [row["step"] for row in rows] != list(range(1, position.step + 1)):
                raise UserError(
                    f"{directory / METRICS} does not hold the {position.step} steps of the checkpoint."
                )
            self.losses = [row["loss"] for row in rows if row["loss"] is not None]

    def step(self, done: int, row: dict[str, Any]) -> dict[str, Any]:
        """Write a step's values, those that are not finite as null; returns what was written."""
        row = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        if row["loss"] is not None:
            self.losses.append(row["loss"])
        self._write(METRICS, done, row)
        return row

    def bad(self, done: int, row: dict[str, Any], batches: Sequence[Any]) -> None:
        """Count a skipped step and note its batches. Raises UserError past the limit."""
        self.bad_batches += 1
        found = f"loss {row['loss']}, gradient norm {row['grad_norm']}"
        if BAD in self.logs:
            ids = [str(i) for batch in batches for i in _ids(batch)]
            self._write(BAD, done, {"found": found, "ids": ids})
        say(f"Step {done} skipped: {found} ({self.bad_batches} skipped so far, {self.limit} allowed).")
        if self.bad_batches > self.limit:
            raise UserError(
                f"{self.bad_batches} steps had a loss or gradient that is not finite ({self.limit} allowed), "
                f"the last at step {done}. Lower the learning rate, or look at the batches listed in {BAD}."
            )

    def _write(self, name: str, done: int, values: dict[str, Any]) -> None:
        if name in self.logs:
            with disk_errors(name, "Free some space and resume."):
                self.logs[name].write(done, values)

    def summary(self, window: int) -> LossSummary:
        """Loss of the first step and of the last `window`; NaN when no step had a finite one."""
        if not self.losses:
            return LossSummary(math.nan, math.nan, math.nan, 0)
        tail = self.losses[-window:]
        return LossSummary(self.losses[0], fmean(tail), stdev(tail) if len(tail) > 1 else 0.0, len(tail))


def _ids(batch: Any) -> Sequence[Any]:
    found = batch.get("ids", ()) if isinstance(batch, dict) else getattr(batch, "ids", ())
    return found if isinstance(found, Sequence) else ()

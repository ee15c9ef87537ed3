"""A learning curve while it is made: a few questions of the selection split, asked again and again in training."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sutura.compare.config import CompareConfig
from sutura.compare.load import at_most
from sutura.core.checkpoint import atomic_file
from sutura.core.errors import UserError
from sutura.core.log import read_metrics
from sutura.core.processes import here
from sutura.data.samples import SetAside, VqaData
from sutura.evals.config import EvaluateConfig
from sutura.evals.run import Asked, Patches, evaluate
from sutura.stitch.bundle import Stitch

#: A cell's learning curve, beside its ledger.
CURVE = "curve.jsonl"
#: What its rows are called where a benchmark's name would stand.
SELECTION = "selection"


def asked_on_the_way(config: CompareConfig, select: VqaData | None) -> VqaData | None:
    """The questions of a curve; None where none is measured."""
    if not config.curve.points or select is None:
        return None
    return at_most(select, config.curve.items)


def curve_identity(config: CompareConfig, select: VqaData | None) -> dict[str, Any] | None:
    """What the curve of a cell depends on."""
    asked = asked_on_the_way(config, select)
    return None if asked is None else {"points": config.curve.points, "questions": asked.fingerprint}


class CurveLog:
    """Asks the questions when told to, and keeps the curve's file.

    A point replaces what the file holds from its step on, so that a run that was resumed before a point it had
    measured already measures it once more and keeps it once. Nothing random is drawn.

    Args:
        path: of the file: one JSON object a point with `step`, `answers` (seen until then), `right` (a digit a
            question, 1 where the answer was exactly right) and `seconds`; the first one names the `items` and their
            `pictures`.
        stitch: that is trained.
        data: the questions.
        config: of decoding.
        patches: image ids → patches; None for a blind stitch.
        answers_after: of each step, answers seen when it is done.
        points: how many, evenly spaced.
    """

    def __init__(
        self,
        path: Path,
        stitch: Stitch,
        data: VqaData,
        config: EvaluateConfig,
        *,
        patches: Patches | None,
        answers_after: Sequence[int],
        points: int,
    ) -> None:
        self.path, self.stitch, self.data = path, stitch, data
        # likelihoods are no part of a curve
        self.config = config.model_copy(update={"likelihood": False})
        self.patches, self.answers_after = patches, answers_after
        self.every = -(-len(answers_after) // points)

    def begin(self, *, resumed: bool) -> None:
        """Measure the stitch before its first step; a resumed run has done so."""
        if not (resumed and here().from_first(lambda: bool(read_points(self.path)))):
            self(None, 0)

    def __call__(self, _: Any, done: int) -> dict[str, float]:
        """Measure now and write it down; the share of right answers by name, for the run's metrics."""
        began = time.perf_counter()
        asked = Asked("", "", 0, "picture", SELECTION)
        rows = evaluate(
            self.stitch, self.data, asked, self.config, patches=self.patches, set_aside=SetAside()
        )
        if not rows:
            raise UserError(
                "No question of the selection split fits prompt.max_tokens, so there is no learning curve; raise it, "
                "or set curve.points=0."
            )
        rows.sort(key=lambda row: row["item_id"])
        point: dict[str, Any] = {
            "step": done,
            "answers": self.answers_after[done - 1] if done else 0,
            "right": "".join(str(int(row["exact"])) for row in rows),
            "seconds": round(time.perf_counter() - began, 4),
        }
        if done == 0:
            point |= {
                "items": [row["item_id"] for row in rows],
                "pictures": [row["image_id"] for row in rows],
            }
        here().from_first(lambda: self._keep(point))
        return {SELECTION: sum(row["exact"] for row in rows) / len(rows)}

    def _keep(self, point: Mapping[str, Any]) -> None:
        kept = [row for row in read_points(self.path) if row["step"] < point["step"]]
        with atomic_file(self.path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in (*kept, point)))

    def seconds(self) -> float:
        """What the points after the first step took; that one is measured before training begins."""
        return sum(row["seconds"] for row in read_points(self.path) if row["step"])


def read_points(path: Path) -> list[dict[str, Any]]:
    """The points of a curve's file, in order; none where there is no file."""
    return list(read_metrics(path)) if path.is_file() else []

"""What probes leave behind: scores of every picture, and tables that are computed from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from sutura.core.checkpoint import atomic_file, read_json, write_json
from sutura.core.doctor import versions
from sutura.core.errors import UserError
from sutura.data.labelled import LabelledParts
from sutura.evals.probe_config import ProbeConfig
from sutura.evals.probe_features import left_out
from sutura.evals.probe_scores import Score, scored

#: One row is what one probe says of one test picture, fitted on one draw.
SCHEMA: dict[str, Any] = {
    "encoder": pl.String,
    "probe": pl.String,
    "draw": pl.Int64,
    "image_id": pl.String,
    "labels": pl.List(pl.Int64),
    "scores": pl.List(pl.Float32),
}
COLUMNS = ("encoder", "probe", "score % [95 %]", "floor %", "n", "fitted on", "chosen")


@dataclass(frozen=True)
class Probed:
    """One probe of one encoder: scores of the test pictures, and how they came about."""

    encoder: str
    probe: str
    scores: Float[np.ndarray, "draws pictures classes"]
    chosen: dict[str, Any]
    fitted: int
    seconds: float


@dataclass(frozen=True)
class ProbeResult:
    """Scores of probes, with every picture's scores behind them.

    Args:
        about: data, classes, overlap, config, versions; JSON-able.
        rows: a dictionary for every encoder and probe: `encoder`, `probe`, the fields of `Score`, `fitted`,
            `chosen`, `seconds`.
        ledger: as SCHEMA; the figures in `rows` follow from it.
    """

    about: dict[str, Any]
    rows: list[dict[str, Any]]
    ledger: pl.DataFrame

    @classmethod
    def of(
        cls, config: ProbeConfig, parts: LabelledParts, probed: Sequence[Probed], overlap: str
    ) -> ProbeResult:
        """Judge the scores of the test pictures."""
        both = parts.fit.counts() + parts.select.counts()
        about = {
            "data": parts.fit.name,
            "several_labels": parts.fit.several,
            "classes": list(parts.fit.classes),
            "majority": int(both.argmax()),
            "parts": {p.part: p.facts() for p in (parts.fit, parts.select, parts.test)},
            "notes": [*parts.notes, overlap],
            "set_aside": left_out(parts).counts,
            "config": config.resolved(),
            "versions": versions(),
        }
        ledger = pl.concat([_frame(one, parts) for one in probed])
        scores = judge(ledger, about)
        rows = [
            {
                "encoder": one.encoder,
                "probe": one.probe,
                **scores[one.encoder, one.probe].facts(),
                "fitted": one.fitted,
                "chosen": one.chosen,
                "seconds": round(one.seconds, 2),
            }
            for one in probed
        ]
        return cls(about, rows, ledger)

    def table(self) -> list[dict[str, str]]:
        """Rows as text, for a table."""
        return [dict(zip(COLUMNS, _cells(row), strict=True)) for row in self.rows]

    def markdown(self) -> str:
        """A pipe table, with what its figures are below it."""
        lines = ["| " + " | ".join(COLUMNS) + " |", "| :-- | :-- |" + " --: |" * 4 + " :-- |"]
        lines += ["| " + " | ".join(row.values()) + " |" for row in self.table()]
        first = self.rows[0]
        kinds = sorted({f"{row['interval']} ({row['probe']})" for row in self.rows})
        lines += [
            "",
            f"{self.about['data']}: {first['metric']} on {first['n']:,} test pictures, {first['classes']} classes. "
            f"The floor is {first['base_of']}. Intervals: {', '.join(kinds)}; one encoder, one set of weights.",
            *self.about["notes"],
        ]
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Write the figures as JSON, and beside it every picture's scores as Parquet."""
        with atomic_file(path.with_suffix(".parquet")) as temporary:
            self.ledger.write_parquet(temporary)
        write_json(path, {"about": self.about, "rows": self.rows})


def judge(ledger: pl.DataFrame, about: dict[str, Any]) -> dict[tuple[str, str], Score]:
    """Score every encoder and probe of a ledger."""
    config, classes = about["config"], tuple(about["classes"])
    found = {}
    for (encoder, probe), frame in ledger.group_by(["encoder", "probe"], maintain_order=True):
        draws = frame.partition_by("draw", maintain_order=True)
        scores = np.stack([_matrix(one["scores"], len(classes)) for one in draws])
        listed = draws[0]["labels"].to_list()
        if about["several_labels"]:
            labels = np.zeros(scores.shape[1:], np.float32)
            for row, shown in zip(labels, listed, strict=True):
                row[shown] = 1.0
        else:
            labels = np.array([shown[0] for shown in listed], np.int64)
        found[str(encoder), str(probe)] = scored(
            scores,
            labels,
            majority=about["majority"],
            classes=classes,
            resamples=config["resamples"],
            seed=config["seed"],
        )
    return found


def reread(path: Path) -> dict[tuple[str, str], Score]:
    """The figures of a saved result, computed again from the pictures' scores beside it.

    Raises:
        UserError: one of the two files is missing or damaged.
    """
    beside = path.with_suffix(".parquet")
    if not beside.is_file():
        raise UserError(f"{beside} is missing; the figures in {path.name} cannot be computed again.")
    return judge(pl.read_parquet(beside), read_json(path)["about"])


def _frame(one: Probed, parts: LabelledParts) -> pl.DataFrame:
    test = parts.test
    draws, n, classes = one.scores.shape
    shown = [np.flatnonzero(row).tolist() if test.several else [int(row)] for row in test.labels]
    return pl.DataFrame(
        {
            "encoder": [one.encoder] * (draws * n),
            "probe": [one.probe] * (draws * n),
            "draw": np.repeat(np.arange(draws), n),
            "image_id": [turns.image_id for turns in test.pictures] * draws,
            "labels": shown * draws,
            "scores": one.scores.reshape(-1, classes).astype(np.float32).tolist(),
        },
        schema=SCHEMA,
    )


def _matrix(column: pl.Series, classes: int) -> Float[np.ndarray, "pictures classes"]:
    return column.explode().to_numpy().reshape(-1, classes)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    shown = ("penalty", "k", "lr", "weight_decay", "note", "short of the optimum")
    told = {key: value for key, value in row["chosen"].items() if key in shown}
    if "templates" in row["chosen"]:
        told["templates"] = len(row["chosen"]["templates"])
    if row["draws"] > 1:
        told["draws"] = row["draws"]
    return (
        row["encoder"],
        row["probe"],
        f"{100 * row['score']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]",
        f"{100 * row['base']:.1f}",
        f"{row['n']:,}",
        f"{row['fitted']:,}",
        ", ".join(
            f"{key} {json.dumps(value) if not isinstance(value, str) else value}"
            for key, value in told.items()
        ),
    )

"""The cells of a comparison: what is to be trained and evaluated, each named by the hash of all it depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sutura.compare.config import CompareConfig
from sutura.core.checkpoint import read_json
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.encoders.config import EncoderConfig

PROTOCOL = "1"
"""Raised whenever a change makes old cells wrong to compare with new ones; it is part of every cell's name."""

LEDGER, CELL, STITCH_FOLDER = "ledger.parquet", "cell.json", "stitch"


@dataclass(frozen=True)
class Cell:
    """One stitch to train and evaluate, or one reading of the text ceiling.

    Args:
        condition: "picture", "blind" or "text-ceiling".
        encoder: config of the encoder; None without pictures.
        facts: what the loaded encoder says of itself.
        seed: of adapter, projector, order and dropout; 0 for the ceiling.
        lr: peak learning rate where it was chosen for this encoder; None takes the comparison's.
        identity: all that the result depends on, JSON-able.
    """

    condition: str
    encoder: EncoderConfig | None
    facts: Mapping[str, Any] | None
    seed: int
    identity: Mapping[str, Any] = field(repr=False)
    lr: float | None = None

    @property
    def hash(self) -> str:
        """The cell's name."""
        return fingerprint(dict(self.identity))

    @property
    def label(self) -> str:
        """For people."""
        who = self.facts["name"] if self.facts is not None else self.condition
        return f"{who} · seed {self.seed}" if self.condition != "text-ceiling" else who


def plan_cells(
    config: CompareConfig,
    facts: Sequence[Mapping[str, Any]],
    *,
    llm_fingerprint: str,
    train_fingerprint: str,
    test_fingerprints: Mapping[str, str],
    rates: Mapping[str, float] | None = None,
    curve: Mapping[str, Any] | None = None,
) -> list[Cell]:
    """All cells: the ceiling, then seed by seed the blind run and every encoder.

    Args:
        config: the comparison.
        facts: of every encoder row, in the order of `config.encoder_rows()`.
        llm_fingerprint: of the language model's weights.
        train_fingerprint: of the training data.
        test_fingerprints: benchmark → fingerprint of its data.
        rates: encoder's name, or "none" for the blind run → its own learning rate.
        curve: what a learning curve depends on, where one is measured; not named otherwise, so that a comparison
            without curves has the cells it always had.
    """
    rates = rates or {}

    def optim(name: str) -> dict[str, Any]:
        """A chosen rate makes the cell that a comparison with this fixed rate has."""
        chosen = {"lr": rates[name]} if name in rates else {}
        return config.optim.model_copy(update={**chosen, "lr_sweep": ()}).resolved()

    shared = {
        "protocol": PROTOCOL,
        "llm": {**config.llm.resolved(), "fingerprint": llm_fingerprint},
        "prompt": config.prompt.resolved(),
        "test": dict(test_fingerprints),
        "evaluate": {**config.evaluate.resolved(), "headline": None},  # a ledger holds every score
    }
    trained = {
        **shared,
        "projector": config.projector.resolved(),
        "encoder_train": [config.encoder.train, config.encoder.last_k],
        "train": train_fingerprint,
        "feed": config.feed.resolved(),
        "features": config.features.dtype if config.features.cache else "live",
        "wrong_picture": config.controls.wrong_picture,
        **({"curve": dict(curve)} if curve else {}),
    }
    cells = []
    if config.controls.text_ceiling:
        cells.append(
            Cell(
                "text-ceiling",
                None,
                None,
                0,
                {**shared, "train": train_fingerprint, "condition": "text-ceiling"},
            )
        )
    for seed in config.seeds:
        if config.controls.blind:
            identity = {**trained, "optim": optim("none"), "condition": "blind", "seed": seed}
            cells.append(Cell("blind", None, None, seed, identity, rates.get("none")))
        for encoder, fact in zip(config.encoder_rows(), facts, strict=True):
            identity = {
                **trained,
                "optim": optim(fact["name"]),
                "condition": "picture",
                "seed": seed,
                "encoder": {"name": fact["name"], "fingerprint": fact["fingerprint"]},
            }
            cells.append(Cell("picture", encoder, fact, seed, identity, rates.get(fact["name"])))
    return cells


def cell_directory(runs: Path, cell: Cell) -> Path:
    """Where a finished cell lies; it is there whole or not at all."""
    return runs / "cells" / cell.hash


def is_finished(runs: Path, cell: Cell) -> bool:
    """Whether the cell needs no more work.

    Raises:
        UserError: what lies there says that it is another cell.
    """
    path = cell_directory(runs, cell) / CELL
    if not path.is_file():
        return False
    said = read_json(path)
    mine = {"condition": cell.condition, "seed": cell.seed, "encoder": (cell.facts or {}).get("name", "none")}
    for name, value in mine.items():
        if said.get(name, value) != value:
            raise UserError(
                f"{path} says {name}={said[name]!r}, and this cell has {value!r}. It was put there by another hand; "
                "remove the folder."
            )
    return True

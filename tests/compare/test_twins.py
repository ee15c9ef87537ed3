"""Real same against same at toy size: one encoder entered twice under two names."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from compare.test_run import parts, settings  # noqa: F401 - parts is a fixture
from sutura.compare import compare
from sutura.compare.config import CompareConfig
from sutura.compare.grid import LEDGER
from sutura.compare.publish import read_comparison
from sutura.compare.scores import Arm, Scores
from sutura.compare.statistics import paired
from sutura.core.config import load_config
from sutura.evals.ledger import read_ledgers


def test_an_encoder_under_two_names_answers_alike_and_is_not_called_different(
    parts: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Cells are trained apart; nothing may depend on a name, on the order, or on another cell."""
    rows = [{"id": str(parts / "one"), "name": name} for name in ("one", "one again")]
    controls = {"blind": False, "untrained": None, "wrong_picture": False}
    compare(settings(parts, tmp_path, encoders=rows, controls=controls, seeds=[0, 1]))
    assert len(list(tmp_path.glob(f"cells/*/{LEDGER}"))) == 4
    frame = read_ledgers(read_comparison(tmp_path / "toy").ledgers)
    same = [
        frame.filter(pl.col("encoder") == name).sort("seed", "item_id").drop("run", "encoder")
        for name in ("one", "one again")
    ]
    assert same[0].height > 0
    assert same[0].equals(same[1])
    gap = paired(Scores.of(frame), Arm("one"), Arm("one again"))
    assert (gap.difference, gap.p, gap.shown) == (0.0, 1.0, False)
    text = (tmp_path / "toy" / "report.md").read_text()
    assert "No difference shown on world/test between one and one again" in text
    assert "| one | 1 (to 2) | a |" in text


def test_the_preset_is_one_encoder_twice() -> None:
    config = load_config(CompareConfig, "twins")
    first, second = config.encoder_rows()
    assert first.model_copy(update={"name": None}) == second.model_copy(update={"name": None})
    assert first.display_name() != second.display_name()
    assert len(config.seeds) >= 5

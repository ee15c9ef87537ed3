"""Scores with and without items whose pictures were trained on, from files alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from compare.pictures import gathered, one, spots
from sutura.compare.leaks import OVERLAP, affected_items, by_features, keep_alike, keep_overlaps, sheets
from sutura.compare.report import write_report
from sutura.compare.scores import Arm
from sutura.compare.standing import stand
from sutura.compare.statistics import accuracy
from sutura.compare.without import stand_without, without_items, without_lines, without_table
from sutura.core.errors import UserError
from sutura.evals.contamination import overlap
from sutura.evals.ledger import write_ledger

Synthetic = Callable[..., pl.DataFrame]
Cell = Callable[..., dict[str, Any]]
SKILLS = {Arm("clip"): 0.35, Arm("vit"): 0.6, Arm("none", "blind"): 0.3}
NAME = "world/test"


@pytest.fixture
def frame(synthetic: Synthetic) -> pl.DataFrame:
    """clip answers every item about the first 40 pictures right: it remembers them."""
    leaked = (pl.col("encoder") == "clip") & pl.col("image_id").is_in([f"p{n}" for n in range(40)])
    return synthetic(SKILLS).with_columns(pl.when(leaked).then(1.0).otherwise(pl.col("exact")).alias("exact"))


@pytest.fixture
def leaked(frame: pl.DataFrame) -> list[str]:
    rows = frame.filter(pl.col("image_id").is_in([f"p{n}" for n in range(40)]))
    return sorted(rows["item_id"].unique().to_list())


def test_a_score_that_was_remembered_falls_without_the_leaked_items(
    frame: pl.DataFrame, leaked: list[str]
) -> None:
    standing = stand(frame, {}, NAME)
    assert standing.encoders[0] == Arm("clip")
    pair = stand_without(frame, [standing], {}, {NAME: leaked})[0]
    assert pair.removed == len(leaked) == 200
    assert pair.after is not None
    assert pair.after.encoders[0] == Arm("vit")
    by_hand = frame.filter(~pl.col("item_id").is_in(leaked) & (pl.col("encoder") == "clip"))["exact"].mean()
    assert accuracy(pair.after.scores, Arm("clip")).mean == pytest.approx(by_hand)
    text = "\n".join(without_lines([pair]))
    assert "The lead changes: with all items clip" in text
    row = next(row for row in without_table(pair).rows if row[0] == "clip")
    change = 100 * (pair.after.estimates[Arm("clip")].mean - standing.estimates[Arm("clip")].mean)
    assert row[3] == f"{change:+.1f}"
    assert change < -10


def test_items_of_one_benchmark_stay_in_another(synthetic: Synthetic) -> None:
    both = pl.concat([synthetic(SKILLS), synthetic(SKILLS, benchmark="other", draw=1)])
    left = without_items(both, {NAME: ["p0/q0", "never heard of"]})
    gone = both.filter((pl.col("benchmark") == NAME) & (pl.col("item_id") == "p0/q0"))
    assert left.height == both.height - gone.height
    assert left.filter(pl.col("benchmark") == "other").height == both.height // 2
    assert without_items(both, {}).equals(both)


def test_nothing_affected_is_nothing_said(frame: pl.DataFrame) -> None:
    standing = stand(frame, {}, NAME)
    assert stand_without(frame, [standing], {}, {}) == []
    assert stand_without(frame, [standing], {}, {NAME: ["not there"]}) == []


def test_when_everything_leaked_it_is_said_that_nothing_is_left(frame: pl.DataFrame) -> None:
    every = frame["item_id"].unique().to_list()
    pair = stand_without(frame, [stand(frame, {}, NAME)], {}, {NAME: every})[0]
    assert pair.after is None
    assert "Fewer than 2 pictures are left" in "\n".join(without_lines([pair]))


def test_the_report_shows_both(frame: pl.DataFrame, leaked: list[str], cell: Cell, tmp_path: Path) -> None:
    write_ledger(tmp_path / "l.parquet", frame, {"protocol": "1"})
    cells = [cell(name, seed) for name in ("clip", "vit") for seed in range(3)]
    notes = {"affected": {NAME: leaked}, "sheets": {NAME: "overlap-0.png"}}
    text = write_report(tmp_path / "r", [tmp_path / "l.parquet"], cells, {}, notes).read_text()
    assert f"{NAME} without the 200 of 300 items whose pictures were trained on" in text
    assert "[overlap-0.png](overlap-0.png)" in text
    plain = write_report(tmp_path / "q", [tmp_path / "l.parquet"], cells, {}, {}).read_text()
    assert "were trained on" not in plain


def test_what_is_kept_is_enough_to_leave_items_out(tmp_path: Path) -> None:
    images = spots(8)
    train = gathered("train", [one(f"t{n}", image) for n, image in enumerate(images)])
    test = gathered("test", [one("copy", images[3]), one("own", spots(9)[8])])
    keep_overlaps(tmp_path, {"b": overlap(train, test)}, {"b": test}, train)
    assert affected_items(tmp_path) == {"b": ["copy/0"]}
    assert sheets(tmp_path) == {"b": "overlap-0.png"}
    assert Image.open(tmp_path / "overlap-0.png").width > 200
    keep_overlaps(tmp_path, {}, {}, train)
    assert (affected_items(tmp_path), sheets(tmp_path)) == ({}, {})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / OVERLAP).write_text('{"b": {}}')
    with pytest.raises(UserError, match=r"overlap\.json is damaged"):
        affected_items(tmp_path)


def test_candidates_by_features_stand_beside_and_count_for_nothing(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Kept:
        """Features in memory, as a store gives them."""

        num_tokens, width, dtype = 1, 16, "float32"

        def __init__(self, ids: list[str], values: Any) -> None:
            self.image_ids, self._values = tuple(ids), dict(zip(ids, values, strict=True))

        def __len__(self) -> int:
            return len(self.image_ids)

        def rows(self, names: Any) -> Any:
            return torch.stack([self._values[name] for name in names])[:, None]

    draw = torch.Generator().manual_seed(0)
    features = torch.randn(30, 16, generator=draw) + 5
    images = spots(32)
    train = gathered("train", [one(f"t{n}", image) for n, image in enumerate(images[:30])])
    test = gathered("test", [one("same", images[0]), one("close", images[30]), one("far", images[31])])
    near = features[7] + 0.05 * torch.randn(16, generator=draw)
    stores = (
        Kept([f"t{n}" for n in range(30)], features),
        Kept(["same", "close", "far"], [features[0], near, torch.randn(16, generator=draw) + 5]),
    )
    overlaps = {"b": overlap(train, test)}
    keep_overlaps(tmp_path, overlaps, {"b": test}, train)
    found = by_features("clip", stores, ["b"], overlaps)  # pyright: ignore[reportArgumentType]
    assert [pair[:2] for pair in found["b"].pairs] == [("close", "t7")], (
        "not the copy that is known, nor a stranger"
    )
    assert (found["b"].count, found["b"].test_pictures) == (1, 2)
    assert "candidates to look at, not counted as copies" in found["b"].summary()
    keep_alike(tmp_path, found, {"b": test}, train)
    assert affected_items(tmp_path) == {"b": ["same/0"]}
    assert (tmp_path / "overlap-0-features.png").is_file()

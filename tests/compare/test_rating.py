"""Sheet and page of a run, and the way back to a ledger, through the command line."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image
from typer.testing import CliRunner

from sutura.cli import app
from sutura.compare import rating
from sutura.compare.rating_page import rating_page
from sutura.core.errors import UserError
from sutura.evals.ledger import read_ledger, read_meta, write_ledger
from sutura.evals.rating_sheet import make_sheet


@pytest.fixture
def ledger(synthetic: Callable[..., pl.DataFrame], tmp_path: Path) -> Path:
    frame = synthetic({("clip", "picture"): 1.0, ("vit", "picture"): 0.0}, seeds=(0, 1), pictures=6)
    write_ledger(tmp_path / "ledger.parquet", frame, {"protocol": "1"})
    return tmp_path / "ledger.parquet"


def test_there_and_back(ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sutura rate sheet`, filled in, `sutura rate read`; the key alone knows whose answer was whose."""
    shown = {f"p{i}": Image.new("RGB", (900, 300), (10 * i, 0, 0)) for i in range(5)}
    monkeypatch.setattr(rating, "_pictures", lambda name, data, wanted: shown)
    out = tmp_path / "rating"
    done = CliRunner().invoke(app, ["rate", "sheet", str(ledger), "--out", str(out), "--items", "8"])
    assert done.exit_code == 0, done.output
    page = (out / "sheet.html").read_text()
    assert not re.search(r"clip|vit|https?://|src='(?!data:)", page)
    assert page.count("<article>") == 8
    with (out / "sheet.csv").open() as file:
        lines = list(csv.DictReader(file))
    for line in lines:  # rate what is right as right, without the key
        line.update(rating="5" if line["answer"] == "yes" else "1", rater="ann")
    with (tmp_path / "rated.csv").open("w") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    arguments = [
        str(tmp_path / "rated.csv"),
        "--key",
        str(out / "key.json"),
        "--out",
        str(tmp_path / "r.parquet"),
    ]
    done = CliRunner().invoke(app, ["rate", "read", *arguments])
    assert done.exit_code == 0, done.output
    assert "16 answers rated; 0 unrated" in done.output
    assert re.search(r"\| clip \| 100.0", done.output)
    assert re.search(r"\| vit \| 0.0", done.output)
    frame = read_ledger(tmp_path / "r.parquet")
    assert len(frame) == 16
    assert (frame["rating"] == frame["exact"]).all()
    assert read_meta(tmp_path / "r.parquet") == {"protocol": "1"}
    with pytest.raises(UserError, match="exists already"):
        rating.write_sheet(ledger, out)
    with pytest.raises(UserError, match="no file"):
        rating.read_rated([tmp_path / "gone.csv"], out / "key.json", None, tmp_path / "x.parquet")


def test_the_page_is_safe_from_what_answers_hold(synthetic: Callable[..., pl.DataFrame]) -> None:
    frame = synthetic({("a", "picture"): 1.0, ("b", "picture"): 0.0}, seeds=(0,), pictures=2, per_picture=1)
    bad = "</script><script>alert(1)</script>"
    sheet = make_sheet(frame.with_columns(pl.lit(bad).alias("prediction")), 2)
    page = rating_page(sheet, {})
    assert bad not in page
    assert page.count("<script") == 2
    assert page.count("the picture is not there") == 2
    rows = re.search(r"id='rows'>(.*?)</script>", page, re.DOTALL)
    assert rows is not None
    assert json.loads(rows[1])[0]["answer"] == bad


def test_pictures_of_the_world_are_found(tmp_path: Path) -> None:
    from sutura.data.vqa import load_vqa
    from sutura.evals.benchmarks import get_benchmark

    data = {"limit": 3}
    first = load_vqa(get_benchmark("world/test", data).data).pictures[0]
    found = rating._pictures("world/test", data, {first.image_id})
    assert list(found) == [first.image_id]
    assert found[first.image_id].size == (64, 64)


def test_extra_metrics_and_samples_from_the_command_line(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sutura.compare import extra_table

    def half(frame: pl.DataFrame, metric: str) -> pl.DataFrame:
        assert metric == "wups@0.5"
        return frame.with_columns((pl.col("exact") / 2).alias("exact"))

    monkeypatch.setattr(extra_table, "with_extra", half)
    done = CliRunner().invoke(app, ["extra", str(ledger), "--metric", "wups@0.5"])
    assert done.exit_code == 0, done.output
    assert re.search(r"\| clip \| 50.0", done.output)
    done: Any = CliRunner().invoke(app, ["export-samples", str(ledger), "--out", str(tmp_path / "samples")])
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "samples").rglob("*.jsonl"))) == 4
    with pytest.raises(UserError, match="neither a ledger"):
        extra_table.ledgers_at(tmp_path / "nothing")

"""`sutura data overlap`: any two sets, a sheet of the pairs, and what is concerned as JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path

import polars as pl
import pytest
from PIL import Image, ImageOps
from typer.testing import CliRunner

from compare.pictures import gathered, one, spots
from sutura.cli import app
from sutura.core.errors import UserError
from sutura.data.samples import VqaData
from sutura.evals.contact_sheet import draw, in_turns, write_sheet
from sutura.evals.contamination import Pair, overlap
from sutura.evals.named_pictures import named_pictures
from sutura.evals.overlap_of_sets import overlap_of_sets
from sutura.evals.training_record import RECORD, TrainingRecord, make_record, write_record


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Ten pictures as a folder, as lines with questions, as Parquet, as a memory of training; copies in a folder."""
    root, images = tmp_path_factory.mktemp("sets"), spots(12)
    for name in ("train", "test"):
        (root / name).mkdir()
    for n, image in enumerate(images[:10]):
        image.save(root / "train" / f"{n}.png")
    ImageOps.mirror(images[4]).save(root / "test" / "flipped.png")
    images[5].save(root / "test" / "again.jpg", quality=80)
    images[6].save(root / "test" / "same.bmp")
    images[11].save(root / "test" / "own.png")
    asked = [{"image": f"{n}.png", "question": "what?", "answer": "spots"} for n in range(10)]
    (root / "train" / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    cells = []
    for image in images[:10]:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    pl.DataFrame({"image": cells, "label": [0] * 10}).write_parquet(root / "plain.parquet")
    (root / "stitch").mkdir()
    record = make_record(gathered("seen", [one(f"s{n}", image) for n, image in enumerate(images[:10])]))
    write_record(root / "stitch" / RECORD, record)
    named = {name: str(root / name) for name in ("train", "test", "plain.parquet", "stitch")}
    return named | {"asked": str(root / "train" / "asked.jsonl")}


EXPECTED = {"flipped.png": "mirrored", "again.jpg": "re-encoded", "same.bmp": "same pixels"}


@pytest.mark.parametrize("train", ["train", "asked", "plain.parquet", "stitch"])
def test_a_set_of_any_kind_is_compared(places: dict[str, str], train: str) -> None:
    found = overlap_of_sets(places[train], places["test"])
    assert {pair.test: pair.how for pair in found.pairs()} == EXPECTED
    assert (found.train_pictures, found.test_pictures) == (10, 4)


def test_a_table_with_questions_is_read_with_them(places: dict[str, str]) -> None:
    data = named_pictures(places["asked"], ["limit=5"])
    assert isinstance(data, VqaData)
    assert (len(data.pictures), len(data)) == (5, 5)
    plain = named_pictures(places["train"])
    assert isinstance(plain, VqaData)
    assert (len(plain.pictures), len(plain)) == (10, 0)
    found = overlap_of_sets(places["test"], places["asked"])
    assert len(found.items) == 3
    assert "with 3 of 10 questions" in found.summary()
    assert "questions" not in overlap_of_sets(places["train"], places["test"]).summary()


def test_benchmarks_and_the_world_are_named(places: dict[str, str]) -> None:
    found = overlap_of_sets("world", "world/test", ["a.limit=6", "b.limit=4", "questions_per_picture=2"])
    assert (found.train, found.train_pictures) == ("world/train", 6)
    assert (found.test, found.test_pictures, found.test_items) == ("world/test", 4, 8)


def test_what_cannot_be_compared_is_explained(places: dict[str, str], tmp_path: Path) -> None:
    assert isinstance(named_pictures(places["stitch"]), TrainingRecord)
    with pytest.raises(UserError, match="name it first"):
        overlap_of_sets(places["test"], places["stitch"])
    with pytest.raises(UserError, match="There are no pictures"):
        overlap_of_sets(str(tmp_path / "nowhere"), places["test"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="There are no pictures"):
        named_pictures(str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"stitch's memory .* takes no limit"):
        named_pictures(places["stitch"], ["limit=3"])
    with pytest.raises(UserError, match="pictures without questions, and seed belongs"):
        named_pictures(places["test"], ["seed=3"])
    with pytest.raises(UserError, match=r"name it \.png"):
        overlap_of_sets(places["train"], places["test"], sheet=tmp_path / "sheet.txt")


def test_the_command_prints_counts_and_writes_what_it_found(places: dict[str, str], tmp_path: Path) -> None:
    sheet, items = tmp_path / "pairs.png", tmp_path / "pairs.json"
    options = ["--sheet", str(sheet), "--items", str(items)]
    result = CliRunner().invoke(app, ["data", "overlap", places["train"], places["test"], *options])
    assert result.exit_code == 0, result.output
    assert "| mirrored | 1 | 25.00 |" in result.output
    assert "| all | 3 | 75.00 |" in result.output
    assert "3 of 4 pictures (75.0%) of test/all are in train/all" in result.output
    assert Image.open(sheet).size == (3 * 312, 196)
    written = json.loads(items.read_text())
    assert {pair["test"]: pair["how"] for pair in written["pairs"]} == EXPECTED
    again = CliRunner().invoke(app, ["data", "overlap", places["train"], places["test"], "--json"])
    assert json.loads(again.stdout)["near_pictures"] == 1


def test_a_sheet_is_bounded_and_shows_some_of_each_kind() -> None:
    pairs = [Pair(f"a{n}", f"t{n}", "same pixels") for n in range(30)]
    pairs += [Pair("b", "t1", "mirrored"), Pair("b", "t2", "mirrored"), Pair("c", "t3", "grey")]
    first = in_turns(pairs)[:4]
    assert [pair.how for pair in first] == ["same pixels", "mirrored", "grey", "same pixels"]
    assert sorted(in_turns(pairs)) == sorted(pairs)
    assert in_turns(pairs)[-1] == ("b", "t2", "mirrored"), "a second match of a picture comes last"


def test_both_pictures_of_a_pair_are_on_the_sheet(tmp_path: Path) -> None:
    red, blue = Image.new("RGB", (40, 20), (255, 0, 0)), Image.new("RGB", (20, 40), (0, 0, 255))
    sheet = draw([Pair("r" * 60, "b", "cropped"), Pair("x", "gone", "grey")], lambda _: red, {"b": blue}.get)
    assert sheet.getpixel((8 + 72, 8 + 72)) == (255, 0, 0)
    assert sheet.getpixel((8 + 144 + 8 + 72, 8 + 72)) == (0, 0, 255)
    assert sheet.size == (2 * 312, 196)
    train = gathered("train", [one("t", red)])
    none = overlap(train, gathered("test", [one("q", blue)]))
    assert write_sheet(tmp_path / "none.png", none, train, train) == 0
    assert not (tmp_path / "none.png").exists()

"""What a stitch remembers of its training data says the same as the data itself."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageOps

from sutura.core.errors import UserError
from sutura.data.samples import BytesPicture, PictureTurns, Sample, VqaData, make_data
from sutura.evals import lookalikes, training_record
from sutura.evals.baselines import majority_rows
from sutura.evals.contamination import overlap
from sutura.evals.training_record import kept_record, make_record, read_record, write_record


def encoded(image: Image.Image, format: str = "PNG", **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def image(draw: int) -> Image.Image:
    small = np.random.default_rng(draw).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC)


def turns(name: str, data: bytes, *asked: tuple[str, str, str]) -> PictureTurns:
    picture = BytesPicture(data)
    samples = (Sample(picture, q, (a,), name, f"{name}/{i}", t) for i, (q, a, t) in enumerate(asked))
    return PictureTurns(name, picture, tuple(samples))


def gathered(name: str, *pictures: PictureTurns) -> VqaData:
    return make_data(name, name, pictures, content=[turns.image_id for turns in pictures])


@pytest.fixture
def train() -> VqaData:
    pictures = [
        turns(f"t{n}", encoded(image(n)), ("What colour?", "red", "colour"), ("How many?", f"{n}", "count"))
        for n in range(6)
    ]
    return gathered("train", *pictures, turns("broken", b"nothing", ("How many?", "3", "count")))


@pytest.fixture
def test() -> VqaData:
    return gathered(
        "test",
        turns("same", encoded(image(2)), ("how  many", "2", "count"), ("What colour?", "2", "colour")),
        turns("copy", encoded(image(4), "JPEG", quality=80), ("what size?", "large", "size")),
        turns("free", encoded(image(99)), ("What colour?", "red", "colour")),
    )


def test_a_record_read_back_finds_what_the_data_finds(train: VqaData, test: VqaData, tmp_path: Path) -> None:
    write_record(tmp_path / "r.parquet", make_record(train))
    record = read_record(tmp_path / "r.parquet")
    assert record is not None
    found = overlap(record, test)
    assert found == overlap(train, test)
    assert found.exact == {"same": ("t2",)}
    assert found.near == {"copy": ("t4",)}
    assert (found.same_question, found.same_answer) == (("same/0", "same/1"), ("same/0",))
    assert found.unreadable == 1
    assert found.train_pictures == 6


def test_a_record_guesses_as_the_data_does(train: VqaData, test: VqaData, tmp_path: Path) -> None:
    write_record(tmp_path / "r.parquet", make_record(train))
    record = read_record(tmp_path / "r.parquet")
    assert record is not None
    rows = majority_rows(record.majority, test.samples, benchmark="b")
    assert rows == majority_rows(train.samples, test.samples, benchmark="b")
    assert record.majority.counted == 13
    assert record.majority.counted_by_type == {"colour": 6, "count": 7}
    assert record.majority.by_type == {"colour": "red", "count": "3"}


def test_pictures_that_were_not_looked_at_are_not_called_clean(
    train: VqaData, test: VqaData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without hashes the majority is known and the overlap is not; no picture is opened for it."""

    def never(*given: object) -> None:
        raise AssertionError("a picture was hashed")

    monkeypatch.setattr(training_record, "picture_hashes", never)
    record, path = kept_record(train, tmp_path, look=False)
    again = read_record(path)
    assert again is not None
    assert again.majority == record.majority
    with pytest.raises(UserError, match=r"overlap=false"):
        overlap(again, test)


def test_too_many_thumbnails_are_not_kept_and_the_sentence_says_so(
    train: VqaData, test: VqaData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: a check that looked for less than it says."""
    monkeypatch.setattr(training_record, "THUMBNAILS_UP_TO", 3)
    whole, path = kept_record(train, tmp_path)
    assert overlap(whole, test).near == {"copy": ("t4",)}, "the comparison itself has all thumbnails"
    less = read_record(path)
    assert less is not None
    found = overlap(less, test)
    assert found.exact == {"same": ("t2",)}
    assert found.near == {}
    assert "only the same pixels were looked for" in found.summary()
    assert "re-encoded or resized" not in found.summary()
    assert overlap(kept_record(train, tmp_path)[0], test).near, "made again, with thumbnails"


def test_a_record_of_version_1_is_read_and_says_what_it_cannot_find(
    train: VqaData, test: VqaData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stitches trained before altered copies were looked for keep 16 × 16 thumbnails."""
    record = make_record(train)
    small = record.pictures.thumbnails.reshape(-1, 16, 2, 16, 2, 3).mean((2, 4)).round().astype(np.uint8)
    old = iter(small)
    kept = [None if one is None else next(old).tobytes() for one in record.rows["thumbnail"]]
    rows = record.rows.with_columns(pl.Series("thumbnail", kept, pl.Binary))
    write_record(tmp_path / "old.parquet", replace(record, rows=rows, side=16))
    again = read_record(tmp_path / "old.parquet")
    assert again is not None
    assert (again.side, again.finds_altered, again.pictures.thumbnails.shape) == (16, False, (6, 16, 16, 3))
    mirrored = turns("mirrored", encoded(ImageOps.mirror(image(5))), ("what?", "red", "colour"))
    both = gathered("test", *test.pictures, mirrored)
    found = overlap(again, both)
    assert found.near == {"copy": ("t4",)}
    assert found.altered == {}
    assert (
        "cropped and recoloured copies were not looked for: the training record was written by an older"
        in (found.summary())
    )
    assert overlap(record, both).altered == {"mirrored": (("t5", "mirrored"),)}


def test_a_record_is_made_once(train: VqaData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, path = kept_record(train, tmp_path)
    monkeypatch.setattr(training_record, "make_record", lambda *given, **options: pytest.fail("made again"))
    again, same = kept_record(train, tmp_path)
    assert same == path
    assert again.rows.equals(first.rows)
    assert (again.name, again.fingerprint) == ("train/train", train.fingerprint)


def test_a_record_holds_no_question_in_words(train: VqaData, tmp_path: Path) -> None:
    """Hashes only: a stitch may be passed on where its training questions may not."""
    _, path = kept_record(train, tmp_path)
    stored = pl.read_parquet(path)
    assert stored.schema["questions"] == pl.List(pl.UInt64)
    assert b"What colour" not in path.read_bytes()


def test_a_damaged_record_and_another_version_are_refused(train: VqaData, tmp_path: Path) -> None:
    _, path = kept_record(train, tmp_path)
    pl.read_parquet(path).write_parquet(tmp_path / "plain.parquet")
    with pytest.raises(UserError, match="version None"):
        read_record(tmp_path / "plain.parquet")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        read_record(path)
    assert read_record(tmp_path / "absent.parquet") is None


def test_a_picture_costs_a_few_kilobytes_at_most(tmp_path: Path) -> None:
    pictures = [
        turns(str(n), encoded(image(n)), *((f"question {k}?", f"{k}", "") for k in range(7)))
        for n in range(200)
    ]
    write_record(tmp_path / "r.parquet", make_record(gathered("train", *pictures)))
    assert (tmp_path / "r.parquet").stat().st_size < 200 * 3400
    assert lookalikes.THUMBNAIL == 32

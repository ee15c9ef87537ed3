"""Paths in files that name pictures stay below the folder, and what is counted is counted for the columns read."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from data.test_caption_source import load, pictures, png
from sutura.core.errors import UserError
from sutura.data.caption_source import CaptionSource
from sutura.data.images import BadPicture, picture_path
from sutura.data.vqa import load_vqa

OUT = "outside the folder"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A picture beside the folder of the data, and one that the data may name."""
    (tmp_path / "private.png").write_bytes(png(99))
    pictures(tmp_path / "set")
    return tmp_path / "set"


ESCAPES = ("../private.png", "sub/../../private.png", "./../private.png")


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("kind", ["jsonl", "tsv"])
def test_captions_of_a_picture_outside_are_set_aside(
    secret: Path, tmp_path: Path, kind: str, name: str
) -> None:
    rows = [("0001.png", "a text"), (name, "what nobody should learn")]
    path = secret / f"set.{kind}"
    if kind == "tsv":
        path.write_text("\n".join(map("\t".join, rows)))
    else:
        path.write_text("\n".join(json.dumps({"image": image, "caption": text}) for image, text in rows))
    data = load(CaptionSource(path=str(path)), tmp_path / "cache", "all")
    assert data.captions == (("a text",),)
    assert data.set_aside.counts == {OUT: 1}


@pytest.mark.parametrize("name", ESCAPES)
def test_questions_about_a_picture_outside_are_set_aside(secret: Path, name: str) -> None:
    rows = [{"image": image, "question": "what?", "answer": "this"} for image in ("0001.png", name)]
    (secret / "asked.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pl.DataFrame(rows).write_parquet(secret / "asked.parquet")
    for source in ("jsonl", "parquet"):
        data = load_vqa({"source": source, "path": str(secret / f"asked.{source}"), "split": "asked"})
        assert len(data) == 1, source
        assert data.set_aside.counts == {OUT: 1}


def test_the_user_can_name_the_folder_that_holds_both_or_write_absolute_paths(
    secret: Path, tmp_path: Path
) -> None:
    rows = [{"image": name, "caption": "a text"} for name in ("set/0001.png", str(tmp_path / "private.png"))]
    path = secret / "set.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    data = load(CaptionSource(path=str(path), image_folder=str(tmp_path)), tmp_path / "cache", "all")
    assert (len(data), data.set_aside.counts) == (2, {})
    assert picture_path(secret, "a/../0001.png") == secret / "a/../0001.png"
    with pytest.raises(BadPicture, match="name a folder that holds both"):
        picture_path(secret, "../set-of-another/0001.png")


def test_members_of_a_shard_are_read_from_the_shard(secret: Path, tmp_path: Path) -> None:
    """A member that is called like a file outside is a member: nothing is unpacked, and links are no pictures."""
    import io
    import tarfile

    shard = secret / "train-0.tar"
    with tarfile.open(shard, "w") as tar:
        for name, content in (("../private.png", png(3)), ("../private.txt", b"a text")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.SYMTYPE, "../private.png"
        tar.addfile(link)
    data = load(
        CaptionSource(path=str(shard), divide="content", val_share=0, test_share=0), tmp_path / "cache"
    )
    assert data.captions == (("a text",),)
    plain = load_pixels(tmp_path, png(3))
    assert (data.pixels[[0]] == plain).all()


def load_pixels(folder: Path, content: bytes) -> object:
    from sutura.data import squares

    return squares.square(content, 16)


def test_what_is_set_aside_is_counted_for_the_columns_that_are_read(secret: Path, tmp_path: Path) -> None:
    """Fault: the second reading of a set with another caption column told what the first one had set aside."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"image": png(i), "short": "a text", "long": ["", "a long text"] if i else ["a", "b"]}
        for i in range(4)
    ]
    pq.write_table(pa.Table.from_pylist(rows), secret / "t.parquet")
    sources = [
        CaptionSource(
            path=str(secret / "t.parquet"),
            columns={"caption": name},
            divide="content",
            val_share=0,
            test_share=0,
        )
        for name in ("short", "long", "short")
    ]
    told = [load(source, tmp_path / "cache").set_aside.counts for source in sources]
    assert told == [{}, {"empty caption": 3}, {}]
    lines = [{"image": f"{i:04}.png", "caption": "a text", "image_id": i // 2} for i in range(4)]
    (secret / "l.jsonl").write_text("\n".join(map(json.dumps, lines)))
    by_id = {"divide": "content", "val_share": 0, "test_share": 0}
    first = load(CaptionSource(path=str(secret / "l.jsonl"), captions_each=1, **by_id), tmp_path / "cache")
    again = load(CaptionSource(path=str(secret / "l.jsonl"), captions_each=1, **by_id), tmp_path / "cache")
    assert first.set_aside.counts == again.set_aside.counts == {"another picture under the same image_id": 2}


def test_a_cache_that_counted_for_another_reading_is_made_again(secret: Path, tmp_path: Path) -> None:
    (secret / "set.jsonl").write_text(json.dumps({"image": "0001.png", "caption": "a text"}))
    source = CaptionSource(path=str(secret / "set.jsonl"))
    load(source, tmp_path / "cache", "all")
    facts = next((tmp_path / "cache").glob("pictures-*/facts.json"))
    facts.write_text(json.dumps({"path": "x", "set_aside": {"no caption": ["line 7"]}}))
    assert load(source, tmp_path / "cache", "all").set_aside.counts == {}
    (secret / "set.jsonl").write_text(json.dumps({"image": "gone.png", "caption": "a text"}))
    with pytest.raises(UserError, match="can be used"):
        load(source, tmp_path / "cache", "all")

"""Pictures with captions from every kind of source: grouped, divided, and an account of what was left out."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.data import squares
from sutura.data.caption_source import CaptionSource, caption_splits, load_image_texts

COUNT, SIDE = 12, 16
COCO = Path(__file__).parents[2] / "../shared/data/coco338"


def png(i: int, size: tuple[int, int] = (40, 24)) -> bytes:
    """Every number is another picture."""
    small = Image.fromarray(np.random.default_rng(i).integers(0, 256, (4, 4, 3), dtype=np.uint8))
    file = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


def texts(i: int) -> list[str]:
    return [f"picture number {i}", f"another text of {i}"]


def split_of(i: int) -> str:
    return "train" if i < 6 else "val" if i < 9 else "test"


def pictures(folder: Path, *, same: dict[int, int] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(COUNT):
        (folder / f"{i:04}.png").write_bytes(png((same or {}).get(i, i)))
    return folder


def lines(path: Path, rows: list[dict]) -> CaptionSource:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return CaptionSource(path=str(path))


def jsonl(folder: Path, **same) -> CaptionSource:
    pictures(folder, **same)
    rows = [{"image": f"{i:04}.png", "captions": texts(i), "split": split_of(i)} for i in range(COUNT)]
    return lines(folder / "set.jsonl", rows)


def load(source: CaptionSource, cache: Path, split: str = "train", **options):
    return load_image_texts(source, split=split, side=SIDE, cache=cache, **{"least": 8, **options})


def told(data) -> dict[bytes, tuple[str, ...]]:
    """Captions by the pixels they describe."""
    return {data.pixels[[i]].tobytes(): data.captions[i] for i in range(len(data))}


def right(numbers) -> dict[bytes, tuple[str, ...]]:
    return {squares.square(png(i), SIDE).tobytes(): tuple(texts(i)) for i in numbers}


def coco_json(path: Path, numbers) -> None:
    images = [{"id": 100 + i, "file_name": f"{i:04}.png"} for i in numbers]
    notes = [{"image_id": 100 + i, "id": 2 * i + k, "caption": texts(i)[k]} for k in (1, 0) for i in numbers]
    path.write_text(json.dumps({"images": images, "annotations": notes}))


def place(folder: Path, kind: str) -> CaptionSource:
    """The same pictures in three splits, in one kind of source."""
    by_split = {
        split: [i for i in range(COUNT) if split_of(i) == split] for split in ("train", "val", "test")
    }
    if kind == "jsonl":
        return jsonl(folder)
    if kind == "tsv":
        pictures(folder)
        body = [f"{i:04}.png\t{text}\t{split_of(i)}" for i in range(COUNT) for text in texts(i)]
        (folder / "set.tsv").write_text("\n".join(["image\tcaption\tsplit", *body]))
        return CaptionSource(path=str(folder / "set.tsv"))
    if kind == "karpathy":
        pictures(folder / "val2014")
        images = [
            {"filepath": "val2014", "filename": f"{i:04}.png", "cocoid": i, "split": split_of(i)}
            | {"sentences": [{"raw": text} for text in texts(i)]}
            for i in range(COUNT)
        ]
        (folder / "dataset_coco.json").write_text(json.dumps({"dataset": "coco", "images": images}))
        return CaptionSource(path=str(folder / "dataset_coco.json"))
    if kind == "coco":
        (folder / "annotations").mkdir(parents=True)
        for split, numbers in by_split.items():
            pictures(folder / f"{split}2017")
            coco_json(folder / "annotations" / f"captions_{split}2017.json", numbers)
        files = {split: str(folder / "annotations" / f"captions_{split}2017.json") for split in by_split}
        return CaptionSource(files=files)
    folder.mkdir()
    for split, numbers in by_split.items():
        if kind == "table":
            import pyarrow as pa
            import pyarrow.parquet as pq

            flat = [(i, text) for i in numbers for text in texts(i)]  # one caption a row
            columns = {
                "image": [{"bytes": png(i), "path": None} for i, _ in flat],
                "caption": [text for _, text in flat],
            }
            pq.write_table(pa.table(columns), folder / f"{split}-00000-of-00001.parquet")
        else:
            with tarfile.open(folder / f"{split}-000.tar", "w") as tar:
                for i in numbers:
                    own = {"json": json.dumps({"captions": [{"raw": text} for text in texts(i)]}).encode()}
                    own = own if i % 2 else {"txt": "\n".join(texts(i)).encode()}
                    for name, data in {"png": png(i), **own}.items():
                        info = tarfile.TarInfo(f"{i:04}.{name}")
                        info.size = len(data)
                        tar.addfile(info, io.BytesIO(data))
    return CaptionSource(path=str(folder))


@pytest.mark.usefixtures("datasets_cache")
@pytest.mark.parametrize("kind", ["jsonl", "tsv", "karpathy", "coco", "table", "shards"])
def test_the_same_pictures_and_captions_from_every_kind_of_source(kind, tmp_path):
    source = place(tmp_path / kind, kind)
    assert set(caption_splits(source)) == {"train", "val", "test"}
    for split in ("train", "validation", "test"):
        data = load(source, tmp_path / "cache", split)
        wanted = [i for i in range(COUNT) if split_of(i) == ("val" if split == "validation" else split)]
        assert told(data) == right(wanted)
        assert len(set(data.image_ids)) == len(set(data.content)) == len(data) == len(wanted)
        assert len(data.set_aside) == 0
    with pytest.raises(UserError, match=r"has no split 'extra'; there are .*train"):
        load(source, tmp_path / "cache", "extra")


def test_a_second_run_decodes_nothing(tmp_path, monkeypatch):
    source = jsonl(tmp_path / "x")
    first = load(source, tmp_path / "cache")
    assert isinstance(first.pixels.base, np.memmap)
    monkeypatch.setattr(squares, "decode", None)
    again = load(source, tmp_path / "cache")
    assert told(first) == told(again)
    assert (first.fingerprint, first.image_ids) == (again.fingerprint, again.image_ids)


def test_a_caption_that_changed_is_another_fingerprint(tmp_path):
    source = jsonl(tmp_path / "x")
    before = load(source, tmp_path / "cache").fingerprint
    path = tmp_path / "x" / "set.jsonl"
    path.write_text(path.read_text().replace("picture number 3", "picture number three"))
    assert load(source, tmp_path / "cache").fingerprint != before


def test_a_test_picture_in_training_is_found_under_another_name_and_set_aside(tmp_path):
    """The planted fault: pictures 2 and 4 of training are pictures of test and of val."""
    source = jsonl(tmp_path / "x", same={2: 10, 4: 7})
    data = load(source, tmp_path / "cache")
    assert data.set_aside.items == {
        "also in the split 'test'": ["0002.png"],
        "also in the split 'val'": ["0004.png"],
    }
    assert told(data) == right([0, 1, 3, 5])
    assert "1 also in the split 'test' (0002.png)" in data.about
    assert len(load(source, tmp_path / "cache", "test")) == 3
    some = load(source.model_copy(update={"not_in": ("test",)}), tmp_path / "cache")
    assert list(some.set_aside.items) == ["also in the split 'test'"]
    limited = load(source.model_copy(update={"limit": 1}), tmp_path / "other", "train")
    assert len(limited) == 1  # and the whole test split is looked at, whatever the limit
    three = load(source.model_copy(update={"limit": 3}), tmp_path / "other", "train")
    assert three.image_ids == ("0000.png", "0001.png")
    with pytest.raises(UserError, match="not_in names 'tset'"):
        load(source.model_copy(update={"not_in": ("tset",)}), tmp_path / "cache")


def test_two_pictures_with_one_id_are_told_apart_and_the_second_is_set_aside(tmp_path):
    pictures(tmp_path)
    rows = [{"image": f"{i:04}.png", "image_id": i % 11, "caption": f"text {i}"} for i in range(COUNT)]
    data = load(lines(tmp_path / "train.jsonl", rows), tmp_path / "cache")
    assert data.set_aside.items == {"another picture under the same image_id": ["line 12, id 0"]}
    assert data.image_ids == tuple(map(str, range(11)))
    assert data.captions[0] == ("text 0",)


@pytest.mark.usefixtures("datasets_cache")
def test_two_pictures_with_one_id_in_a_table(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    shown = [0, 0, 1, 2, 1]
    columns = {
        "image": [{"bytes": png(i), "path": None} for i in shown],
        "image_id": ["a", "a", "b", "a", "b"],
        "caption": ["one", "two", "three", "four", "five"],
    }
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    data = load(CaptionSource(path=str(tmp_path / "train.parquet")), tmp_path / "cache")
    assert data.captions == (("one", "two"), ("three", "five"))
    assert data.image_ids == ("a", "b")
    assert data.set_aside.items == {"another picture under the same image_id": ["row 3, id a"]}


def test_what_cannot_be_used_is_set_aside_and_counted(tmp_path):
    folder = pictures(tmp_path)
    (folder / "0000.png").unlink()
    (folder / "0001.png").write_bytes(png(1)[:60])
    (folder / "0002.png").write_bytes(png(2, (30, 7)))
    rows = [{"image": f"{i:04}.png", "caption": f"text {i}"} for i in range(COUNT)]
    rows[3]["caption"] = "  "
    del rows[4]["caption"]
    rows[5]["caption"] = ["", "good", None]
    source = lines(tmp_path / "train.jsonl", rows)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write("\n{broken\n")
    data = load(source, tmp_path / "cache")
    assert data.set_aside.counts == {
        "empty caption": 2,
        "no caption": 2,
        "missing": 1,
        "not a JSON object": 1,
        "smaller than a patch of 8 pixels": 1,
        "truncated": 1,
    }
    assert len(data) == COUNT - 5
    assert data.captions[0] == ("good",)
    again = load(source, tmp_path / "cache")
    assert again.set_aside.items == data.set_aside.items
    assert again.about == data.about


def test_without_splits_pictures_are_held_out_by_content(tmp_path):
    folder = pictures(tmp_path, same={3: 0, 8: 0, 9: 1})  # copies under other names
    rows = [{"image": f"{i:04}.png", "caption": f"text {i}"} for i in range(COUNT)]
    source = lines(folder / "set.jsonl", rows).model_copy(update={"val_share": 0.3, "test_share": 0.3})
    parts = {split: load(source, tmp_path / "cache", split) for split in ("train", "val", "test")}
    content = {split: set(part.content) for split, part in parts.items()}
    assert sum(map(len, parts.values())) == COUNT
    assert sum(map(len, content.values())) == len(set.union(*content.values())) == COUNT - 3
    assert "divided by content: 30.0% for val, 30.0% for test" in parts["train"].about
    assert len(load(source, tmp_path / "cache", "all")) == COUNT
    assert len(list((tmp_path / "cache").glob("pictures-*"))) == 1  # decoded once for all of them


def test_a_files_name_tells_its_split_and_divide_takes_no_notice(tmp_path):
    pictures(tmp_path)
    rows = [{"image": f"{i:04}.png", "caption": f"text {i}"} for i in range(COUNT)]
    source = lines(tmp_path / "my_val.jsonl", rows)
    assert len(load(source, tmp_path / "cache", "val")) == COUNT
    with pytest.raises(UserError, match="no split 'train'; there are val, and `all`"):
        load(source, tmp_path / "cache", "train")
    divided = source.model_copy(update={"divide": "content", "test_share": 0.4, "val_share": 0.0})
    assert 0 < len(load(divided, tmp_path / "cache", "train")) < COUNT
    with pytest.raises(UserError, match="both say what the splits are"):
        parse(CaptionSource, {"files": {"train": "x"}, "divide": "content"})


def test_lists_of_names_divide_a_set(tmp_path):
    source = jsonl(tmp_path / "x", same={1: 11})
    (tmp_path / "karpathy_test.txt").write_text("COCO_val2014_000000000010.jpg\n0011.png\n77\n")
    listed = source.model_copy(update={"split_lists": {"test": str(tmp_path / "karpathy_test.txt")}})
    test, train = (load(listed, tmp_path / "cache", split) for split in ("test", "train"))
    assert test.image_ids == ("0010.png", "0011.png")
    assert "karpathy_test.txt has 3 pictures of split 'test', the standard one has 5,000" in test.about
    assert "1 of 3 names in the list of 'test' are not in the set (77)" in test.about
    assert len(train) == 9  # the other ten, without the copy of a test picture
    assert train.set_aside.items == {"also in the split 'test'": ["0001.png"]}
    (tmp_path / "train.txt").write_text("0\n2\n")
    both = {"train": str(tmp_path / "train.txt"), **listed.split_lists}
    both = load(source.model_copy(update={"split_lists": both}), tmp_path / "cache")
    assert both.image_ids == ("0000.png", "0002.png")
    assert "8 of 12 rows are in no list and are not used" in both.about


@pytest.mark.usefixtures("datasets_cache")
def test_a_table_of_another_name_than_a_split_is_one_piece(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "data").mkdir()
    columns = {"image": [{"bytes": png(i), "path": None} for i in range(COUNT)]}
    columns["text"] = [f"text {i}" if i else None for i in range(COUNT)]
    pq.write_table(pa.table(columns), tmp_path / "data" / "0000.parquet")
    source = CaptionSource(path=str(tmp_path), val_share=0.3, test_share=0.3)
    parts = [load(source, tmp_path / "cache", split) for split in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(load(source, tmp_path / "cache", "all")) == COUNT - 1
    assert parts[0].set_aside.items == {"no caption": ["row 0"]}


def test_restval_belongs_to_training_only_if_asked(tmp_path):
    source = place(tmp_path / "k", "karpathy")
    path = Path(source.path)
    values = json.loads(path.read_text())
    values["images"][0]["split"] = values["images"][1]["split"] = "restval"
    path.write_text(json.dumps(values))
    without = load(source, tmp_path / "cache")
    assert len(without) == 4
    assert "2 pictures of `restval` are in no split" in without.about
    assert "without a split" not in without.about
    whole = load(source.model_copy(update={"restval": True}), tmp_path / "cache")
    assert len(whole) == 6
    assert "2 pictures of `restval` belong to training" in whole.about
    assert "dataset_coco.json has 3 pictures of split 'test', the standard one has 5,000" in whole.about


def test_karpathys_names_of_2014_are_found_in_the_folders_of_2017(tmp_path):
    pictures(tmp_path / "train2017")
    pictures(tmp_path / "val2017")
    for file in [*(tmp_path / "train2017").iterdir(), *(tmp_path / "val2017").iterdir()]:
        number = int(file.stem)
        if (number < 6) == (file.parent.name == "train2017"):
            file.rename(file.with_name(f"{number:012}.png"))
        else:
            file.unlink()
    images = [
        {"filepath": "val2014", "filename": f"COCO_val2014_{i:012}.png", "cocoid": i, "split": "test"}
        | {"sentences": [{"raw": text} for text in texts(i)]}
        for i in range(COUNT)
    ]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"dataset": "coco", "images": images}))
    data = load(CaptionSource(path=str(tmp_path / "dataset_coco.json")), tmp_path / "cache", "test")
    assert told(data) == right(range(COUNT))


def test_captions_are_cut_to_so_many_and_pictures_too(tmp_path):
    source = jsonl(tmp_path / "x").model_copy(update={"captions_each": 1, "limit": 2})
    data = load(source, tmp_path / "cache")
    assert data.captions == (("picture number 0",), ("picture number 1",))


def test_sources_without_captions_are_told(tmp_path):
    pictures(tmp_path / "x")
    with pytest.raises(UserError, match=r"captions are needed\. Put a metadata\.jsonl"):
        load(CaptionSource(path=str(tmp_path / "x")), tmp_path / "cache")
    bare = lines(tmp_path / "bare.jsonl", [{"image": "x/0001.png", "words": "text"}])
    with pytest.raises(UserError, match=r"no column for caption .* The file's columns are image, words"):
        load(bare, tmp_path / "cache")
    empty = lines(tmp_path / "train.jsonl", [{"image": "x/0001.png", "caption": ""}])
    with pytest.raises(UserError, match=r"None of the 1 rows .* has a caption"):
        load(empty, tmp_path / "cache")
    gone = lines(tmp_path / "train.jsonl", [{"image": "y/0001.png", "caption": "a text"}])
    with pytest.raises(UserError, match=r"No picture of .* can be used.*1 missing"):
        load(gone, tmp_path / "cache")


def test_the_built_in_world(tmp_path):
    source = CaptionSource(limit=3, captions_each=2)
    steps: list[tuple[int, int]] = []
    data = load(source, tmp_path, "val", on_progress=lambda done, total: steps.append((done, total)))
    assert data.name == "world/select"
    assert [len(own) for own in data.captions] == [2, 2, 2]
    assert steps[-1] == (3, 3)
    assert caption_splits(source) == ("train", "val", "test")


@pytest.mark.skipif(not COCO.is_dir(), reason="../shared/data/coco338 is not here")
def test_photographs_of_coco(tmp_path):
    source = CaptionSource(path=str(COCO / "captions.jsonl"))
    train, val = (load_image_texts(source, split=s, side=32, cache=tmp_path) for s in ("train", "val"))
    assert (len(train), len(val)) == (130, 208)
    assert sum(map(len, train.captions)) + sum(map(len, val.captions)) == 1_690
    assert len(train.set_aside) == len(val.set_aside) == 0
    assert len(set(train.content + val.content)) == 338
    assert "Group around a table waiting for a birthday cake to be served." in train.captions[0]

"""Labelled pictures in three parts: where they come from, how they are divided, and what is refused."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sutura.core.errors import UserError
from sutura.data.images import pixel_hash
from sutura.data.label_source import LabelSource, label_source
from sutura.data.labelled import load_labelled
from sutura.data.scenes import LABELS, labels, make_scene
from sutura.data.sources import VqaSource
from sutura.data.world_vqa import load_world

CIFAR = Path(__file__).parents[2] / "../shared/data/cifar10"


@pytest.fixture
def table(datasets_cache: Path, picture: Any, encoded: Any) -> Any:
    """Writes (picture number, label) rows as Parquet; bytes stand for themselves, `names` make classes."""

    def write(path: Path, rows: list[tuple[Any, Any]], names: list[str] | None = None) -> Path:
        from datasets import ClassLabel, Dataset, Features, Image, List

        data = [n if isinstance(n, bytes) else encoded(picture(n, (12, 8))) for n, _ in rows]
        values = {"image": [{"bytes": d, "path": None} for d in data], "label": [label for _, label in rows]}
        path.parent.mkdir(parents=True, exist_ok=True)
        if names is None:
            pq.write_table(pa.table(values), path)
        else:
            kind: Any = ClassLabel(names=names)
            if any(isinstance(label, list) for _, label in rows):
                kind = List(kind)
            Dataset.from_dict(values, features=Features({"image": Image(), "label": kind})).to_parquet(path)
        return path

    return write


def ids(part: Any) -> set[str]:
    return {turns.image_id for turns in part.pictures}


def test_named_splits_and_named_classes(table: Any, tmp_path: Path) -> None:
    names = ["cat", "dog"]
    for split, numbers in (("train", range(6)), ("validation", range(6, 9)), ("test", range(9, 13))):
        table(tmp_path / f"{split}-00000-of-00001.parquet", [(i, i % 2) for i in numbers], names)
    parts = load_labelled(str(tmp_path))
    assert [len(p) for p in (parts.fit, parts.select, parts.test)] == [6, 3, 4]
    assert parts.fit.classes == ("cat", "dog")
    assert parts.fit.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert not parts.fit.several
    assert parts.notes == ()


def test_a_set_without_selection_is_divided_by_pixels(
    table: Any, tmp_path: Path, encoded: Any, picture: Any
) -> None:
    """The same pixels in another file format fall into the same part, and the division never changes."""
    rows = [(i, "ab"[i % 2]) for i in range(60)]
    table(tmp_path / "train.parquet", rows)
    table(tmp_path / "test.parquet", [(i, "a") for i in range(100, 104)])
    parts = load_labelled({"path": str(tmp_path), "select_share": 0.3})
    assert len(parts.fit) + len(parts.select) == 60
    assert 8 <= len(parts.select) <= 28
    assert not ids(parts.fit) & ids(parts.select)
    assert "30% of the split 'train'" in parts.notes[0]

    again = [(encoded(picture(i, (12, 8)), "BMP"), label) for i, label in reversed(rows)]
    table(tmp_path / "train.parquet", again)
    other = load_labelled({"path": str(tmp_path), "select_share": 0.3})
    assert ids(other.select) == ids(parts.select)
    assert set(other.select.hashes) == set(parts.select.hashes)


def test_one_file_is_divided_in_three(table: Any, tmp_path: Path) -> None:
    path = table(tmp_path / "everything.parquet", [(i, i % 3) for i in range(60)])
    parts = load_labelled({"path": str(path), "test_share": 0.25, "select_share": 0.25})
    sizes = [len(p) for p in (parts.fit, parts.select, parts.test)]
    assert sum(sizes) == 60
    assert min(sizes) >= 6
    assert len(ids(parts.fit) | ids(parts.select) | ids(parts.test)) == 60
    assert parts.fit.classes == ("0", "1", "2")


def test_what_is_left_out_is_counted(table: Any, tmp_path: Path) -> None:
    rows = [(0, "a"), (0, "a"), (0, "b"), (b"no picture", "a"), (1, None), (2, "b"), (3, "a")]
    table(tmp_path / "train.parquet", rows)
    table(tmp_path / "val.parquet", [(5, "a"), (6, "b")])
    table(tmp_path / "test.parquet", [(7, "a"), (8, "b")])
    fit = load_labelled(str(tmp_path)).fit
    assert len(fit) == 3
    assert fit.set_aside.items == {
        "no label": ["row 4"],
        "the same pixels again": ["row 1"],
        "the same pixels under another label": ["row 2"],
        "unreadable picture: not a picture": ["row 3"],
    }


def test_several_labels_a_picture(table: Any, tmp_path: Path) -> None:
    for split, first in (("train", 0), ("val", 10), ("test", 20)):
        rows = [(first, [0, 2]), (first + 1, []), (first + 2, [1])]
        table(tmp_path / f"{split}.parquet", rows, ["x", "y", "z"])
    fit = load_labelled(str(tmp_path)).fit
    assert fit.several
    assert fit.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert fit.counts().tolist() == [1, 1, 1]


def test_a_smaller_limit_is_a_part_of_a_larger_one(table: Any, tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", [(i, i % 2) for i in range(30)])
    table(tmp_path / "val.parquet", [(i, i % 2) for i in range(30, 34)])
    table(tmp_path / "test.parquet", [(i, i % 2) for i in range(40, 44)])
    few, more = (load_labelled({"path": str(tmp_path), "limit": n}).fit for n in (5, 12))
    assert (len(few), len(more)) == (5, 12)
    assert ids(few) < ids(more)
    assert few.fingerprint != more.fingerprint


def test_a_folder_of_class_folders(tmp_path: Path, picture: Any) -> None:
    for split, first in (("train", 0), ("val", 10), ("test", 20)):
        for c, name in enumerate(("ant", "bee")):
            (tmp_path / split / name).mkdir(parents=True)
            picture(first + c).save(tmp_path / split / name / "one.png")
    (tmp_path / "train" / "ant" / "notes.txt").write_text("no picture")
    (tmp_path / "train" / "ant" / "nameless").write_bytes(b"no picture")
    (tmp_path / "train" / "stray.png").write_bytes(b"")
    (tmp_path / ".elsewhere").mkdir()
    picture(9).save(tmp_path / ".elsewhere" / "one.png")
    (tmp_path / "train" / "cat").symlink_to(tmp_path / ".elsewhere")
    parts = load_labelled(str(tmp_path))
    assert parts.test.classes == ("ant", "bee", "cat")
    assert parts.fit.labels.tolist() == [0, 1, 2]
    assert parts.fit.set_aside.items == {
        "in no class folder": ["stray.png"],
        "no picture by its name": ["notes.txt"],
        "unreadable picture: not a picture": ["ant/nameless"],
    }


@pytest.mark.parametrize("kind", ["jsonl", "shards"])
def test_what_pretraining_reads_a_probe_reads(kind: str, tmp_path: Path, picture: Any, encoded: Any) -> None:
    """JSON lines are in one piece; shards have the splits of their names."""
    rows = [("train" if i < 40 else "test", i, "ab"[i % 2] if i else None) for i in range(50)]
    lines = [{"file_name": f"{i}.png", "label": label} for _, i, label in rows]
    if kind == "jsonl":
        for _, i, _ in rows:
            picture(i, (12, 8)).save(tmp_path / f"{i}.png")
        (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, [*lines, 3])))
    for split in ("train", "test") if kind == "shards" else ():
        with tarfile.open(tmp_path / f"{split}-0.tar", "w") as tar:
            for own, i, label in rows:
                members = {"png": encoded(picture(i, (12, 8))), **({"cls": label.encode()} if label else {})}
                for name, data in members.items() if own == split else ():
                    info = tarfile.TarInfo(f"{i}.{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    parts = load_labelled(str(tmp_path))
    assert label_source(str(tmp_path)).source == kind
    assert parts.fit.set_aside.counts == (
        {"no label": 1} | ({"not a JSON object": 1} if kind == "jsonl" else {})
    )
    assert sum(len(part) for part in (parts.fit, parts.select, parts.test)) == 49
    assert kind == "jsonl" or len(parts.test) == 10
    known = {pixel_hash(picture(i, (12, 8))): label for _, i, label in rows}
    for part in (parts.fit, parts.select, parts.test):
        assert [part.classes[n] for n in part.labels] == [known[one] for one in part.hashes]


def test_the_world_shares_its_features_with_the_questions() -> None:
    """The same pictures under the same fingerprint, so a probe reads what a comparison has encoded."""
    parts = load_labelled({"source": "world", "limit": 5, "select_limit": 3, "test_limit": 4})
    asked = load_world(VqaSource(source="world", split="train", limit=5))
    assert parts.fit.fingerprint == asked.pictures_fingerprint
    assert [t.image_id for t in parts.fit.pictures] == [t.image_id for t in asked.pictures]
    assert parts.test.pictures[2].image_id == "world/test/0/2"
    expected = np.stack([labels(make_scene(0, "test", i)) for i in range(4)])
    assert np.array_equal(parts.test.labels, expected)
    place = LABELS.index(("cube", "red"))
    assert parts.fit.classes[place] == "red cube"


@pytest.mark.parametrize(
    ("rows", "options", "sentence"),
    [
        ([(0, 0), (1, 2), (2, -1)], {}, r"has the label -1; classes are numbered from 0"),
        ([(0, 0), (1, 7)], {"classes": ["a", "b"]}, r"1 of 2 labels .* out of range, the first 7 at row 1"),
        ([(0, 0.5), (1, 1.0)], {}, "labels of type float"),
        ([(0, None), (1, None)], {}, "has no label in any row"),
        ([(0, 0), (1, 1)], {"columns": {"label": "klass"}}, r"takes label from 'klass', which is not there"),
        ([(0, 0), (1, 1)], {"columns": {"labels": "label"}}, r"unknown role 'labels'. Did you mean 'label'"),
        ([(0, 0), (1, 1)], {"test": "holdout"}, r"has no split 'holdout'"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_before_a_picture_is_opened(
    table: Any, tmp_path: Path, rows: Any, options: Any, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table(tmp_path / "set.parquet", rows)
    monkeypatch.setattr("sutura.data.labelled.pixel_hash", lambda image: pytest.fail("a picture was opened"))
    with pytest.raises(UserError, match=sentence):
        load_labelled({"path": str(path), **options})


def test_a_table_without_a_label_column(tmp_path: Path, datasets_cache: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"], "caption": ["a cat"]}), tmp_path / "set.parquet")
    with pytest.raises(
        UserError, match=r"no column for label \(looked for label, labels, class\).*image, caption"
    ):
        load_labelled(str(tmp_path / "set.parquet"))


def test_what_a_person_writes_becomes_a_source(tmp_path: Path, picture: Any) -> None:
    assert label_source("world") == LabelSource()
    assert label_source("hf:org/name") == label_source("org/name")
    assert label_source("org/name").path == "hf:org/name"
    assert label_source("org/name-v1.5").label == "name-v1.5"
    assert label_source({"path": "org/name"}).rows("train").path == "hf:org/name"
    (tmp_path / "ant").mkdir()
    assert label_source(str(tmp_path)).source == "folder"
    with pytest.raises(UserError, match="no labelled data at 'nowhere'"):
        label_source("nowhere")
    (tmp_path / "labels.csv").write_text("a,b")
    with pytest.raises(UserError, match=r"labels\.csv is none of \.parquet, \.jsonl"):
        label_source(str(tmp_path / "labels.csv"))
    with pytest.raises(UserError, match=r"limt: unknown key. Did you mean 'limit'"):
        label_source({"limt": 3})


@pytest.mark.skipif(not CIFAR.is_dir(), reason="../shared/data/cifar10 is not here")
def test_cifar_has_its_names_and_parts() -> None:
    parts = load_labelled({"path": str(CIFAR.resolve()), "test_limit": 50, "limit": 100, "select_limit": 20})
    assert parts.fit.classes[:3] == ("airplane", "automobile", "bird")
    assert [len(p) for p in (parts.fit, parts.select, parts.test)] == [100, 20, 50]

import io
import json
import tarfile

import pytest

from sutura.core.errors import UserError
from sutura.data.images import decode
from sutura.data.shards import ShardRows, shard_files, shard_splits


def png(colour) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (12, 10), colour).save(file, "PNG")
    return file.getvalue()


def write(path, members: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def folder(tmp_path):
    write(
        tmp_path / "train-000.tar",
        {
            "a/0001.txt": b"a red field\n\na field\n",
            "a/0001.png": png("red"),
            "a/0001.cls": b"3\n",
            "a/0002.cls": b"1",
            "a/0002.png": png("blue"),
            "b/0001.png": png("lime"),  # the same name in another folder is another picture
            "b/0001.json": json.dumps({"caption": ["a green field"], "label": "green", "n": 4}).encode(),
        },
    )
    write(
        tmp_path / "train-001.tar", {"x.txt": b"no picture", "y.seg.png": png("red"), "y.png": png("white")}
    )
    write(tmp_path / "test-000.tar", {"z.png": png("black"), "z.cls": b"0"})
    return tmp_path


def test_members_of_one_name_are_one_picture(folder):
    rows = ShardRows(shard_files(folder, "train"), {}, ())
    assert len(rows) == 4
    colours = [decode(rows.picture(i)).getpixel((3, 3)) for i in range(4)]
    assert colours == [(255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 255)]
    assert rows.labels == [3, 1, "green", None]
    assert [rows.captions(i) for i in range(4)] == [["a red field", "a field"], [], ["a green field"], []]
    assert rows.set_aside.counts == {"no picture": 1}
    assert "train-001.tar:x" in rows.set_aside.summary()
    assert rows.where(3).startswith("train-001.tar")


def test_captions_in_json_are_a_text_a_list_or_objects_and_a_name_stands_once(tmp_path):
    members = {
        "1.png": png("red"),
        "1.json": json.dumps({"captions": [{"raw": "one"}, {"raw": " "}, {"raw": "two"}]}).encode(),
        "2.png": png("blue"),
        "2.json": json.dumps({"text": "three"}).encode(),
        "3.png": png("lime"),
        "3.txt": "four\u2028still four\r\nfive\n".encode(),
    }
    write(tmp_path / "a.tar", members)
    with tarfile.open(tmp_path / "a.tar", "a") as tar:
        info = tarfile.TarInfo("2.png")
        info.size = len(png("red"))
        tar.addfile(info, io.BytesIO(png("red")))
    rows = ShardRows([tmp_path / "a.tar"], {}, ("caption",))
    assert [rows.captions(i) for i in range(3)] == [
        ["one", "two"],
        ["three"],
        ["four\u2028still four", "five"],
    ]
    assert rows.set_aside.items == {"a second member of one name": ["a.tar:2.png"]}
    assert decode(rows.picture(1)).getpixel((3, 3)) == (0, 0, 255)  # the first one


def test_other_member_names_are_told_by_columns(folder):
    rows = ShardRows(shard_files(folder, "train"), {"label": "json.n", "image": "png"}, ())
    assert rows.labels == [None, None, 4, None]


def test_a_split_is_the_shards_named_after_it(folder, tmp_path):
    assert [f.name for f in shard_files(folder, "test")] == ["test-000.tar"]
    assert [f.name for f in shard_files(folder, "train")] == ["train-000.tar", "train-001.tar"]
    assert shard_splits(folder) == ["test", "train"]
    with pytest.raises(UserError, match="named after the split 'val'; there are test, train"):
        shard_files(folder, "val")
    with pytest.raises(UserError, match=r"no \.tar file"):
        shard_files(tmp_path / "none", "train")


def test_shards_that_are_cut_short_or_compressed_are_refused(folder):
    whole = (folder / "train-000.tar").read_bytes()
    (folder / "short.tar").write_bytes(whole[:900])
    with pytest.raises(UserError, match=r"short\.tar cannot be read"):
        ShardRows([folder / "short.tar"], {}, ())
    write(folder / "packed.tar", {"a.png": png("red")}, mode="w:gz")
    with pytest.raises(UserError, match=r"packed\.tar cannot be read as an uncompressed tar"):
        ShardRows([folder / "packed.tar"], {}, ())


def test_what_no_member_holds_is_told_with_what_was_looked_for(folder):
    with pytest.raises(UserError, match=r"No picture of test-000\.tar has a caption.*\.txt, \.caption"):
        ShardRows(shard_files(folder, "test"), {}, ("caption",))
    write(folder / "bare.tar", {"a.png": png("red")})
    with pytest.raises(UserError, match=r"has a label.*\.cls"):
        ShardRows([folder / "bare.tar"], {}, ("label",))

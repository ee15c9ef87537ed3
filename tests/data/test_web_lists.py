"""CC3M and CC12M: the list, the command, and what img2dataset leaves; nothing here goes over the network."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from picture_server import answer, png, serving
from sutura.core.errors import UserError
from sutura.data.caption_source import CaptionSource, load_image_texts
from sutura.data.downloaded import take_stock
from sutura.data.web_lists import prepare, run

LINES = 'a cat\thttp://x.org/1.jpg\n"a dog\thttps://x.org/2.jpg\nonly one\n\thttp://x.org/3.jpg\n'


def list_file(folder: Path, text: str = LINES) -> Path:
    (folder / "given.tsv").write_text(text, encoding="utf-8")
    return folder / "given.tsv"


def test_a_list_becomes_a_table_that_no_quotation_mark_breaks(tmp_path):
    ready = prepare("cc3m", tmp_path / "out", given=list_file(tmp_path), size=300)
    rows = pq.read_table(ready.path).to_pylist()
    assert rows == [
        {"url": "http://x.org/1.jpg", "caption": "a cat"},
        {"url": "https://x.org/2.jpg", "caption": '"a dog'},
    ]
    assert ready.set_aside.items == {"not a URL and a caption": ["line 3"], "empty caption": ["line 4"]}
    options = dict(zip(ready.command[1::2], ready.command[2::2], strict=True))
    assert options["--url_list"] == str(tmp_path / "out" / "cc3m.parquet")
    assert options["--output_folder"] == str(tmp_path / "out" / "pictures")
    assert (options["--image_size"], options["--resize_mode"]) == ("300", "keep_ratio")
    assert "2 pairs of URL and caption" in ready.text()
    assert "The published list has 3,318,333 lines, this 4." in ready.text()
    assert '--disallowed_header_directives \'["noai"' in ready.text()


def test_each_list_has_its_own_order_and_a_header_another(tmp_path):
    twelve = list_file(tmp_path, "http://x.org/1.jpg\ta cat\n")
    assert prepare("cc12m", tmp_path, given=twelve).pairs == 1
    with pytest.raises(UserError, match=r"is not the list of cc3m: its lines are caption and url"):
        prepare("cc3m", tmp_path, given=twelve)
    headed = list_file(tmp_path, "url\tcaption\nhttp://x.org/1.jpg\ta cat\n")
    assert prepare("cc3m", tmp_path, given=headed).pairs == 1


def test_a_bad_list_that_was_there_before_is_left_alone(tmp_path):
    """Fault: a file that the user put there is deleted because it is no list."""
    (tmp_path / "cc3m.tsv").write_text("http://x.org/1.jpg\ta cat\n")
    with pytest.raises(UserError, match="is not the list of cc3m"):
        prepare("cc3m", tmp_path)
    assert (tmp_path / "cc3m.tsv").is_file()


def test_a_list_is_fetched_once(tmp_path):
    with serving(answer(LINES.encode())) as server:
        url = f"http://127.0.0.1:{server.port}/list"
        assert prepare("cc3m", tmp_path / "a", url=url).pairs == 2
        assert prepare("cc3m", tmp_path / "a", url=url).pairs == 2
        assert len(server.requests) == 1


def test_a_page_instead_of_a_list_is_told_and_not_kept(tmp_path):
    with serving(answer(b"<html>log in</html>")) as server:
        url = f"http://127.0.0.1:{server.port}/list"
        with pytest.raises(UserError, match="It looks like a web page"):
            prepare("cc3m", tmp_path, url=url)
        assert list(tmp_path.iterdir()) == []
    with serving(answer(b"no", status="403 Forbidden")) as server:
        url = f"http://127.0.0.1:{server.port}/list"
        with pytest.raises(
            UserError, match=r"403 Forbidden.*by hand from https://ai\.google\.com.*--list FILE"
        ):
            prepare("cc3m", tmp_path, url=url)
    with pytest.raises(UserError, match="There is no list at"):
        prepare("cc3m", tmp_path, given=tmp_path / "none.tsv")


def test_img2dataset_is_started_where_it_is_installed(tmp_path, monkeypatch):
    ready = prepare("cc3m", tmp_path, given=list_file(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="img2dataset is not installed, and is no dependency"):
        run(ready.command)
    program = tmp_path / "img2dataset"
    program.write_text(
        f"#!{sys.executable}\nimport sys, json\njson.dump(sys.argv[1:], open('got.json', 'w'))\n"
    )
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    run(ready.command)
    assert json.loads(Path("got.json").read_text()) == list(ready.command[1:])
    program.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(UserError, match="ended with code 3"):
        run(ready.command)


def stats(folder: Path, shard: str, count: int, saved: int, **failed: int) -> None:
    told = {"success": saved, **failed}
    values = {"count": count, "successes": saved, "status_dict": told}
    (folder / f"{shard}_stats.json").write_text(json.dumps(values))


def shard(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_shards_are_counted_and_read_as_they_are(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    meta = json.dumps({"caption": "a red field"}).encode()
    members = {"000000000.jpg": png((20, 20)), "000000000.txt": b"a red field", "000000000.json": meta}
    members |= {"000000001.jpg": png((20, 21)), "000000001.txt": b""}
    shard(folder / "00000.tar", members)
    (folder / "00000.parquet").write_bytes(b"a table without pictures")
    stats(folder, "00000", 7, 2, **{"HTTP Error 404": 3, "timed out": 1})
    found = take_stock(tmp_path)
    assert (found.asked, found.pictures, found.data) == (7, 1, folder)
    assert found.failed == {"HTTP Error 404": 3, "timed out": 1, "no reason given": 1}
    assert found.set_aside.counts == {"no caption": 1}
    assert (tmp_path / "shards.tsv").read_text().splitlines()[1].split("\t")[2:] == ["2", "1"]
    assert "7 URLs were tried, 5 failed (71.4%)" in found.text()
    assert "counts" not in found.text().replace("own counts", "")
    # The table beside each shard does not make the folder a table.
    data = load_image_texts(CaptionSource(path=str(folder)), split="all", side=8, cache=tmp_path / "cache")
    assert data.captions == (("a red field",),)
    (folder / "00001.tar").write_bytes((folder / "00000.tar").read_bytes()[:700])
    with pytest.raises(UserError, match=r"1 of 2 shards are not whole: 00001\.tar .* Run the download again"):
        take_stock(tmp_path)
    (folder / "00000.tar").unlink()
    shard(folder / "00001.tar", {"1.jpg": png(), "1.txt": b"text"})
    assert "img2dataset counts 2 as saved; 1 are here" in take_stock(tmp_path).text()


def test_files_get_a_manifest_that_is_read_as_data(tmp_path):
    folder = tmp_path / "00000"
    folder.mkdir()
    for i, text in enumerate(["a red\tfield\nof one colour", "another", "", None]):
        (folder / f"{i:09}.jpg").write_bytes(png((20 + i, 20)))
        if text is not None:
            (folder / f"{i:09}.txt").write_text(text)
    found = take_stock(tmp_path)
    assert found.set_aside.counts == {"no caption": 2}
    assert found.data == tmp_path / "manifest.tsv"
    data = load_image_texts(
        CaptionSource(path=str(found.data)), split="all", side=8, cache=tmp_path / "cache"
    )
    assert data.captions == (("a red field of one colour",), ("another",))
    assert "what failed is not known" in found.text()


def test_a_folder_without_any_of_it(tmp_path):
    with pytest.raises(UserError, match="There is no folder"):
        take_stock(tmp_path / "none")
    with pytest.raises(UserError, match=r"neither a \.tar nor a picture with a caption"):
        take_stock(tmp_path)
    assert os.listdir(tmp_path) == []

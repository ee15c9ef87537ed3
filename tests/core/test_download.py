"""One file over HTTP, from a server on this machine: whole, or a sentence and no file."""

from __future__ import annotations

import pytest

from picture_server import answer, serving
from sutura.core.download import download
from sutura.core.errors import UserError

BODY = b"a\thttp://x.org/1.jpg\n" * 500


def url(server) -> str:
    return f"http://127.0.0.1:{server.port}/list.tsv"


def test_a_file_arrives_whole_and_tells_how_far_it_is(tmp_path):
    seen: list[tuple[int, int | None]] = []
    with serving(answer(BODY)) as server:
        download(url(server), tmp_path / "x" / "list", instead="", on_bytes=lambda *now: seen.append(now))
    assert (tmp_path / "x" / "list").read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (answer(b"no", status="403 Forbidden"), r"answered 403 Forbidden\. Take it by hand\."),
        (answer(b""), r"sent an empty file\. Take it by hand\."),
        (answer(BODY)[:-100], r"broke off after 10,400 of 10,500 bytes"),
        (b"", "cannot be fetched"),
    ],
)
def test_what_goes_wrong_is_a_sentence_and_leaves_no_file(sent, message, tmp_path):
    (tmp_path / "list").write_text("of yesterday")
    with serving(sent) as server, pytest.raises(UserError, match=message):
        download(url(server), tmp_path / "list", instead="Take it by hand.")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["of yesterday"]


def test_nobody_there_and_no_address(tmp_path):
    with serving(b"") as server:
        pass
    with pytest.raises(UserError, match="cannot be fetched"):
        download(url(server), tmp_path / "list", instead="")
    with pytest.raises(UserError, match="no http or https address"):
        download("file:///etc/hosts", tmp_path / "list", instead="")

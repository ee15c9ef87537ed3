"""Pictures from the web: how long, how much, and what is done with what is no picture."""

from __future__ import annotations

import gzip
import socket
import time

import pytest

from picture_server import HERE, answer, get, judge, png, resolver, serving
from sutura.core.errors import UserError
from sutura.data.remote_image import Limits, fetch, fetch_picture


def test_too_large_is_refused_before_it_is_read() -> None:
    with (
        serving(answer(b"", "Content-Length: 20001", length=False)) as server,
        pytest.raises(UserError, match="larger than 20,000 bytes"),
    ):
        get(server)


@pytest.mark.parametrize("chunked", [False, True])
def test_too_large_without_a_length_is_cut_off(chunked: bool) -> None:
    sent: list[int] = []

    def endless(connection: socket.socket, _: str) -> None:
        head = ("Transfer-Encoding: chunked",) if chunked else ()
        connection.sendall(answer(b"", *head, length=False))
        piece = b"x" * 4096
        while True:
            connection.sendall(b"1000\r\n" + piece + b"\r\n" if chunked else piece)
            sent.append(len(piece))

    with serving(endless) as server, pytest.raises(UserError, match="larger than 20,000 bytes"):
        get(server, limits=Limits(bytes=20_000, seconds=10))


def _drip(connection: socket.socket, start: bytes) -> None:
    connection.sendall(start)
    while True:
        time.sleep(0.02)
        connection.sendall(b"a")


@pytest.mark.parametrize(
    "start",
    [
        answer(b"", "Content-Length: 9000", length=False),
        answer(b"", length=False),
        answer(b"", "Transfer-Encoding: chunked", length=False) + b"fff\r\n",
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        b"",
    ],
    ids=["body", "no length", "chunk", "header", "status line"],
)
def test_a_server_that_drips_forever_is_left(start: bytes) -> None:
    """Fault: a time limit for every read, which one byte a second keeps below for ever."""
    began = time.monotonic()
    with (
        serving(lambda connection, _: _drip(connection, start)) as server,
        pytest.raises(UserError, match=r"longer than 0\.3 seconds"),
    ):
        get(server, limits=Limits(bytes=20_000, seconds=0.3))
    assert time.monotonic() - began < 3


def test_a_silent_server_and_a_silent_resolver_are_left() -> None:
    limits = Limits(seconds=0.3)
    with (
        serving(lambda connection, _: time.sleep(2)) as server,
        pytest.raises(UserError, match=r"longer than 0\.3 seconds"),
    ):
        get(server, limits=limits)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"longer than 0\.3 seconds"):
        fetch("http://pictures.test/x.png", limits=limits, resolve=lambda h, p: time.sleep(5) or [HERE])
    assert time.monotonic() - began < 3


def test_the_time_is_for_all_redirects_together() -> None:
    def slowly(connection: socket.socket, _: str) -> None:
        time.sleep(0.25)
        connection.sendall(answer(b"", "Location: /again", status="302 Found"))

    with serving(slowly) as server, pytest.raises(UserError, match=r"longer than 0\.6 seconds"):
        get(server, limits=Limits(seconds=0.6, redirects=20))
    assert len(server.requests) <= 4


def test_a_page_served_as_a_picture_is_told() -> None:
    page = b"<!doctype html><html><body>Not here</body></html>"
    with serving(answer(page, "Content-Type: image/png")) as server:
        resolve, _ = resolver(HERE)
        with pytest.raises(UserError, match="not a picture"):
            fetch_picture(f"http://pictures.test:{server.port}/x.png", resolve=resolve, judge=judge)


def test_more_pixels_than_are_decoded_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    from sutura.data import images

    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    with serving(answer(png((60, 60)))) as server:
        resolve, _ = resolver(HERE)
        with pytest.raises(UserError, match="60 × 60 pixels; 1,000 is the limit"):
            fetch_picture(f"http://pictures.test:{server.port}/x.png", resolve=resolve, judge=judge)


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip"])
def test_a_packed_file_is_not_unpacked(coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: a few kilobytes of gzip that unpack to gigabytes."""
    monkeypatch.setattr(gzip, "decompress", lambda *_: pytest.fail("unpacked"))
    bomb = gzip.compress(b"\0" * 5_000_000)
    assert len(bomb) < 20_000
    with (
        serving(answer(bomb, f"Content-Encoding: {coding}")) as server,
        pytest.raises(UserError, match="not unpacked"),
    ):
        get(server)


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (answer(b"", status="404 Not Found"), "answers 404 Not Found"),
        (answer(b"", status="503 Busy"), "answers 503 Busy"),
        (answer(png()[:-9] + b"", f"Content-Length: {len(png())}", length=False), "ended after"),
        (b"not http at all\r\n\r\n", "could not be fetched"),
        (b"", "could not be fetched"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "could not be fetched"),
    ],
    ids=["404", "503", "cut short", "no http", "nothing", "200 headers"],
)
def test_what_a_server_does_wrong_is_told(reply: bytes, sentence: str) -> None:
    with serving(reply) as server, pytest.raises(UserError, match=sentence) as told:
        get(server, "/photo.png?key=planted")
    assert "planted" not in str(told.value)


def test_nobody_there_and_no_such_name() -> None:
    with serving(b"") as server:
        port = server.port
    resolve, _ = resolver(HERE)
    with pytest.raises(UserError, match="could not be fetched"):
        fetch(f"http://pictures.test:{port}/x.png", resolve=resolve, judge=judge)

    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(UserError, match=r"does not resolve \(Name or service not known\)"):
        fetch("http://nowhere.test/x.png", resolve=unknown)

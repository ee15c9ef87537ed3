"""Servers on this machine that send pictures, or what is none, to the tests of pictures from the web."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO

from PIL import Image

from sutura.data import remote_image
from sutura.data.remote_image import Limits, fetch, why_refused

HERE = "127.0.0.1"
QUICK = Limits(bytes=20_000, seconds=1.0, redirects=3)
Handle = Callable[[socket.socket, str], None]


def png(size: tuple[int, int] = (6, 4)) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


def answer(body: bytes, *headers: str, status: str = "200 OK", length: bool = True) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, *([f"Content-Length: {len(body)}"] if length else [])]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Server:
    """Answers every request by a function of the connection and the request's text."""

    def __init__(self, handle: Handle) -> None:
        self.listener = socket.create_server((HERE, 0))
        self.port = self.listener.getsockname()[1]
        self.requests: list[str] = []
        self.handle = handle
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection:
            try:
                request = connection.recv(65_536).decode("latin-1")
                self.requests.append(request)
                self.handle(connection, request)
            except OSError:
                return


@contextmanager
def serving(what: bytes | Handle) -> Iterator[Server]:
    handle = what if callable(what) else lambda connection, _: connection.sendall(what)
    server = Server(handle)
    try:
        yield server
    finally:
        server.listener.close()


def judge(address: str) -> str:
    """The real one, but for the address of the tests' own server."""
    return "" if address == HERE else why_refused(address)


def resolver(*answers: str) -> tuple[Callable[[str, int], list[str]], list[str]]:
    """`pictures.test` has these addresses, one after the other; other names are asked of the system."""
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        if host != "pictures.test":
            return remote_image.resolve(host, port)
        return [answers[min(asked.count(host), len(answers)) - 1]]

    return resolve, asked


def get(server: Server, path: str = "/photo.png", limits: Limits = QUICK) -> bytes:
    resolve, _ = resolver(HERE)
    url = f"http://pictures.test:{server.port}{path}"
    return fetch(url, limits=limits, resolve=resolve, judge=judge)

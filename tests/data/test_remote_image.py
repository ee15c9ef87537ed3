"""Pictures from the web: which addresses are connected to, whatever names and redirects say."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from picture_server import HERE, QUICK, Handle, Server, answer, get, judge, png, resolver, serving
from sutura.core.errors import UserError
from sutura.data.handed_picture import open_picture
from sutura.data.remote_image import Limits, fetch, fetch_picture, why_refused


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.9.9.9", "loopback"),
        ("::1", "loopback"),
        ("10.0.0.8", "private"),
        ("172.31.0.1", "private"),
        ("192.168.1.1", "private"),
        ("fd00::1", "private"),
        ("fec0::1", "private"),
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("224.0.0.1", "multicast"),
        ("ff0e::1", "multicast"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("100.64.0.1", "not public"),
        ("240.0.0.1", "private"),
        ("198.51.100.7", "private"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:10.1.2.3", "private"),
        ("::ffff:169.254.169.254", "link-local"),
        ("2002:7f00:1::", "loopback"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("2001:db8::1", "private"),
        ("::7f00:1", "reserved"),
        ("93.184.215.14", ""),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", ""),
        ("::ffff:93.184.215.14", ""),
        ("64:ff9b::5db8:d70e", ""),
    ],
)
def test_only_public_addresses_are_connected_to(address: str, kind: str) -> None:
    assert why_refused(address) == kind


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x.png",
        "http://localhost/x.png",
        "http://2130706433/x.png",  # 127.0.0.1 as one number
        "http://0x7f.1/x.png",
        "http://[::1]/x.png",
        "http://[::ffff:127.0.0.1]/x.png",
        "https://169.254.169.254/latest/meta-data/",
        "http://ⓛocalhost/x.png",
    ],
)
def test_loopback_is_refused_however_it_is_written(url: str) -> None:
    with pytest.raises(UserError, match=r"which is (loopback|link-local)"):
        fetch_picture(url, limits=QUICK)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("file:///etc/hostname", "by http and https, not by 'file'"),
        ("ftp://pictures.test/x.png", "not by 'ftp'"),
        ("gopher://pictures.test/x", "not by 'gopher'"),
        ("ftp://user:secret@pictures.test/x.png", "not by 'ftp'"),
        ("https://pictures.test/x y.png?key=secret", "blanks or control"),
        ("http://user:secret@[::1/x.png", "not a URL"),
        ("http://", "names no host"),
        ("http://user:secret@pictures.test/x.png", "name or password"),
        ("http://pictures.test:99999/x.png", "not a URL"),
        ("http://[::1/x.png", "not a URL"),
        ("http://pictures.test/a b.png", "blanks or control"),
        ("http://pictures.test/x\r\nHost: other", "blanks or control"),
    ],
)
def test_a_url_that_is_none_of_ours_is_refused(url: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as told:
        open_picture(url)
    assert "secret" not in str(told.value)


def test_a_picture_comes_back_whatever_its_header_says() -> None:
    with serving(answer(png(), "Content-Type: text/html")) as server:
        resolve, _ = resolver(HERE)
        url = f"http://pictures.test:{server.port}/a%20b/ü.png?size=1&x=[]#end"
        picture = fetch_picture(url, limits=QUICK, resolve=resolve, judge=judge)
    assert (picture.size, picture.getpixel((0, 0))) == ((6, 4), (200, 30, 30))
    first, *headers = server.requests[0].split("\r\n")
    assert first == "GET /a%20b/%C3%BC.png?size=1&x=%5B%5D HTTP/1.1"
    assert f"Host: pictures.test:{server.port}" in headers
    assert "Accept-Encoding: identity" in headers


def test_the_name_is_resolved_once_and_that_address_is_connected_to() -> None:
    """Fault: a name that is public when it is checked and loopback when it is connected to."""
    resolve, asked = resolver(HERE, "127.0.0.2")
    with serving(answer(png())) as server:
        url = f"http://pictures.test:{server.port}/x.png"
        assert fetch(url, limits=QUICK, resolve=resolve, judge=judge) == png()
    assert asked == ["pictures.test"]
    assert len(server.requests) == 1


def test_one_address_that_is_not_public_refuses_all() -> None:
    with serving(answer(png())) as server, pytest.raises(UserError, match=r"10\.0\.0\.1, which is private"):
        fetch(
            f"http://pictures.test:{server.port}/",
            limits=QUICK,
            resolve=lambda host, port: [HERE, "10.0.0.1"],
            judge=judge,
        )
    assert server.requests == []


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("http://127.0.0.2/x.png", "127.0.0.2, which is loopback"),
        ("//127.0.0.3/x.png", "which is loopback"),
        ("file:///etc/hostname", "not by 'file'"),
        ("http://169.254.169.254/latest/meta-data/", "which is link-local"),
        ("http://[::ffff:10.0.0.1]/x.png", "10.0.0.1|::ffff:a00:1"),
    ],
)
def test_every_redirect_is_judged(status: str, target: str, sentence: str) -> None:
    with (
        serving(answer(b"", f"Location: {target}", status=status)) as server,
        pytest.raises(UserError, match=sentence),
    ):
        get(server)
    assert len(server.requests) == 1


def test_a_redirect_resolves_again_and_is_judged_again() -> None:
    """Fault: the second visit to a name goes unchecked because the first was fine."""
    resolve, asked = resolver(HERE, "127.0.0.2")
    with (
        serving(answer(b"", "Location: /other.png", status="302 Found")) as server,
        pytest.raises(UserError, match=r"127\.0\.0\.2, which is loopback"),
    ):
        fetch(f"http://pictures.test:{server.port}/x.png", limits=QUICK, resolve=resolve, judge=judge)
    assert asked == ["pictures.test"] * 2


def test_redirects_are_followed_and_end() -> None:
    def there(connection: socket.socket, request: str) -> None:
        found = "GET /end" in request
        connection.sendall(answer(png()) if found else answer(b"", "Location: ../end", status="302 Found"))

    with serving(there) as server:
        assert get(server, "/a/b") == png()
    with serving(answer(b"", "Location: /again", status="302 Found")) as server:
        with pytest.raises(UserError, match="redirects more than 3 times"):
            get(server)
        assert len(server.requests) == 4
    with (
        serving(answer(b"", status="302 Found")) as server,
        pytest.raises(UserError, match="without saying where"),
    ):
        get(server)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with the openssl program")
def test_tls_asks_for_the_name_and_checks_the_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: connecting by address loses the server's name, or its certificate is not checked any more."""
    for name in ("pictures.test", "other.test"):
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        command += ["-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
        command += ["-keyout", str(tmp_path / f"{name}.key"), "-out", str(tmp_path / f"{name}.pem")]
        subprocess.run(command, check=True, capture_output=True)
    asked_for: list[str | None] = []

    def secured(name: str) -> Handle:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
        context.sni_callback = lambda _, host, __: asked_for.append(host)

        def handle(connection: socket.socket, _: str) -> None:
            with context.wrap_socket(connection, server_side=True) as wrapped:
                wrapped.recv(65_536)
                wrapped.sendall(answer(png()))

        return handle

    class Secure(Server):
        def _one(self, connection: socket.socket) -> None:
            try:
                self.handle(connection, "")
            except OSError:
                connection.close()

    def from_server(name: str) -> bytes:
        server = Secure(secured(name))
        resolve, _ = resolver(HERE)
        try:
            url = f"https://pictures.test:{server.port}/x.png"
            return fetch(url, limits=Limits(seconds=10), resolve=resolve, judge=judge)
        finally:
            server.listener.close()

    with pytest.raises(UserError, match=r"No secure connection to pictures\.test"):
        from_server("pictures.test")  # nobody vouches for it
    authorities = [tmp_path / "pictures.test.pem", tmp_path / "other.test.pem"]
    trusted = tmp_path / "trusted.pem"
    trusted.write_text("".join(path.read_text() for path in authorities))
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    assert from_server("pictures.test") == png()
    with pytest.raises(UserError, match=r"No secure connection to pictures\.test"):
        from_server("other.test")
    assert set(asked_for) == {"pictures.test"}

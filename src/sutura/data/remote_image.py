"""A picture from the web: fetched from public addresses only, within limits, and decoded as any other.

A URL may come from somebody else, and this machine can reach what that person cannot: services on loopback, a
router, a cloud's metadata. So every URL, the first and each one it redirects to, has its name resolved once, every
address found is judged, and the connection goes to an address that was judged. Resolving again on connecting would let
a name server answer differently the second time (DNS rebinding). Proxies of the environment are not used: they would
resolve the name by themselves.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from PIL import Image

from sutura.core.errors import UserError
from sutura.data.images import BadPicture, decode

Resolve = Callable[[str, int], list[str]]
"""Name and port → addresses as text."""
Judge = Callable[[str], str]
"""Address → why it is not connected to; empty where it may be."""

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 65_536
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Limits:
    """What a picture from the web may take. Pixels are limited by decoding, as for every picture.

    Args:
        bytes: of the file.
        seconds: for all of it, redirects included.
        redirects: followed at most.
    """

    bytes: int = 32 * 2**20
    seconds: float = 20.0
    redirects: int = 5


LIMITS = Limits()


def why_refused(address: str) -> str:
    """Why no connection is made to an address: what kind of address it is; empty for a public one.

    An IPv4 address inside an IPv6 one (mapped, 6to4, NAT64) is judged as itself.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return why_refused(str(inner))
        if ip.is_site_local:
            return "private"
    for kind in ("loopback", "link_local", "multicast", "unspecified", "private", "reserved"):
        if getattr(ip, f"is_{kind}"):
            return kind.replace("_", "-")
    return "" if ip.is_global else "not public"


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system's resolver gives them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def fetch_picture(
    url: str, *, limits: Limits = LIMITS, resolve: Resolve = resolve, judge: Judge = why_refused
) -> Image.Image:
    """The picture at a URL, in RGB. What it is, decoding says, whatever its headers claim.

    Raises:
        UserError: as `fetch`, or no picture that can be decoded safely.
    """
    data = fetch(url, limits=limits, resolve=resolve, judge=judge)
    try:
        return decode(data)
    except BadPicture as error:
        raise UserError(
            f"What {_shown(urlsplit(url))} sends cannot be used: {error}. Give the URL of a PNG, JPEG or WebP file "
            "itself, not of a page that shows it."
        ) from None


def fetch(
    url: str, *, limits: Limits = LIMITS, resolve: Resolve = resolve, judge: Judge = why_refused
) -> bytes:
    """The bytes at a URL.

    Args:
        url: http or https.
        limits: size, time, redirects.
        resolve: finds addresses; another one for tests only.
        judge: refuses addresses; another one for tests only.

    Raises:
        UserError: another scheme, a URL with a password or without a host, a name that does not resolve, an address
            that is not public, too many redirects, too slow, too large, cut short, compressed, or an HTTP error.
    """
    deadline = _Deadline(limits.seconds)
    for _ in range(limits.redirects + 1):
        parts = _parts(url)
        try:
            found = _get(parts, limits, deadline, resolve, judge)
        except UserError:
            raise
        except TimeoutError:
            raise UserError(
                f"{_shown(parts)} took longer than {limits.seconds:g} seconds. Download the picture and give the file."
            ) from None
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or error.reason or str(error)
            raise UserError(
                f"No secure connection to {parts.hostname}: {reason}. Certificates have to be trusted."
            ) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            said = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise UserError(
                f"{_shown(parts)} could not be fetched: {said}. Check the URL and the network; proxies are not used."
            ) from None
        if isinstance(found, bytes):
            return found
        url = urljoin(url, found)
    raise UserError(f"The URL redirects more than {limits.redirects} times; give the picture's own URL.")


class _Deadline:
    """Seconds left of a fixed time."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Wire(io.RawIOBase):
    """Reads a socket. The time left is set anew for every read, or a server that drips would never be too slow."""

    def __init__(self, sock: socket.socket, deadline: _Deadline) -> None:
        self.sock, self.deadline = sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.sock.settimeout(self.deadline.left())
        return self.sock.recv_into(buffer)


class _Timed:
    """As much of a socket as http.client uses, under a deadline."""

    def __init__(self, sock: socket.socket, deadline: _Deadline) -> None:
        self.sock, self.deadline = sock, deadline

    def sendall(self, data: bytes) -> None:
        self.sock.settimeout(self.deadline.left())
        self.sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Wire(self.sock, self.deadline), _CHUNK)

    def close(self) -> None:
        """Left to whoever opened the socket: http.client closes it before the answer is read."""


def _parts(url: str) -> SplitResult:
    if re.search(r"[\x00-\x20\x7f]", url):
        raise UserError(f"The URL {_brief(url)} holds blanks or control characters; write %20 for a blank.")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UserError(f"{_brief(url)} is not a URL: {error}.") from None
    if parts.scheme not in _PORTS:
        raise UserError(
            f"{_brief(url)}: pictures are fetched by http and https, not by {parts.scheme or 'nothing'!r}. "
            "Give a file's path as it is."
        )
    if not host:
        raise UserError(f"{_brief(url)} names no host.")
    if parts.username is not None or parts.password is not None:
        raise UserError(f"The URL of {host} holds a user's name or password; give one without.")
    return parts


def _get(
    parts: SplitResult, limits: Limits, deadline: _Deadline, resolve: Resolve, judge: Judge
) -> bytes | str:
    """The body, or where the server redirects to."""
    host, port = _host(parts), parts.port or _PORTS[parts.scheme]
    addresses = _judged(host, port, deadline, resolve, judge)
    sock = _connect(addresses, host if parts.scheme == "https" else "", port, deadline)
    try:
        connection = http.client.HTTPConnection(host, port)
        connection.default_port = _PORTS[parts.scheme]  # left out of the Host header, as browsers do
        connection.sock = _Timed(sock, deadline)  # type: ignore[assignment]
        connection.request("GET", _target(parts), headers=_headers())
        response = connection.getresponse()
        if response.status in _REDIRECTS:
            return _location(response, parts)
        if response.status != 200:
            raise UserError(
                f"{_shown(parts)} answers {response.status} {response.reason}; open it in a browser to see why."
            )
        return _body(response, parts, limits)
    finally:
        sock.close()


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        raise UserError(f"{host!r} is no name of a host.") from None


def _judged(host: str, port: int, deadline: _Deadline, resolve: Resolve, judge: Judge) -> list[str]:
    """Addresses of a host, all of which may be connected to."""
    addresses = _in_time(lambda: resolve(host, port), deadline)
    for address in addresses:
        if reason := judge(address):
            raise UserError(
                f"{host} has the address {address}, which is {reason}. Only public addresses are fetched from; "
                "download it and give the file."
            )
    if not addresses:
        raise UserError(f"{host} has no address. Check the URL.")
    return addresses


def _in_time(find: Callable[[], list[str]], deadline: _Deadline) -> list[str]:
    """The system's resolver knows no time limit; it runs beside and is left behind when it takes too long."""
    found: list[list[str]] = []
    failed: list[OSError | UnicodeError] = []

    def work() -> None:
        try:
            found.append(find())
        except (OSError, UnicodeError) as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(deadline.left())
    if failed:
        raise OSError(f"the name does not resolve ({getattr(failed[0], 'strerror', None) or failed[0]})")
    if not found:
        raise TimeoutError
    return found[0]


def _connect(addresses: list[str], secure_host: str, port: int, deadline: _Deadline) -> socket.socket:
    """A connection to the first address that takes one; addresses are numbers here, nothing is resolved."""
    failure: OSError = OSError("no connection")
    for address in addresses[:4]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(deadline.left())
            sock.connect((address, port))
            if secure_host:
                sock.settimeout(deadline.left())
                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=secure_host)
            return sock
        except (TimeoutError, ssl.SSLError):
            sock.close()
            raise
        except OSError as error:
            sock.close()
            failure = error
    raise failure


def _target(parts: SplitResult) -> str:
    from urllib.parse import quote

    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    return f"{path}?{query}" if query else path


def _headers() -> dict[str, str]:
    from sutura import __version__

    return {
        "User-Agent": f"sutura/{__version__}",
        "Accept": "image/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }


def _location(response: http.client.HTTPResponse, parts: SplitResult) -> str:
    location = response.getheader("Location")
    if not location:
        raise UserError(f"{_shown(parts)} redirects ({response.status}) without saying where to.")
    return location.strip()


def _body(response: http.client.HTTPResponse, parts: SplitResult, limits: Limits) -> bytes:
    packed = (response.getheader("Content-Encoding") or "identity").strip().lower()
    if packed != "identity":
        raise UserError(
            f"{_shown(parts)} sends its file packed ({packed[:40]}) though it was asked not to; it is not unpacked. "
            "Download the picture and give the file."
        )
    too_large = UserError(
        f"{_shown(parts)} is larger than {limits.bytes:,} bytes. Download it, make it smaller, give the file."
    )
    expected = response.length  # of Content-Length; None for chunks and for "until the connection ends"
    if expected is not None and expected > limits.bytes:
        raise too_large
    parts_read: list[bytes] = []
    count = 0
    while expected is None or count < expected:
        piece = response.read1(_CHUNK)
        if not piece:
            break
        parts_read.append(piece)
        count += len(piece)
        if count > limits.bytes:
            raise too_large
    if expected is not None and count < expected:
        raise UserError(f"{_shown(parts)} ended after {count:,} of {expected:,} bytes. Try again.")
    return b"".join(parts_read)


def _brief(url: str) -> str:
    """A URL that is none of ours, for a message: without its query and without a name or password."""
    return repr(re.sub(r"//[^/]*@", "//", re.split(r"[?#]", url, maxsplit=1)[0])[:80])


def _shown(parts: SplitResult) -> str:
    """A URL for a message: without its query, which may hold somebody's key."""
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"[:120]

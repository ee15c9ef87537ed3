"""One file over HTTP: it is there whole, or not at all, and what went wrong is a sentence."""

from __future__ import annotations

import errno
import http.client
from collections.abc import Callable
from pathlib import Path

from sutura.core.checkpoint import atomic_file
from sutura.core.errors import UserError

_BLOCK = 1 << 20
#: Seconds without a byte.
_PATIENCE = 60.0


def download(
    url: str, path: Path, *, instead: str, on_bytes: Callable[[int, int | None], None] | None = None
) -> None:
    """Fetch a file that the program itself names; for addresses of other people see `data.remote_image`.

    Args:
        url: http or https.
        path: where the file goes; it is not touched before the last byte is there.
        instead: ends every error: what the reader can do.
        on_bytes: called with bytes so far, and how many there will be where the server says so.

    Raises:
        UserError: no connection, a refusal, a connection that broke off, or no space left.
    """
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url!r} is no http or https address. {instead}")
    request = Request(url, headers={"User-Agent": "sutura", "Accept-Encoding": "identity"})
    try:
        with atomic_file(path) as temporary:
            with urlopen(request, timeout=_PATIENCE) as answer, temporary.open("wb") as file:
                length = answer.headers.get("Content-Length", "")
                total, done = int(length) if length.isdigit() else None, 0
                while block := answer.read(_BLOCK):
                    file.write(block)
                    done += len(block)
                    if on_bytes is not None:
                        on_bytes(done, total)
            if total is not None and done != total:
                raise UserError(f"{url} broke off after {done:,} of {total:,} bytes. Run it again. {instead}")
            if not done:
                raise UserError(f"{url} sent an empty file. {instead}")
    except HTTPError as error:
        raise UserError(f"{url} answered {error.code} {error.reason}. {instead}") from None
    except (URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise UserError(f"{url} cannot be fetched: {reason or type(error).__name__}. {instead}") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(f"No space left in {path.parent} while fetching {url}.") from None
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from None

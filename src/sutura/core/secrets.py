"""Secrets: read from `.env` or the environment, handed on through the environment alone, and never shown."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sutura.core.errors import UserError

#: What is read from `.env`; any other line of it belongs to another program.
NAMES = ("HF_TOKEN", "WANDB_API_KEY", "HF_REPO_ID")
#: Keys of the services used here; whatever else in the environment is called like a secret is hidden too.
SECRET = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")
HIDDEN = "(hidden)"
#: A shorter value is no key, and hiding it would blank ordinary words.
SHORTEST = 8
#: Bytes; a larger `.env` is something else.
LARGEST = 2**20

_NAME = re.compile(
    r"(^|[^a-z])(token|api_?key|access_?key|secret(_?key)?|password|passwd|credentials?|authorization)$"
)
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*)")


def read_env(path: Path = Path(".env")) -> list[str]:
    """Set what `.env` says, where the environment does not say it already.

    Lines are `KEY=value`, with or without `export` and quotes; `#` begins a comment. Only NAMES are taken.

    Returns:
        The names that were set.

    Raises:
        UserError: a line that is none of these, told by its number, or a key with a character that no key has. The
            value is never repeated.
    """
    found: list[str] = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise UserError(f"Line {number} of {path} is not of the form KEY=value (it is not shown here).")
        name, value = match[1], _value(match[2])
        if name in NAMES and value and not os.environ.get(name):
            _check(name, value)
            os.environ[name] = value
            found.append(name)
    for name in SECRET:
        _check(name, os.environ.get(name, "").strip())
    return found


def _check(name: str, value: str) -> None:
    """Keys travel in the headers of requests, which hold printable ASCII."""
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise UserError(
            f"{name} holds a space or another character that no key has (it is not shown here). "
            "Copy the key again, in one piece."
        )


def _lines(path: Path) -> list[str]:
    try:
        if not path.is_file():
            return []
        if path.stat().st_size > LARGEST:
            raise UserError(
                f"{path} has more than {LARGEST:,} bytes, which no file of keys has; it was not read."
            )
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text ({type(error).__name__}).") from None


def _value(text: str) -> str:
    text = text.strip()
    if text[:1] in ("'", '"') and text.find(text[0], 1) > 0:
        return text[1 : text.find(text[0], 1)]
    return text.partition(" #")[0].strip()


def looks_secret(name: str) -> bool:
    """Whether a setting's name says that its value is nobody's business; `max_tokens` does not."""
    return _NAME.search(name.lower().replace("-", "_")) is not None


def secrets() -> dict[str, str]:
    """Name → value of every secret there is: those of the environment, and the Hub's saved token."""
    found = {name: value.strip() for name, value in os.environ.items() if looks_secret(name)}
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    saved = os.environ.get("HF_TOKEN_PATH") or f"{os.environ.get('HF_HOME') or f'{cache}/huggingface'}/token"
    with contextlib.suppress(OSError, UnicodeDecodeError, RuntimeError):
        path = Path(os.path.expandvars(saved)).expanduser()
        found["the saved Hub token"] = path.read_text(encoding="utf-8").strip()
    return {name: value for name, value in found.items() if len(value) >= SHORTEST}


def hide(text: str) -> str:
    """The text with every secret in it replaced; the longest first, since one may begin with another."""
    for value in sorted(secrets().values(), key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return text


def command_line() -> str:
    """What was typed, to be written down."""
    return hide(shlex.join(["sutura", *sys.argv[1:]]))


def masked(values: Any, name: str = "") -> Any:
    """Plain data without secrets: neither what stands under the name of one, nor one inside a text."""
    if isinstance(values, Mapping):
        return {key: masked(value, str(key)) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [masked(value, name) for value in values]
    if values is not None and looks_secret(name):
        return HIDDEN
    return hide(values) if isinstance(values, str) else values


def refuse_secrets(folder: Path) -> None:
    """Raises UserError when a file under a folder holds a secret; the file is named, the secret is not."""
    known = {name: value.encode() for name, value in secrets().items()}
    for path in sorted(p for p in folder.rglob("*") if known and p.is_file() and p.stat().st_size):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            held = [name for name, value in known.items() if content.find(value) >= 0]
        if held:
            raise UserError(
                f"{path.relative_to(folder)} holds the value of {held[0]}; nothing was sent. Take it out of that "
                "file, and renew the key if the file was shared."
            )

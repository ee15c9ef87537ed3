"""Secrets: read from `.env` or the environment, handed on through the environment alone, and never shown."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
from pathlib import Path

from sutura.core.errors import UserError

#: What is read from `.env`; any other line of it belongs to another program.
NAMES = ("HF_TOKEN", "WANDB_API_KEY", "HF_REPO_ID")
#: Of those, and of older names, what nobody may see.
SECRET = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")
HIDDEN = "(hidden)"
#: A shorter value is no key, and hiding it would blank ordinary words.
SHORTEST = 8

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
            os.environ[name] = value
            found.append(name)
    for name in SECRET:
        if not os.environ.get(name, "").strip().isprintable() or " " in os.environ.get(name, "").strip():
            raise UserError(
                f"{name} holds a space or another character that no key has (it is not shown here). "
                "Copy the key again, in one piece."
            )
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text ({type(error).__name__}).") from None


def _value(text: str) -> str:
    text = text.strip()
    if text[:1] in ("'", '"') and text.find(text[0], 1) > 0:
        return text[1 : text.find(text[0], 1)]
    return text.partition(" #")[0].strip()


def secrets() -> dict[str, str]:
    """Name → value of every secret there is, the Hub's saved token included."""
    found = {name: os.environ.get(name, "").strip() for name in SECRET}
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    saved = Path(os.environ.get("HF_TOKEN_PATH") or home / "token")
    with contextlib.suppress(OSError, UnicodeDecodeError):
        found["the saved Hub token"] = saved.read_text(encoding="utf-8").strip()
    return {name: value for name, value in found.items() if len(value) >= SHORTEST}


def hide(text: str) -> str:
    """The text with every secret in it replaced."""
    for value in secrets().values():
        text = text.replace(value, HIDDEN)
    return text


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

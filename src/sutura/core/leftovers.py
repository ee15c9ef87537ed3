"""What a killed process left half-written: told by its name, and cleared away at the next run."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import time
from functools import cache
from pathlib import Path

from sutura.core.terminal import say

#: Seconds without a change after which something unfinished counts as left behind even where its process
#: cannot be asked after (another machine's) or its number is in use again.
UNTOUCHED = 24 * 3600.0

_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_NAME = re.compile(r"\.(?P<name>.+)\.sutura-(?P<kind>new|old)-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-.+")


def unfinished(path: Path, kind: str = "new") -> str:
    """How the name of something begins that will be `path`, or was until now (`old`), and whose it is."""
    return f".{path.name}.sutura-{kind}-{_HOST}-{os.getpid()}-"


@cache
def clear_away(folder: Path) -> None:
    """Remove what dead processes left unfinished in a folder; looked for once in the life of this process.

    A finished directory that was moved aside and never got its successor is moved back.
    """
    cleared = [name for path in sorted(folder.glob(".*.sutura-*")) if (name := _clear(path))]
    if cleared:
        say(f"{folder}: cleared away what a killed run left unfinished ({', '.join(cleared)})")


def _clear(path: Path) -> str:
    """Remove one thing if nobody is at work on it; what it would have become, or nothing."""
    match = _NAME.fullmatch(path.name)
    if match is None or not _abandoned(path, match["host"], int(match["pid"])):
        return ""
    final = path.with_name(match["name"])
    if match["kind"] == "old" and not final.exists() and (path / final.name).exists():
        (path / final.name).rename(final)
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return "" if path.exists() else final.name


def _abandoned(path: Path, host: str, pid: int) -> bool:
    if host == _HOST and pid == os.getpid():
        return False
    if host == _HOST and not _alive(pid):
        return True
    return time.time() - _last_change(path) > UNTOUCHED


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # there, and somebody else's
        return True
    return True


def _last_change(path: Path) -> float:
    """Time of the newest change in a file or anywhere in a directory."""
    times = [0.0]
    for one in (path, *path.rglob("*")):
        try:
            times.append(one.stat().st_mtime)
        except FileNotFoundError:  # finished or cleared away by its own process just now
            return time.time()
    return max(times)

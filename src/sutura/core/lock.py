"""One process at a time: a lock on a file, which the system gives up when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sutura.core.processes import Processes

#: Seconds between two tries while waiting.
PAUSE = 0.2


@contextmanager
def locked(path: Path, *, wait: bool = True, on_wait: Callable[[], None] | None = None) -> Iterator[bool]:
    """Hold the lock of a file for the length of the block; the file is there only while somebody holds it.

    The lock belongs to the open file and not to a process number written down somewhere: one left by a killed
    process is free at once, and nothing stale has to be told from something alive. Among several machines it
    holds where their shared file system passes flock on.

    Args:
        path: of the lock file, beside what it guards.
        wait: until the holder is done. Otherwise the block runs at once, told that the lock is not held.
        on_wait: called once when there is somebody to wait for.

    Yields:
        Whether the lock is held.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _take(path)
    if handle is None and wait and on_wait is not None:
        on_wait()
    while handle is None and wait:
        time.sleep(PAUSE)
        handle = _take(path)
    if handle is None:
        yield False
        return
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)  # before it is released, so that nobody else's file is removed
        os.close(handle)


@contextmanager
def locked_for_all(
    path: Path, team: Processes, *, wait: bool = True, on_wait: Callable[[], None] | None = None
) -> Iterator[bool]:
    """`locked`, taken by the first process of a run for all of them."""
    with ExitStack() as stack:
        yield team.from_first(lambda: stack.enter_context(locked(path, wait=wait, on_wait=on_wait)))


def _take(path: Path) -> int | None:
    """An open file under lock, or None when somebody else holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = _is(path, handle)
    except BlockingIOError:
        held = False
    if not held:
        os.close(handle)
        return None
    return handle


def _is(path: Path, handle: int) -> bool:
    """Whether the open file is still the one at the path; the holder before may have removed it since."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(handle)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

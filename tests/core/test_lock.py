"""Two processes at one piece of work: one does it, the other knows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sutura.core import lock
from sutura.core.lock import locked

HOLD = """
import sys, time
from pathlib import Path
from sutura.core.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""
COUNT = """
import sys
from pathlib import Path
from sutura.core import lock
lock.PAUSE = 0.001
count = Path(sys.argv[2])
for _ in range(20):
    with lock.locked(Path(sys.argv[1])):
        number = int(count.read_text())
        count.write_text("")
        count.write_text(str(number + 1))
"""
Holder = Callable[[Path], subprocess.Popen[str]]


@pytest.fixture
def holder() -> Iterator[Holder]:
    """Starts another process that holds a lock until it is told to stop, or is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(path: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_held_lock_is_seen_by_another_process(tmp_path: Path, holder: Holder) -> None:
    path = tmp_path / "cells" / ".a.lock"
    process = holder(path)
    with locked(path, wait=False) as held:
        assert not held
    assert path.exists(), "somebody else's lock file was removed"
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    with locked(path) as held:
        assert held
    assert not path.exists()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path, holder: Holder) -> None:
    """A hard kill leaves the file; it must not lock anybody out."""
    path = tmp_path / ".a.lock"
    process = holder(path)
    process.kill()
    process.wait()
    assert path.exists()
    with locked(path, wait=False) as held:
        assert held
    assert not path.exists()


def test_no_increment_is_lost_between_processes(tmp_path: Path) -> None:
    """The file comes and goes under contention, and still only one process is inside at a time."""
    path, count = tmp_path / ".n.lock", tmp_path / "count"
    count.write_text("0")
    arguments = [sys.executable, "-c", COUNT, str(path), str(count)]
    processes = [subprocess.Popen(arguments) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert count.read_text() == "60"


def test_waiting_ends_when_the_holder_does(
    tmp_path: Path, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pauses = tmp_path / ".a.lock", []
    process = holder(path)

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            process.kill()
            process.wait()

    monkeypatch.setattr(lock.time, "sleep", pause)
    with locked(path) as held:
        assert held
    assert len(pauses) >= 2


def test_an_error_inside_gives_the_lock_back(tmp_path: Path) -> None:
    def fails() -> None:
        with locked(tmp_path / ".a.lock"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    with locked(tmp_path / ".a.lock", wait=False) as held:
        assert held


def test_a_file_removed_while_it_was_being_locked_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder before removes its file between our opening it and our lock: a lock nobody else can see."""
    path, flock, calls = tmp_path / ".a.lock", lock.fcntl.flock, []

    def removed_first(handle: int, how: int) -> None:
        calls.append(handle)
        if len(calls) == 1:
            path.unlink()
        flock(handle, how)

    monkeypatch.setattr(lock.fcntl, "flock", removed_first)
    monkeypatch.setattr(lock, "PAUSE", 0.0)
    with locked(path) as held:
        assert held
        assert path.exists()
    assert len(calls) == 2


def test_the_file_is_gone_before_the_lock_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other way round, the file of the next holder would be removed."""
    path, close, there = tmp_path / ".a.lock", lock.os.close, []

    def closing(handle: int) -> None:
        there.append(path.exists())
        close(handle)

    monkeypatch.setattr(lock.os, "close", closing)
    with locked(path):
        pass
    monkeypatch.undo()
    assert there == [False]

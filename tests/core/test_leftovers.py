"""What a hard kill leaves behind is gone after the next run; what somebody is at work on is not touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sutura.core import leftovers
from sutura.core.checkpoint import atomic_directory, atomic_file, write_json
from sutura.core.leftovers import clear_away, unfinished

WRITE = """
import sys
from pathlib import Path
from sutura.core.checkpoint import atomic_directory, atomic_file
place = Path(sys.argv[1])
with atomic_directory(place / "features") as folder, atomic_file(place / "hashes.npz") as file:
    (folder / "features.bin").write_bytes(bytes(1000))
    print("writing", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def _next_run() -> None:
    """Every test is a process of its own to the look that is taken once."""
    clear_away.cache_clear()


def writing(place: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def hidden(place: Path) -> list[str]:
    return sorted(path.name.split("-")[0] for path in place.iterdir() if path.name.startswith("."))


def test_what_a_killed_process_left_is_cleared_by_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under another name too: a killed feature cache is rarely asked for again by the same key."""
    process = writing(tmp_path)
    assert hidden(tmp_path) == [".features.sutura", ".hashes.npz.sutura"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert hidden(tmp_path) == [".features.sutura", ".hashes.npz.sutura"]
    with atomic_directory(tmp_path / "other") as folder:
        (folder / "a").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    assert "left unfinished (features, hashes.npz)" in " ".join(capsys.readouterr().err.split())


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    process = writing(tmp_path)
    try:
        write_json(tmp_path / "a.json", 1)
        assert hidden(tmp_path) == [".features.sutura", ".hashes.npz.sutura"]
        process.communicate("\n", timeout=30)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "features", "hashes.npz"]
    finally:
        process.kill()
        process.wait()


def test_another_machines_work_is_left_alone_for_a_day(tmp_path: Path) -> None:
    """Its process cannot be asked after, so the files' age decides: the youngest of them."""
    place = tmp_path / unfinished(tmp_path / "run").replace(leftovers._HOST, "0123abcd")
    place.with_name(place.name + "x").mkdir()
    place = place.with_name(place.name + "x")
    (place / "features.bin").touch()
    day_ago = os.stat(place).st_mtime - leftovers.UNTOUCHED - 60
    os.utime(place, (day_ago, day_ago))
    clear_away(tmp_path)
    assert place.exists()
    os.utime(place / "features.bin", (day_ago, day_ago))
    os.utime(place, (day_ago, day_ago))
    clear_away.cache_clear()
    clear_away(tmp_path)
    assert not place.exists()


def test_a_directory_moved_aside_by_a_killed_process_comes_back(tmp_path: Path) -> None:
    """Killed between moving the old one aside and the new one into place: neither may be lost."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    aside = tmp_path / (
        unfinished(tmp_path / "zoo", "old").replace(f"-{os.getpid()}-", f"-{gone.pid}-") + "x"
    )
    (aside / "zoo").mkdir(parents=True)
    (aside / "zoo" / "weights").write_text("the only copy")
    clear_away(tmp_path)
    assert (tmp_path / "zoo" / "weights").read_text() == "the only copy"
    assert hidden(tmp_path) == []


def test_only_our_own_names_are_touched(tmp_path: Path) -> None:
    kept = [".git", ".a.partial", ".zoo.sutura-notes", ".config.internal", ".b.lock"]
    for name in kept:
        (tmp_path / name).mkdir()
    clear_away(tmp_path)
    with atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "a.txt"])

"""Features computed by several: shared out within a run, waited for between runs, and a disk that is full."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from encoders.cache_worker import fill
from sutura.core.errors import UserError
from sutura.encoders import cache
from two_processes import run_two


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def two(place: Path) -> list[dict[str, Any]]:
    return run_two(Path(__file__).with_name("cache_worker.py"), place)


@pytest.mark.parametrize("pictures", [20, 7, 2, 0])
def test_two_processes_leave_the_bytes_of_one(
    two: list[dict[str, Any]], place: Path, tmp_path: Path, pictures: int
) -> None:
    """Uneven shares, one of them empty, unreadable pictures in both; each picture encoded once."""
    alone = fill(tmp_path, pictures)
    for told in two:
        found = told[str(pictures)]
        assert torch.equal(found["rows"], alone["rows"])
        assert found["ids"] == alone["ids"]
        assert found["unreadable"] == alone["unreadable"]
        assert sorted(p.name for p in Path(found["place"]).iterdir()) == [cache.ROWS, cache.INDEX]
        mine, theirs = (Path(where) / cache.ROWS for where in (found["place"], alone["place"]))
        assert mine.read_bytes() == theirs.read_bytes()
    assert sum(told[str(pictures)]["encoded"] for told in two) == alone["encoded"]
    if pictures == 20:
        assert min(told["20"]["encoded"] for told in two) > 5, "one process did it all"


def test_a_second_time_nothing_is_encoded(two: list[dict[str, Any]]) -> None:
    assert [told["again"] for told in two] == [0, 0]


def test_a_disk_that_is_full_for_one_stops_both(two: list[dict[str, Any]], place: Path) -> None:
    """Nothing half-written stays, and the next run computes it all."""
    for told in two:
        assert "Process 1 of 2: The disk is full" in told["full"]
        assert told["left"] == []
    assert sum(told["after"] for told in two) == 16


def test_two_runs_do_not_compute_the_same_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: feature caching is not locked. The second waits, says so, and reads what the first one left."""
    said: list[str] = []
    monkeypatch.setattr(cache, "say", said.append)
    encoding = threading.Event()
    real, runs, found = cache._encode, [], []

    def slow(*given: Any) -> Any:
        runs.append(threading.get_ident())
        encoding.set()
        time.sleep(0.3)
        return real(*given)

    monkeypatch.setattr(cache, "_encode", slow)
    threads = [threading.Thread(target=lambda: found.append(fill(tmp_path, 7))) for _ in range(2)]
    threads[0].start()
    assert encoding.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 2
    assert torch.equal(found[0]["rows"], found[1]["rows"])
    assert len(set(runs)) == 1, "both computed"
    assert said == ["tiny: another run is computing these features; waiting for it"]
    assert [path.name for path in tmp_path.iterdir()] == [Path(found[0]["place"]).name], (
        "the lock stays behind"
    )


@pytest.mark.parametrize("step", ["rows", "flush", "index", "lock"])
def test_a_full_disk_at_any_step_leaves_the_other_caches_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """ENOSPC from the write itself, from the index's flush, from its first byte, or from the lock file."""
    older = fill(tmp_path, 7)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*given: Any, **named: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    if step == "rows":
        monkeypatch.setattr(cache, "_encode", full)
    elif step == "flush":
        monkeypatch.setattr(os, "fsync", full)
    elif step == "index":
        monkeypatch.setattr(cache, "write_json", full)
    else:
        monkeypatch.setattr(os, "open", full)
    with pytest.raises(UserError, match=r"disk is full.*Nothing half-written was kept"):
        fill(tmp_path, 20)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert torch.equal(fill(tmp_path, 7)["rows"], older["rows"])
    assert fill(tmp_path, 20)["encoded"] == 16

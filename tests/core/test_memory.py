"""A cell's peak is its own and not that of the cell before it in the same worker."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest

from sutura.core import memory
from sutura.core.memory import PeakMemory

MB = 1 << 20


def hold(megabytes: int) -> None:
    """Touch so much memory and give all of it back to the system."""
    with mmap.mmap(-1, megabytes * MB) as block:
        for start in range(0, megabytes * MB, mmap.PAGESIZE):
            block[start] = 1


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/clear_refs is Linux's")
def test_an_earlier_peak_is_forgotten() -> None:
    """Fault: the peak of a cell inherits that of the worker's earlier cells."""
    first = PeakMemory.watch()
    if first.whose != "cell":
        pytest.skip("/proc/self/clear_refs cannot be written here")
    before = first.megabytes()
    hold(300)
    assert first.megabytes() >= before + 280
    second = PeakMemory.watch()
    hold(50)
    assert before + 40 <= second.megabytes() < before + 200


def test_where_nothing_can_be_forgotten_the_peak_is_said_to_be_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "_FORGET", tmp_path / "none" / "clear_refs")
    peak = PeakMemory.watch()
    assert peak.whose == "process"
    assert 5 < peak.megabytes() < 1_000_000

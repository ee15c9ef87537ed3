"""Two comparisons that share cells: neither computes what the other is at work on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sutura.compare import cell as cell_module
from sutura.compare import engine
from sutura.compare.cell import run_cell
from sutura.compare.grid import CELL, Cell, cell_directory

HOLD = """
import sys
from pathlib import Path
from sutura.core.lock import locked
final = Path(sys.argv[1])
with locked(final.with_name(f".{final.name}.lock")):
    print("held", flush=True)
    sys.stdin.readline()
    final.mkdir()
    (final / "cell.json").write_text("{}")
"""


def a_cell(seed: int) -> Cell:
    return Cell("blind", None, None, seed, {"seed": seed})


@pytest.fixture
def other(tmp_path: Path) -> Any:
    """Another process at work on the cell of seed 0, which it finishes when told."""
    final = cell_directory(tmp_path, a_cell(0))
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(final)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seeds of the cells that were computed here; the computing is left out."""
    seeds: list[int] = []

    def run(cell: Cell, config: Any, inputs: Any, device: str, report: Any, final: Path) -> None:
        seeds.append(cell.seed)
        final.mkdir(parents=True)
        (final / CELL).write_text("{}")

    monkeypatch.setattr(cell_module, "_run", run)
    return seeds


def settings(runs: Path) -> Any:
    parts = {"workers": 0, "threads": None, "device": "cpu"}
    return SimpleNamespace(runs=str(runs), engine=SimpleNamespace(**parts))


def finish(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_cell_of_another_process_is_not_computed_twice(
    tmp_path: Path, other: Any, computed: list[int]
) -> None:
    told: list[str] = []
    arguments: Any = (a_cell(0), settings(tmp_path), None, "cpu", lambda what, *_: told.append(what))
    assert run_cell(*arguments, wait=False) is False
    finish(other)
    assert run_cell(*arguments) is True
    assert told == ["waiting for another process"]
    assert computed == []
    assert not list((tmp_path / "cells").glob(".*.lock"))


def test_a_cell_whose_process_died_is_computed_here(tmp_path: Path, other: Any, computed: list[int]) -> None:
    other.kill()
    other.wait()
    assert run_cell(a_cell(0), settings(tmp_path), None, "cpu", lambda *_: None, wait=False)  # type: ignore[arg-type]
    assert computed == [0]


def test_other_cells_go_first(
    tmp_path: Path, other: Any, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy cell is put off with a sentence, and taken from the process that finished it."""
    said: list[str] = []

    def told(words: str) -> None:
        said.append(words)
        if "seed 2: done" in words:
            finish(other)

    monkeypatch.setattr(engine, "say", told)
    jobs: Any = [engine.Job(a_cell(seed), (), None) for seed in (0, 1, 2)]  # type: ignore[arg-type]
    engine.run_jobs(jobs, settings(tmp_path))
    assert computed == [1, 2]
    assert "another process is at work on this cell" in said[0]
    assert [line.split(":")[0] for line in said[1:]] == ["blind · seed 1", "blind · seed 2", "blind · seed 0"]

"""One of two processes of a comparison that sends its cells: `run_worker.py RANK FOLDER`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sutura.compare.config import CompareConfig
from sutura.compare.grid import Cell
from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.hub import run as module
from two_processes import answer, refused


def config(folder: Path) -> CompareConfig:
    values = {
        "name": "toy",
        "encoders": ["zoo:clip"],
        "data": {"train": {"limit": 2}, "test": [{"benchmark": "world/test"}]},
        "hub": {"push": True, "repo": "me/toy"},
        "runs": str(folder / "runs"),
    }
    return parse(CompareConfig, values)


def work(rank: int, folder: Path) -> dict[str, Any]:
    asked: list[str] = []
    finished: list[str] = []

    def compare(given: CompareConfig, *, command: str, on_cell: Callable[[Cell], None] | None) -> Path:
        assert on_cell is not None
        on_cell(Cell("blind", None, None, 0, {"seed": 0}))
        finished.append("cell")
        return Path(given.runs) / "toy" / "report.md"

    def push(path: Path, repo: str | None, **options: Any) -> str:
        asked.append("push cells" if path.parent.name == "cells" else "push runs")
        return ""

    def refuse(told: str) -> Callable[..., Any]:
        def no(*given: Any, **options: Any) -> None:
            raise UserError(told)

        return no

    module.compare, module.push = compare, push
    module.ready = lambda repo, **options: asked.append(f"ready {repo}")
    module.take_cells = lambda repo, runs: asked.append(f"take {repo}")
    told: dict[str, Any] = {"path": str(module.run(config(folder), from_hub="me/other")), "asked": [*asked]}
    finished.clear()
    module.push = refuse("This was not to be sent.")
    told["refused at the end"] = refused(lambda: module.run(config(folder)))
    told["went on"] = bool(finished)
    module.ready = refuse("'me/toy' may not be written to.")
    told["refused at once"] = refused(lambda: module.run(config(folder)))
    return told


if __name__ == "__main__":
    answer(work)

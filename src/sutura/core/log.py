"""What a run says: lines and progress on the terminal, metrics as JSON lines on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sutura.core.checkpoint import atomic_file
from sutura.core.processes import launched
from sutura.core.secrets import hide

#: Of several processes of one run, the first speaks for all.
console = Console(stderr=True, highlight=False, quiet=launched() and os.environ["RANK"] != "0")


def say(message: str) -> None:
    """One line for the person watching; goes to stderr so that stdout stays data."""
    console.print(hide(message), markup=False)


def progress_bars() -> Progress:
    """Bars with counts, elapsed time and an ETA from the mean speed of the last hour.

    Cells of a comparison take minutes, and two workers finish theirs in pairs; over rich's 30 seconds one pair
    makes the rest look a moment's work.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
        console=console,
        speed_estimate_period=3600.0,
    )


@contextmanager
def counted(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar that appears with the first call, of how many are done and how many there will be, if that is known."""
    with ExitStack() as stack:
        task: list[Any] = []

        def step(done: int, total: int | None) -> None:
            if not task:
                bars = stack.enter_context(progress_bars())
                task.extend([bars, bars.add_task(title, total=total, note="")])
            task[0].update(task[1], completed=done, total=total)

        yield step


class MetricsLog:
    """Appends one JSON object a line; what was written after a given step is dropped on resume."""

    def __init__(self, path: Path, *, resume_at: int | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        if resume_at is None:
            path.write_text("")
        elif path.exists():
            kept = [row for row in read_metrics(path) if row["step"] <= resume_at]
            with atomic_file(path) as temporary:
                temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Append the values of one step."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a metrics file; a last line cut short by a kill is left out."""
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return

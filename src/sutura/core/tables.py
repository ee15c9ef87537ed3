"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WIDE = 160
"""Columns of text where the output is no terminal, a file or a pipe."""


def show(
    rows: Sequence[Mapping[str, Any]], *, title: str, columns: Sequence[str] = (), full: bool = False
) -> None:
    """Print rows to stdout; an empty value is shown as a dash.

    Args:
        rows: all with the same keys.
        title: above the table, with the number of rows.
        columns: which keys become columns, the first never broken; all of them by default.
        full: every key of every row, a line each, instead of a table.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else WIDE, highlight=False, markup=False)
    if full:
        for row in rows:
            for key, value in row.items():
                console.print(f"{key:>14}  {_text(value)}")
            console.print()
        return
    table = Table(title=f"{title} ({len(rows)})", title_justify="left", header_style="bold")
    shown = columns or (list(rows[0]) if rows else [])
    for place, column in enumerate(shown):
        table.add_column(column, overflow="fold", no_wrap=place == 0)
    for row in rows:
        table.add_row(*(_text(row.get(column)) for column in shown))
    console.print(table)


def _text(value: Any) -> str:
    return "–" if value in (None, "") else str(value)

"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def show(rows: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Print rows with the keys of the first as columns; goes to stdout. An empty value is shown as a dash."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"{title} ({len(rows)})", title_justify="left", header_style="bold")
    columns = list(rows[0]) if rows else []
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("–" if row.get(column) in (None, "") else str(row[column]) for column in columns))
    console.print(table)

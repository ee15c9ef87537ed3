"""Commands on reports and tables: `report`, `encoders`, `benchmarks`. Parses, calls one function, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Full = Annotated[bool, typer.Option("--full", help="Everything that is known of each row.")]


def add_judging(app: typer.Typer) -> None:
    """Register this module's commands."""
    for command in (report, encoders, benchmarks):
        app.command()(command)


def report(directory: Annotated[Path, typer.Argument(help="runs/<name>, as a comparison left it.")]) -> None:
    """Write a comparison's report again, from its ledgers alone."""
    from sutura.compare.publish import report as write

    typer.echo(write(directory))


def encoders(full: Full = False) -> None:
    """The catalog of encoders: what is known of each, and how it was checked."""
    from sutura.core.tables import show
    from sutura.encoders.catalog import catalog_table

    columns = ("id", "from", "image", "tokens", "width", "objective", "licence", "unchecked")
    show(catalog_table(), title="Encoders", columns=columns, full=full)


def benchmarks(full: Full = False) -> None:
    """The table of benchmarks."""
    from sutura.core.tables import show
    from sutura.evals.benchmarks import benchmark_table

    columns = ("name", "split", "answers", "metric", "known floors, %")
    show(benchmark_table(), title="Benchmarks", columns=columns, full=full)

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


def report(
    directories: Annotated[list[Path], typer.Argument(help="runs/<name>, as comparisons left them.")],
    into: Annotated[Path | None, typer.Option(help="Where the report goes; several need it.")] = None,
    pictures: Annotated[bool, typer.Option(help="Show pictures of items in report.html.")] = True,
) -> None:
    """Write a comparison's reports again, from its ledgers alone; of several, one report over all."""
    from sutura.compare.merge import merge
    from sutura.compare.publish import report as write
    from sutura.core.errors import UserError

    if len(directories) == 1:
        path = write(directories[0], into=into, pictures=pictures)
    elif into is None:
        raise UserError(
            f"{len(directories)} comparisons make one report; say where it goes: --into runs/merged"
        )
    else:
        path = merge(directories, into, pictures=pictures)
    typer.echo(path)
    typer.echo(path.with_suffix(".html"))


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

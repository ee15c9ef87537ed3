"""Commands on reports and tables: `report`, `encoders`, `benchmarks`, … Parses, calls one function, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from sutura.cli_answers import export_samples, extra, rate
from sutura.cli_power import power, resample

Full = Annotated[bool, typer.Option("--full", help="Everything that is known of each row.")]


def add_judging(app: typer.Typer) -> None:
    """Register this module's commands."""
    for command in (report, power, resample, benchmarks, extra, export_samples):
        app.command()(command)
    app.add_typer(rate, name="rate")
    app.add_typer(encoders, name="encoders")


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


class SeveralValues(TyperCommand):
    """`--encoders A B C` means `--encoders A --encoders B --encoders C`: all words up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its values."""
        given, taking = [], False
        for word in args:
            if word.startswith("-"):
                taking = word == "--encoders"
                if not taking:
                    given.append(word)
                continue
            given += ["--encoders", word] if taking else [word]
        return super().parse_args(ctx, given)


encoders = typer.Typer(help="The catalog of encoders, and how their embeddings differ.")


@encoders.callback(invoke_without_command=True)
def catalog(ctx: typer.Context, full: Full = False) -> None:
    """The catalog of encoders: what is known of each, and how it was checked."""
    if ctx.invoked_subcommand is not None:
        return
    from sutura.core.tables import show
    from sutura.encoders.catalog import catalog_table

    columns = ("id", "from", "image", "tokens", "width", "objective", "licence", "unchecked")
    show(catalog_table(), title="Encoders", columns=columns, full=full)


@encoders.command("compare", cls=SeveralValues)
def compare_encoders(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Pictures, or folders of them; first.")
    ],
    encoders: Annotated[
        list[str],
        typer.Option("--encoders", metavar="A B ...", help="Two or more ids, or '{id: A, layer: 3}'."),
    ],
    out: Annotated[Path, typer.Option(help="A folder that is not there yet.")] = Path("embeddings"),
    limit: Annotated[int, typer.Option(help="At most so many pictures.")] = 200,
    shown: Annotated[int, typer.Option(min=1, help="How many of them have maps.")] = 8,
    device: Annotated[str, typer.Option(help="Where the encoders run.")] = "auto",
) -> None:
    """How embeddings of the same pictures differ: patch maps, ranks, norms, CKA; report.md, a sheet and numbers."""
    from sutura.evals.embedding_compare import compare_embeddings

    typer.echo(compare_embeddings(images, encoders, out, limit=limit, shown=shown, device=device))


def benchmarks(full: Full = False) -> None:
    """The table of benchmarks."""
    from sutura.core.tables import show
    from sutura.evals.benchmarks import benchmark_table

    columns = ("name", "split", "answers", "metric", "known floors, %")
    show(benchmark_table(), title="Benchmarks", columns=columns, full=full)

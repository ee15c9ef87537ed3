"""Commands on answers: `extra` scores, `rate` sheets, `export-samples`. Parses, calls one function, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

rate = typer.Typer(
    help="People rate answers side by side, without knowing whose they are.", no_args_is_help=True
)

Source = Annotated[Path, typer.Argument(help="runs/<name>, as a comparison left it, or a ledger (Parquet).")]


def extra(
    source: Source,
    metric: Annotated[str, typer.Option(help="wups, wups@THRESHOLD or bertscore.")] = "wups",
) -> None:
    """A metric that needs a download, computed from finished ledgers."""
    from sutura.compare.extra_table import extra_table

    typer.echo(extra_table(source, metric))


def export_samples(
    source: Source, out: Annotated[Path, typer.Option(help="A folder for the files.")]
) -> None:
    """Write ledgers as the samples that lmms-eval logs."""
    from sutura.compare.extra_table import ledgers_at
    from sutura.evals.ledger import read_ledgers
    from sutura.hub.lmms_samples import write_lmms_samples

    for path in write_lmms_samples(read_ledgers(ledgers_at(source)), out):
        typer.echo(path)


@rate.command()
def sheet(
    source: Source,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value for the data of a ledger.")] = None,
    out: Annotated[Path, typer.Option(help="A folder for sheet.csv, sheet.html and key.json.")] = Path(
        "rating"
    ),
    items: Annotated[int, typer.Option(min=1, help="Questions to draw.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the draw and of the letters.")] = 0,
    blind: Annotated[bool, typer.Option(help="The blind run among the systems.")] = False,
) -> None:
    """Write a blinded sheet of a run's answers; keep key.json from whoever rates."""
    from sutura.compare.rating import write_sheet

    for path in write_sheet(source, out, items=items, seed=seed, blind=blind, overrides=overrides or ()):
        typer.echo(path)


@rate.command()
def read(
    sheets: Annotated[list[Path], typer.Argument(help="Filled-in sheets (CSV), one or more.")],
    key: Annotated[Path, typer.Option(help="key.json of the sheet.")],
    out: Annotated[Path, typer.Option(help="The ledger of the rated answers (Parquet).")],
    source: Annotated[Path | None, typer.Option(help="The run, where it was moved since.")] = None,
) -> None:
    """Read filled-in sheets back as ledger rows with the score `rating`."""
    from sutura.compare.rating import read_rated

    typer.echo(read_rated(sheets, key, source, out))

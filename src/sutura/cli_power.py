"""Commands on uncertainty: `power` before a comparison, `resample` after it. Parses, calls one function, prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sutura.core.errors import UserError

if TYPE_CHECKING:
    from sutura.compare.power_text import Told


def power(
    runs: Annotated[
        Path | None, typer.Argument(help="Go by the noise of runs/<name>, or of ledgers.")
    ] = None,
    difference: Annotated[float, typer.Option(help="Points that are to be shown.")] = 3.0,
    benchmark: Annotated[str | None, typer.Option(help="Of the ledgers; the first by default.")] = None,
    accuracy: Annotated[float, typer.Option(help="Of the encoders, percent; without runs.")] = 60.0,
    seed_sd: Annotated[float | None, typer.Option(help="Points between seeds, of the difference.")] = None,
    correlation: Annotated[float | None, typer.Option(help="Of two encoders' answers; without runs.")] = None,
    seeds: Annotated[str, typer.Option(help="Numbers of training seeds.")] = "1,2,3,5,8,10,20",
    items: Annotated[str, typer.Option(help="Numbers of questions.")] = "500,1000,2000,5000,10000,20000",
    per_picture: Annotated[float | None, typer.Option(help="Questions a picture.")] = None,
    encoders: Annotated[int, typer.Option(help="In the comparison: all pairs are tested.")] = 2,
    at: Annotated[float, typer.Option("--power", help="Probability of showing it.")] = 0.8,
) -> None:
    """Before a comparison: how many questions and seeds show a difference of so many points."""
    from sutura.compare.power_text import power_beforehand

    _tell(
        power_beforehand(
            difference,
            runs,
            benchmark=benchmark,
            accuracy=accuracy,
            seed_sd=seed_sd,
            correlation=correlation,
            seeds=_numbers("--seeds", seeds),
            items=_numbers("--items", items),
            per_picture=per_picture,
            encoders=encoders,
            power=at,
        )
    )


def resample(
    runs: Annotated[Path, typer.Argument(help="runs/<name>, a folder of ledgers, or a ledger.")],
    benchmark: Annotated[str | None, typer.Option(help="Which; the first by default.")] = None,
    metric: Annotated[str, typer.Option(help="The score column.")] = "exact",
    replicates: Annotated[int, typer.Option(help="Bootstrap samples, and permutations.")] = 4000,
) -> None:
    """Every pair of encoders by bootstrap over pictures and seeds, and by permutation over pictures alone."""
    from sutura.compare.power_text import resample as run

    _tell(run(runs, benchmark, metric=metric, replicates=replicates))


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(
            f"{option} {text!r} must be whole numbers with commas between, as in 1,3,5."
        ) from None


def _tell(told: Told) -> None:
    """Sentences, table, sentences."""
    from sutura.core.tables import show

    typer.echo("\n".join(told.above))
    columns = told.table.columns
    show([dict(zip(columns, row, strict=True)) for row in told.table.rows], title=told.title, columns=columns)
    for line in told.below:
        typer.echo(line)

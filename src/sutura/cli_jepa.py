"""`sutura jepa`: joint embeddings of pictures and texts. Parses, calls one function, prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sutura.core.secrets import command_line

jepa = typer.Typer(no_args_is_help=True, help="VL-JEPA: joint embeddings of pictures and texts that predict.")

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[section.key=value]...", help="Change the preset.")
]
Preset = Annotated[str, typer.Option(help="A shipped preset's name (jepa/…), or a YAML file.")]
Out = Annotated[Path | None, typer.Option(help="Write the figures there too (JSON).")]


@jepa.command()
def train(
    overrides: Overrides = None,
    preset: Preset = "jepa/tiny",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew, whatever was kept of such a run.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from a checkpoint; stop if there is none.")
    ] = False,
    out: Out = None,
) -> None:
    """Train one of the three forms (align, conditioned, answer: the preset says which), and score it."""
    print(f"sutura jepa train: preset {preset}", file=sys.stderr, flush=True)
    from sutura.evals.jepa import train as run

    typer.echo(run(preset, overrides or (), fresh=fresh, resume=resume, out=out, command=command_line()))


@jepa.command(name="eval")
def evaluate(
    model: Annotated[
        list[str], typer.Option(help="A run's folder, or a two-tower model as `sutura probe` takes it.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value]...", help="Of the data and the protocol.")
    ] = None,
    data: Annotated[
        str, typer.Option(help="`world`, or pictures with captions: JSONL, TSV, Parquet, shards.")
    ] = "world",
    out: Out = None,
) -> None:
    """Retrieval both ways: R@1, R@5, R@10, median rank, with intervals and chance beside them."""
    print(f"sutura jepa eval: {', '.join(model)} on {data}", file=sys.stderr, flush=True)
    from sutura.evals.jepa import evaluate as score

    typer.echo(score(model, data, overrides or (), out=out))


@jepa.command()
def ablate(
    overrides: Overrides = None,
    preset: Preset = "jepa/ablate-conditioned",
    out: Out = None,
) -> None:
    """A grid of runs over seeds, and one table with intervals."""
    print(f"sutura jepa ablate: preset {preset}", file=sys.stderr, flush=True)
    from sutura.evals.jepa_ablate import ablate as run

    typer.echo(run(preset, overrides or (), out=out, command=command_line()))

"""`sutura data`: fetch and check sets of pictures with texts. Parses, calls one function, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

data = typer.Typer(no_args_is_help=True, help="Sets of pictures with texts: fetch, check, list.")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Where everything goes.")]
UrlList = Annotated[Path | None, typer.Option("--list", help="The list of URLs, where you have it already.")]
Url = Annotated[str | None, typer.Option(help="Another address of the list.")]
Size = Annotated[int, typer.Option(min=8, help="Shorter side of the pictures, in pixels.")]
Run = Annotated[bool, typer.Option("--run", help="Start img2dataset, instead of showing its command alone.")]


@data.command()
def cc3m(folder: Folder, given: UrlList = None, url: Url = None, size: Size = 256, run: Run = False) -> None:
    """Conceptual Captions: fetch the list of URLs and show (or run) what downloads the pictures."""
    _prepare("cc3m", folder, given, url, size, run)


@data.command()
def cc12m(folder: Folder, given: UrlList = None, url: Url = None, size: Size = 256, run: Run = False) -> None:
    """Conceptual 12M: fetch the list of URLs and show (or run) what downloads the pictures."""
    _prepare("cc12m", folder, given, url, size, run)


def _prepare(name: str, folder: Path, given: Path | None, url: str | None, size: int, run: bool) -> None:
    from sutura.core.log import counted
    from sutura.data.web_lists import prepare
    from sutura.data.web_lists import run as start

    with counted(f"{name}: fetching the list, MB") as step:
        ready = prepare(
            name,
            folder,
            given=given,
            url=url,
            size=size,
            on_bytes=lambda done, total: step(done >> 20, None if total is None else total >> 20),
        )
    typer.echo(ready.text())
    if run:
        start(ready.command)


@data.command()
def manifest(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="As given to cc3m or cc12m.")],
) -> None:
    """Look through what img2dataset left: what arrived, what failed, and a manifest of single files."""
    from sutura.data.downloaded import take_stock

    typer.echo(take_stock(folder).text())


@data.command()
def check(
    path: Annotated[str, typer.Argument(help="JSONL, TSV, COCO's or Karpathy's JSON, Parquet, shards, Hub.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value]...", help="Of the data.")
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="Examples of each thing that is set aside.")] = 5,
) -> None:
    """Read a set of captions as training would, and say what is there and what is set aside."""
    from sutura.core.log import counted
    from sutura.data.caption_check import check as look

    with counted("pictures") as step:
        text = look(path, overrides or (), show=show, on_progress=lambda _, done, total: step(done, total))
    typer.echo(text)


@data.command()
def overlap(
    train: Annotated[
        str, typer.Argument(metavar="A", help="A benchmark, `world`, file, folder, Hub set, stitch.")
    ],
    test: Annotated[str, typer.Argument(metavar="B", help="The same; whose pictures are looked for in A.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[a.key=value]...", help="Of A's data, b. of B's.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Write pairs side by side there: .png, .jpg, .webp.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Pairs on the sheet.")] = 24,
    items: Annotated[Path | None, typer.Option(help="Write every pair and question there (JSON).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print counts as JSON.")] = False,
) -> None:
    """Look for the pictures of B among those of A: same pixels, re-encoded, mirrored, cropped, grey, recoloured."""
    import json

    from sutura.evals.overlap_of_sets import overlap_of_sets, table

    found = overlap_of_sets(train, test, overrides or (), sheet=sheet, items=items, most=most)
    typer.echo(json.dumps(found.facts(), indent=2, ensure_ascii=False) if as_json else table(found))
    if sheet is not None and sheet.is_file():
        typer.echo(f"{sheet}: test pictures left, training pictures right", err=True)

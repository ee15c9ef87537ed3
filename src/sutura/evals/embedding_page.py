"""The report and the pictures of `sutura encoders compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sutura.evals.patch_maps import centre_patch, likeness, salient_patch

if TYPE_CHECKING:
    from torch import Tensor

    from sutura.data.samples import FilePicture
    from sutura.evals.embedding_compare import Embedded

TILE, GAP, HEAD = 128, 6, 34
#: A patch of a picture in pca/ is so many pixels wide.
ENLARGED = 16
_KINDS = ("PCA", "like the centre", "like the odd one")


def pca_files(embedded: Sequence[Embedded], colours: Mapping[str, Tensor], count: int, folder: Path) -> None:
    """`pca/ENCODER/NUMBER.png`: the map of the first pictures, a square a patch."""
    for one in embedded:
        place = folder / _file_name(one.name)
        place.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image = _as_image(colours[one.name][number].unflatten(0, one.grid).numpy())
            size = (one.grid[1] * ENLARGED, one.grid[0] * ENLARGED)
            image.resize(size, Image.Resampling.NEAREST).save(place / f"{number + 1:03d}.png")


def _file_name(name: str) -> str:
    return (
        "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name).strip(".")
        or "encoder"
    )


def contact_sheet(
    embedded: Sequence[Embedded], colours: Mapping[str, Tensor], pictures: Sequence[FilePicture], path: Path
) -> None:
    """A row a picture: itself, then three maps an encoder; the patch that a map asks about has a white frame."""
    columns = 1 + len(_KINDS) * len(embedded)
    width, height = columns * (TILE + GAP) + GAP, HEAD + len(pictures) * (TILE + GAP) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    ink, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    ink.text((GAP, GAP), "picture", fill="black", font=font)
    for place, one in enumerate(embedded):
        left = GAP + (1 + len(_KINDS) * place) * (TILE + GAP)
        cut = " (crop)" if one.facts.get("resize") == "crop" else ""
        ink.text((left, 2), f"{one.name}{cut}", fill="black", font=font)
        for k, kind in enumerate(_KINDS):
            ink.text((left + k * (TILE + GAP), 17), kind, fill="black", font=font)
    for number, picture in enumerate(pictures):
        top = HEAD + number * (TILE + GAP)
        sheet.paste(picture.open().resize((TILE, TILE)), (GAP, top))
        for place, one in enumerate(embedded):
            tiles = _tiles(one, colours[one.name], number)
            for k, tile in enumerate(tiles):
                sheet.paste(tile, (GAP + (1 + len(_KINDS) * place + k) * (TILE + GAP), top))
    sheet.save(path)


def _tiles(one: Embedded, colours: Tensor, number: int) -> list[Image.Image]:
    patches = one.patches[number]
    tiles = [_tile(_as_image(colours[number].unflatten(0, one.grid).numpy()), one.grid, None)]
    for anchor in (centre_patch(one.grid), salient_patch(patches)):
        cosine = likeness(patches, anchor).unflatten(0, one.grid).numpy()
        tiles.append(_tile(_shaded(cosine), one.grid, anchor))
    return tiles


def _tile(image: Image.Image, grid: tuple[int, int], anchor: int | None) -> Image.Image:
    tile = image.resize((TILE, TILE), Image.Resampling.NEAREST)
    if anchor is not None:
        row, column = divmod(anchor, grid[1])
        high, wide = TILE / grid[0], TILE / grid[1]
        box = (column * wide, row * high, (column + 1) * wide - 1, (row + 1) * high - 1)
        ImageDraw.Draw(tile).rectangle(box, outline="white", width=2)
    return tile


def _shaded(cosine: np.ndarray) -> Image.Image:
    """0 and below is dark blue, 1 is yellow; the same scale in every map."""
    from matplotlib import colormaps

    return _as_image(colormaps["cividis"](np.clip(cosine, 0, 1))[..., :3])


def _as_image(values: np.ndarray) -> Image.Image:
    return Image.fromarray((255 * np.clip(values, 0, 1)).round().astype(np.uint8))


def page(numbers: Mapping[str, Any], sheet: str, shown: int) -> str:
    """The report in Markdown."""
    encoders, samples = numbers["encoders"], numbers["samples"]
    lines = ["# How the embeddings differ", ""]
    lines += [f"{samples['pictures']} pictures, {len(encoders)} encoders: {', '.join(encoders)}.", ""]
    aside = {reason: len(names) for reason, names in numbers["set_aside"].items()}
    told = ", ".join(f"{reason}: {count}" for reason, count in sorted(aside.items()))
    lines += [f"Set aside: {told or 'none'}.", ""]
    lines += ["## Each encoder", "", *_table(_rows(encoders)), ""]
    lines += [
        "*Effective rank* is the exponential of the entropy of the singular values, features centred: how many "
        "directions are used, of how many there can be. It is over the mean patch of each picture, and over patches of "
        "all pictures. *Cosine between pictures* near 1 means that all mean patches point one way. *Outliers* are "
        "patches of more than three times the median norm.",
        "",
        "## How alike they are: linear CKA",
        "",
        "1 is the same but for rotation and scale, about 0 unrelated. The debiased estimator stands first; the plain "
        "one, in brackets, is far above 0 for unrelated features when samples are few against the width.",
        "",
        *_cka("pictures", numbers, "one sample a picture, its mean patch"),
        *_cka(
            "patches",
            numbers,
            f"one sample a cell of a common grid of {' × '.join(map(str, numbers['common_grid']))}, larger grids "
            "averaged to it; cells of one picture are not independent, and the more they repeat each other the less "
            "the debiased estimator takes away",
        ),
    ]
    if len({fact["resize"] for fact in encoders.values()}) > 1:
        crops = [name for name, fact in encoders.items() if fact["resize"] == "crop"]
        lines += [
            f"{', '.join(crops)} cut out the middle of a picture that is not square; its cells are then not the "
            "others' cells, which lowers CKA over patches.",
            "",
        ]
    lines += [
        "## Maps",
        "",
        f"The first {shown} pictures. *PCA*: the first three principal components of an encoder's patches over all "
        "pictures as red, green and blue; colours of two encoders have nothing to do with each other. *Like the "
        "centre*: cosine of every patch to the framed one, dark at 0 and below, yellow at 1. *Like the odd one*: the "
        "same for the patch that is least like the mean of its picture.",
        "",
        f"![Patch maps: a row a picture, three columns an encoder]({sheet})",
        "",
    ]
    return "\n".join(lines)


def _rows(encoders: Mapping[str, Any]) -> list[list[str]]:
    rows = [
        [
            "encoder",
            "grid",
            "width",
            "effective rank, pictures",
            "effective rank, patches",
            "cosine between pictures",
            "norm",
            "norm, sd / mean",
            "outliers %",
            "variance in 3 components %",
        ]
    ]
    for name, fact in encoders.items():
        rank, norms = fact["effective_rank"], fact["norms"]
        pictures = "–" if rank["pictures"] is None else f"{rank['pictures']:.1f} of {rank['of']['pictures']}"
        cosine = fact["cosine_between_pictures"]
        rows.append(
            [
                name,
                " × ".join(map(str, fact["grid"])),
                str(fact["width"]),
                pictures,
                f"{rank['patches']:.1f} of {rank['of']['patches']}",
                "–" if cosine is None else f"{cosine:.3f}",
                f"{norms['mean']:.3g}",
                f"{norms['spread']:.3f}",
                f"{100 * norms['outliers']:.1f}",
                f"{100 * sum(fact['pca_shares']):.0f}",
            ]
        )
    return rows


def _cka(over: str, numbers: Mapping[str, Any], what: str) -> list[str]:
    found, count = numbers["cka"][over], numbers["samples"][over]
    head = f"### Over {over}"
    if found is None:
        return [
            head,
            "",
            f"Left out: {count} {over} are too few, CKA needs at least 4 and says little under 50.",
            "",
        ]
    names = list(found["debiased"])
    rows = [["", *names]]
    for a in names:
        rows.append([a, *(_pair(found["debiased"][a][b], found["plain"][a][b]) for b in names)])
    few = " Fewer than 50 samples: read it as a sketch." if count < 50 else ""
    return [head, "", f"{count:,} samples: {what}.{few}", "", *_table(rows), ""]


def _pair(debiased: float | None, plain: float | None) -> str:
    return "–" if debiased is None or plain is None else f"{debiased:.2f} ({plain:.2f})"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    rule = [":--", *["--:"] * (len(rows[0]) - 1)]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in (rows[0], rule, *rows[1:])]

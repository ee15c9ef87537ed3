"""How encoders' embeddings of the same pictures differ: maps, ranks, norms, and how alike they are (CKA)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sutura.core.checkpoint import atomic_directory, write_json
from sutura.core.config import apply_overrides
from sutura.core.errors import UserError
from sutura.core.log import say
from sutura.core.runtime import generator, pick_device
from sutura.data.samples import BadPicture, FilePicture, SetAside
from sutura.data.shards import PICTURES
from sutura.encoders import load_encoder
from sutura.encoders.base import VisionEncoder
from sutura.encoders.tokens import match_grid
from sutura.evals.cka import LEAST, linear_cka
from sutura.evals.embedding_page import contact_sheet, page, pca_files
from sutura.evals.patch_maps import norm_measures, pca_colours
from sutura.losses.collapse import effective_rank

#: Patches that an effective rank is computed on at most; a draw, the same for every encoder with as many.
MOST_PATCHES = 4096
BATCH = 16
REPORT, NUMBERS, SHEET = "report.md", "embeddings.json", "maps.png"


@dataclass(frozen=True, eq=False)
class Embedded:
    """What one encoder says of the pictures.

    Args:
        patches: in float32, of every picture.
        facts: of the encoder.
        grid: rows and columns of its patches.
    """

    name: str
    patches: Float[Tensor, "pictures patches width"]
    facts: Mapping[str, Any]
    grid: tuple[int, int]

    @property
    def pooled(self) -> Float[Tensor, "pictures width"]:
        """The mean patch of each picture."""
        return self.patches.mean(1)

    def on_grid(self, grid: tuple[int, int]) -> Float[Tensor, "samples width"]:
        """Patches averaged to a grid, all pictures' one behind the other."""
        maps = self.patches.transpose(1, 2).unflatten(2, self.grid)
        return match_grid(maps, grid).flatten(2).transpose(1, 2).flatten(0, 1)


def compare_embeddings(
    places: Sequence[Path],
    encoders: Sequence[str | Mapping[str, Any]],
    out: Path,
    *,
    limit: int = 200,
    shown: int = 8,
    device: str = "auto",
) -> Path:
    """Encode the pictures with every encoder and write what differs.

    Args:
        places: picture files, and folders of them.
        encoders: at least two: ids, or the values of an encoder's config (`layer`, `tokens`, `name`, …).
        out: a folder that is not there yet or empty; receives report.md, embeddings.json, maps.png and pca/.
        limit: pictures read at most, in the order of their names.
        shown: of them, how many have maps.
        device: where the encoders run.

    Returns:
        The path of report.md.

    Raises:
        UserError: no picture that can be read, fewer than two encoders, two of one name, an encoder that is not known,
            or a folder that has something in it.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and not an empty folder; choose another place with --out.")
    if len(encoders) < 2:
        raise UserError(
            f"{len(encoders)} encoder is nothing to compare; name two or more after --encoders, for example "
            "--encoders zoo:clip zoo:ijepa."
        )
    pictures, aside = find_pictures(places, limit)
    embedded: list[Embedded] = []
    for spec in encoders:
        encoder = load_encoder(config_of(spec))
        if encoder.name in [one.name for one in embedded]:
            raise UserError(
                f"Two encoders are called {encoder.name!r}; give one a name, for example "
                f"'{{id: {encoder.id}, name: other}}'."
            )
        say(f"{encoder.name}: {len(pictures)} pictures")
        embedded.append(embed(encoder.to(pick_device(device)), pictures))
    maps = {one.name: pca_colours(one.patches) for one in embedded}
    numbers = measure(embedded) | {
        "pictures": [str(picture.path) for picture in pictures],
        "set_aside": aside.items,
    }
    for name, (_, shares) in maps.items():
        numbers["encoders"][name]["pca_shares"] = shares
    with atomic_directory(out, replace=out.exists()) as folder:
        write_json(folder / NUMBERS, numbers)
        few = pictures[:shown]
        colours = {name: found for name, (found, _) in maps.items()}
        pca_files(embedded, colours, len(few), folder / "pca")
        contact_sheet(embedded, colours, few, folder / SHEET)
        (folder / REPORT).write_text(page(numbers, SHEET, len(few)), encoding="utf-8")
    return out / REPORT


def config_of(spec: str | Mapping[str, Any]) -> str | Mapping[str, Any]:
    """An id as it is; values in braces, as a command line gives them, read as YAML."""
    if isinstance(spec, str) and spec.lstrip().startswith("{"):
        return apply_overrides({}, [f"encoder={spec}"])["encoder"]
    return spec


def find_pictures(places: Sequence[Path], limit: int) -> tuple[list[FilePicture], SetAside]:
    """Pictures that can be read, at most `limit` of them; the others are counted.

    Raises:
        UserError: a place that is not there, or nothing to read.
    """
    if limit < 1:
        raise UserError(f"--limit {limit}: at least one picture is needed.")
    files: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = sorted(file for file in place.rglob("*") if file.is_file())
            files += [file for file in inside if file.suffix.lower().removeprefix(".") in PICTURES]
        elif place.exists():
            files.append(place)
        else:
            raise UserError(f"There is no picture or folder at {str(place)!r}.")
    pictures, aside = [], SetAside()
    for file in dict.fromkeys(files):
        if len(pictures) == limit:
            say(f"the first {limit} pictures are taken; --limit takes more")
            break
        try:
            FilePicture(file).open()
        except BadPicture as error:
            aside.add(error.reason, str(file))
        else:
            pictures.append(FilePicture(file))
    if aside.counts:
        say(f"set aside: {aside.summary()}")
    if not pictures:
        named = ", ".join(map(str, places)) or "nothing"
        raise UserError(
            f"No picture can be read among {named}. {aside.summary() if aside.counts else ''}".strip()
        )
    return pictures, aside


@torch.no_grad()
def embed(encoder: VisionEncoder, pictures: Sequence[FilePicture]) -> Embedded:
    """Patches of every picture.

    Raises:
        UserError: features that are not finite.
    """
    weight = next(encoder.parameters())
    parts = []
    for start in range(0, len(pictures), BATCH):
        pixels = torch.stack([encoder.transform(p.open()) for p in pictures[start : start + BATCH]])
        parts.append(encoder(pixels.to(weight.device)).float().cpu())
    patches = torch.cat(parts)
    if not bool(torch.isfinite(patches).all()):
        raise UserError(f"Features of {encoder.name!r} are not finite; look at the encoder's weights.")
    return Embedded(encoder.name, patches, encoder.facts(), encoder.token_grid)


def measure(embedded: Sequence[Embedded]) -> dict[str, Any]:
    """Everything in numbers: `encoders`, and `cka` over pictures and over patches of the common grid.

    Pictures fewer than four leave CKA over pictures out (None).
    """
    grid = (min(one.grid[0] for one in embedded), min(one.grid[1] for one in embedded))
    count = len(embedded[0].patches)
    pooled = {one.name: one.pooled for one in embedded}
    gridded = {one.name: one.on_grid(grid) for one in embedded}
    return {
        "encoders": {one.name: _of_one(one) for one in embedded},
        "common_grid": list(grid),
        "cka": {
            "pictures": _alike(pooled) if count >= LEAST else None,
            "patches": _alike(gridded) if count * grid[0] * grid[1] >= LEAST else None,
        },
        "samples": {"pictures": count, "patches": count * grid[0] * grid[1]},
    }


def _of_one(one: Embedded) -> dict[str, Any]:
    flat = one.patches.flatten(0, 1)
    drawn = flat[torch.randperm(len(flat), generator=generator(0, "patches"))[:MOST_PATCHES]]
    directions = torch.nn.functional.normalize(one.pooled, dim=1)
    count = len(directions)
    cosine = float(((directions @ directions.T).sum() - count) / (count * (count - 1))) if count > 1 else None
    kept = ("id", "layer", "final_norm", "width", "image_size", "resize", "params", "num_tokens")
    return {
        **{name: one.facts.get(name) for name in kept},
        "grid": list(one.grid),
        "effective_rank": {
            "pictures": effective_rank(one.pooled) if count > 1 else None,
            "patches": effective_rank(drawn),
            "of": {
                "pictures": min(count - 1, one.patches.shape[2]),
                "patches": min(len(drawn) - 1, drawn.shape[1]),
            },
        },
        "cosine_between_pictures": cosine,
        "norms": norm_measures(one.patches),
    }


def _alike(features: Mapping[str, Tensor]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Both estimators: name → name → CKA; None where an encoder says the same of everything."""
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for estimator in ("debiased", "plain"):
        table: dict[str, dict[str, float | None]] = {name: {} for name in features}
        for name in features:
            table[name][name] = _finite(
                linear_cka(features[name], features[name], debiased=estimator == "debiased")
            )
        for a, b in combinations(features, 2):
            value = _finite(linear_cka(features[a], features[b], debiased=estimator == "debiased"))
            table[a][b] = table[b][a] = value
        found[estimator] = table
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""A look at an aligned model while it trains: do its embeddings still differ, and do pairs find each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sutura.data.image_texts import ImageTexts
from sutura.losses.collapse import collapse_alarm, collapse_measures
from sutura.losses.contrastive import likeness
from sutura.train.align_views import floats, standardise

#: Pictures or texts that are embedded together.
TOGETHER = 64


@torch.no_grad()
def embed_pictures(
    encode: Callable[[Tensor], Tensor], data: ImageTexts, mean: Sequence[float], std: Sequence[float], device
) -> Float[Tensor, "pictures dim"]:
    """Embeddings of all pictures of a set, whole and unchanged, on the CPU.

    Args:
        encode: pixels → embeddings.
        data: pictures of the size that the tower takes.
        mean, std: of the tower's colours.
        device: of the tower.
    """
    made = []
    for start in range(0, len(data), TOGETHER):
        pictures = torch.from_numpy(np.array(data.pixels[start : start + TOGETHER]))
        made.append(encode(standardise(floats(pictures), mean, std).to(device)).float().cpu())
    return torch.cat(made)


@torch.no_grad()
def embed_ids(
    encode: Callable[[Tensor], Tensor], ids: Int[Tensor, "texts length"], device
) -> Float[Tensor, "texts dim"]:
    """Embeddings of texts, on the CPU."""
    parts = [encode(part.to(device)).float().cpu() for part in ids.split(TOGETHER)]
    return torch.cat(parts)


def first_among(image: Float[Tensor, "pairs dim"], text: Float[Tensor, "pairs dim"]) -> dict[str, float]:
    """Share of pictures that rank their own text first among all of them, and of texts their picture: NCE@1.

    A tie is no success, so that a model that says the same of everything scores 0, not 1.
    """
    cosines = likeness(image, text)
    own = torch.eye(len(cosines), dtype=torch.bool)
    found = {}
    for name, table in (("picture_to_text", cosines), ("text_to_picture", cosines.T)):
        nearest = table.masked_fill(own, -2.0).max(dim=1).values
        found[name] = float((table.diagonal() > nearest).float().mean())
    return found


def look(
    image: Float[Tensor, "pairs dim"], text: Float[Tensor, "pairs dim"]
) -> tuple[dict[str, float], list[str]]:
    """Measures of a held-out sample by name, and a sentence for every side that has collapsed."""
    found = first_among(image, text)
    alarms = []
    for side, embeddings in (("picture", image), ("text", text)):
        found |= {f"{side}_{name}": value for name, value in collapse_measures(embeddings).items()}
        if (alarm := collapse_alarm(embeddings)) is not None:
            alarms.append(f"{side} embeddings: {alarm}")
    return found, alarms

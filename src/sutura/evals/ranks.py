"""Exact ranks of right answers among all pictures and texts, without ever holding all similarities.

A rank depends on which of two similarities is the larger, so noise in the last bit moves it, and the last bit of a
matrix product depends on how the matrix was cut up. Here every coordinate is rounded to a whole number of small
units, on which float64 products and their sums have no rounding at all, in any order: equal embeddings tie exactly
wherever they stand, and chunks of any size give the same ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int32
from torch import Tensor

from sutura.core.errors import UserError

#: A coordinate is a whole number of 2⁻²⁶, so a product of two is one of 2⁻⁵², and no partial sum of a dot product of
#: unit vectors reaches 2 (Cauchy and Schwarz, and what rounding adds): all fit the 53 bits of a float64.
GRID_BITS = 26
#: Texts and pictures of one product: 32 MiB of similarities.
CHUNK = (1024, 4096)
#: The widest embedding for which rounding keeps sums below 2.
_WIDEST = 1 << 20


@dataclass(frozen=True)
class Ranks:
    """Where the best right answer of every query stands; 1 is first.

    Args:
        above: wrong items with a higher similarity than the best right one.
        tied: wrong items with exactly its similarity.
        right: right items that share the best similarity, one or more.
    """

    above: Int[np.ndarray, " queries"]
    tied: Int[np.ndarray, " queries"]
    right: Int[np.ndarray, " queries"]

    @property
    def against(self) -> Int[np.ndarray, " queries"]:
        """The rank when every tie is lost: 1 + wrong items with a similarity at least as high."""
        return 1 + self.above + self.tied

    def found(self, k: int) -> Float64[np.ndarray, " queries"]:
        """1 where the best right answer is among the first k with all ties lost, else 0."""
        return (self.against <= k).astype(np.float64)

    def found_by_lot(self, k: int) -> Float64[np.ndarray, " queries"]:
        """Chance that a right answer is among the first k when equal similarities are put in random order."""
        return found_by_chance(self.tied + self.right, self.right, k - self.above)


def found_by_chance(
    items: Int[np.ndarray, " queries"],
    right: Int[np.ndarray, " queries"],
    k: Int[np.ndarray, " queries"] | int,
) -> Float64[np.ndarray, " queries"]:
    """Chance that k items drawn without replacement hold a right one: 1 − C(items − right, k) / C(items, k).

    Args:
        items: to draw from.
        right: how many of them are right; at least one.
        k: draws; none where it is not positive.
    """
    from scipy.special import gammaln

    k = np.clip(k, 0, items)
    left = items - right - k  # wrong items that are not drawn, when all drawn are wrong
    safe = np.maximum(left, 0)
    log = gammaln(items - right + 1) - gammaln(safe + 1) + gammaln(items - k + 1) - gammaln(items + 1)
    missed = np.where(left >= 0, np.exp(log), 0.0)
    return np.where(k > 0, 1.0 - missed, 0.0)


def ranks(
    images: Float[Tensor, "pictures dim"],
    texts: Float[Tensor, "texts width"],
    owner: Int[Tensor, " texts"],
    *,
    chunk: tuple[int, int] = CHUNK,
    device: torch.device | str = "cpu",
) -> tuple[Ranks, Ranks]:
    """Ranks by cosine of pictures' captions among all texts, and of texts' pictures among all pictures.

    One pass over the similarities serves both ways. Memory beyond the embeddings
    is a rounded copy of them and one chunk of similarities.

    Args:
        images: of any length; a zero vector has similarity 0 to everything.
        texts: of any length.
        owner: row of each text's picture; every picture has at least one text.
        chunk: texts and pictures of one product; has no influence on the result.
        device: that computes; it needs float64.

    Returns:
        Picture → text, then text → picture.

    Raises:
        UserError: embeddings that are not finite, of different widths, or no text for a picture.
    """
    owner = _checked(images, texts, owner)
    images, texts = on_grid(images), on_grid(texts)
    best, scores = _right_scores(images, texts, owner, chunk[0])
    by_text = torch.zeros(2, len(texts), dtype=torch.int64)
    by_image = torch.zeros(2, len(images), dtype=torch.int64)
    for t in range(0, len(texts), chunk[0]):
        rows = texts[t : t + chunk[0]].to(device).double()
        own = scores[t : t + chunk[0], None].to(device)
        for i in range(0, len(images), chunk[1]):
            columns = images[i : i + chunk[1]].to(device).double()
            highest = best[None, i : i + chunk[1]].to(device)
            similar = rows @ columns.T
            for place, reached in enumerate((similar > own, similar >= own)):
                by_text[place, t : t + len(rows)] += reached.sum(1).cpu()
            for place, reached in enumerate((similar > highest, similar >= highest)):
                by_image[place, i : i + len(columns)] += reached.sum(0).cpu()
    at_best = (scores == best[owner]).to(torch.int64)
    right = torch.zeros(len(images), dtype=torch.int64).scatter_add_(0, owner, at_best)
    one = torch.ones(len(texts), dtype=torch.int64)
    return _as_ranks(by_image, right), _as_ranks(by_text, one)


def _as_ranks(counts: Int[Tensor, "two queries"], right: Int[Tensor, " queries"]) -> Ranks:
    """Counts of all items above, and at or above; the right ones among the latter are taken off."""
    above, reached = counts
    return Ranks(above.numpy(), (reached - above - right).numpy(), right.numpy())


def on_grid(vectors: Float[Tensor, "rows dim"], rows: int = 4096) -> Int32[Tensor, "rows dim"]:
    """Unit vectors in whole units of 2⁻²⁶; a zero vector stays zero.

    Rounding moves a cosine by about 1e-8, less than float32 does.

    Args:
        vectors: of any length.
        rows: worked on at a time.
    """
    out = torch.empty(vectors.shape, dtype=torch.int32)
    for at in range(0, len(vectors), rows):
        x = vectors[at : at + rows].cpu().double()
        x = x / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
        out[at : at + rows] = (x * 2.0**GRID_BITS).round_().to(torch.int32)
    return out


def _right_scores(
    images: Int32[Tensor, "pictures dim"],
    texts: Int32[Tensor, "texts dim"],
    owner: Int[Tensor, " texts"],
    rows: int,
) -> tuple[Float64[Tensor, " pictures"], Float64[Tensor, " texts"]]:
    """The best similarity of each picture to a text of its own, and of each text to its picture."""
    parts = [
        (texts[t : t + rows].double() * images[owner[t : t + rows]].double()).sum(1)
        for t in range(0, len(texts), rows)
    ]
    scores = torch.cat(parts)
    lowest = torch.full((len(images),), -torch.inf, dtype=torch.float64)
    return lowest.scatter_reduce_(0, owner, scores, "amax"), scores


def _checked(
    images: Float[Tensor, "pictures dim"], texts: Float[Tensor, "texts width"], owner: Int[Tensor, " texts"]
) -> Int[Tensor, " texts"]:
    if not len(images) or not len(texts):
        raise UserError(f"Retrieval needs pictures and texts; found {len(images)} and {len(texts)}.")
    if images.shape[1] != texts.shape[1]:
        raise UserError(
            f"Pictures are embedded in {images.shape[1]} dimensions and texts in {texts.shape[1]}; they have to "
            "be in one space."
        )
    if images.shape[1] > _WIDEST:
        raise UserError(
            f"Embeddings of {images.shape[1]} dimensions; at most {_WIDEST} are compared exactly."
        )
    for name, vectors in (("picture", images), ("text", texts)):
        bad = ~torch.isfinite(vectors).all(dim=1)
        if bool(bad.any()):
            raise UserError(
                f"{int(bad.sum()):,} of {len(vectors):,} {name} embeddings are not finite (the first is row "
                f"{int(bad.nonzero()[0])}); a model that gives NaN has no ranks. Look at its training."
            )
    owner = owner.to(torch.int64).cpu()
    strange = owner[(owner < 0) | (owner >= len(images))]
    if len(strange):
        raise UserError(f"A text belongs to picture {int(strange[0])}, and there are {len(images)}.")
    lonely = torch.bincount(owner, minlength=len(images)) == 0
    if bool(lonely.any()):
        raise UserError(
            f"{int(lonely.sum()):,} of {len(images):,} pictures have no text (the first is row "
            f"{int(lonely.nonzero()[0])}); such a picture cannot be asked for."
        )
    return owner

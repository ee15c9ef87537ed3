"""Retrieval both ways: recall, ranks and their sum under named protocols, with intervals and chance beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from sutura.core.errors import UserError
from sutura.core.runtime import derive_seed
from sutura.evals.probe_scores import QUANTILE, wilson
from sutura.evals.ranks import CHUNK, Ranks, found_by_chance, ranks

KS = (1, 5, 10)
#: Every caption of a picture is a right answer for it; a text has one picture.
STANDARD = "standard"
#: The first caption of every picture, and no other.
ONE_CAPTION = "one-caption"
#: Pictures in small batches with a caption each, as a contrastive loss sees them.
IN_BATCH = "in-batch"
PROTOCOLS = (STANDARD, ONE_CAPTION, IN_BATCH)


@dataclass(frozen=True)
class Recall:
    """Share of queries with a right answer among the first k.

    Args:
        k: answers looked at.
        share: 0 to 1, all ties lost.
        low, high: 95 % interval over pictures.
        chance: of a model that ranks at random.
        by_lot: the share that equal similarities in random order would give; the same as `share` without ties.
    """

    k: int
    share: float
    low: float
    high: float
    chance: float
    by_lot: float


@dataclass(frozen=True)
class Direction:
    """One way of retrieval.

    Args:
        queries: pictures or texts that were asked with.
        items: texts or pictures among which each was answered.
        recalls: at every k.
        median_rank, mean_rank: of the best right answer, 1 is first; all ties lost.
        chance_median: of the median rank, for a model that ranks at random.
        tied: queries whose best right answer ties with a wrong one.
    """

    queries: int
    items: int
    recalls: tuple[Recall, ...]
    median_rank: float
    mean_rank: float
    chance_median: float
    tied: int


@dataclass(frozen=True)
class Retrieval:
    """Scores of a model on a set under one protocol.

    Args:
        protocol: its name.
        pictures, texts: that took part.
        image_to_text, text_to_image: both ways.
        rsum: all recalls both ways added up, in percent (0 to 600 with three k).
        rsum_low, rsum_high: 95 % interval over pictures.
        rsum_chance: of a model that ranks at random.
        batch: pictures of a batch, where the protocol has batches.
    """

    protocol: str
    pictures: int
    texts: int
    image_to_text: Direction
    text_to_image: Direction
    rsum: float
    rsum_low: float
    rsum_high: float
    rsum_chance: float
    batch: int | None = None

    def facts(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def retrieval(
    images: Float[Tensor, "pictures dim"],
    texts: Float[Tensor, "texts width"],
    owner: Int[Tensor, " texts"],
    protocol: str = STANDARD,
    *,
    ks: Sequence[int] = KS,
    batch: int = 8,
    seed: int = 0,
    chunk: tuple[int, int] = CHUNK,
    device: torch.device | str = "cpu",
) -> Retrieval:
    """Score embeddings under a protocol. Similarity is the cosine; ties count against the model.

    Args:
        images: one embedding a picture, of any length.
        texts: one a text, of any length.
        owner: row of each text's picture.
        protocol: `standard` (every caption of a picture is right for it), `one-caption` (its first one only),
            `in-batch` (batches of `batch` pictures in random order with a random caption each; R@1 alone, known
            as NCE@1; pictures that fill no batch are left out).
        ks: of the recalls; `in-batch` has 1.
        batch: pictures of an in-batch gallery.
        seed: of order and captions of `in-batch`.
        chunk: texts and pictures compared at a time; has no influence on the result.
        device: that compares.

    Raises:
        UserError: an unknown protocol, no full batch, or embeddings that `ranks` refuses.
    """
    if protocol == IN_BATCH:
        return _in_batch(images, texts, owner, batch, seed)
    if protocol == ONE_CAPTION:
        texts, owner = texts[first_texts(owner)], torch.unique(owner)
    elif protocol != STANDARD:
        raise UserError(f"Protocol {protocol!r} is not one of {', '.join(PROTOCOLS)}.")
    found = ranks(images, texts, owner, chunk=chunk, device=device)
    return _scored(protocol, found, owner.cpu().numpy(), len(images), ks)


def first_texts(owner: Int[Tensor, " texts"]) -> Int[Tensor, " pictures"]:
    """Row of the first text of every picture that has one, pictures in order."""
    order = torch.sort(owner, stable=True)
    return order.indices[torch.cat([torch.ones(1, dtype=torch.bool), order.values.diff() != 0])]


def _in_batch(
    images: Float[Tensor, "pictures dim"],
    texts: Float[Tensor, "texts width"],
    owner: Int[Tensor, " texts"],
    batch: int,
    seed: int,
) -> Retrieval:
    """Every batch is a gallery of its own; ranks of all of them are scored together."""
    count = len(images)
    if not 2 <= batch <= count:
        raise UserError(f"Batches of {batch} of {count} pictures; in-batch takes from 2 to all of them.")
    rng = np.random.default_rng(derive_seed(seed, "in-batch"))
    order = rng.permutation(count)[: count // batch * batch]
    shuffled = torch.from_numpy(rng.permutation(len(texts)))
    drawn = shuffled[first_texts(owner[shuffled])]  # a random text of every picture
    if len(drawn) < count:
        raise UserError(f"{count - len(drawn):,} of {count:,} pictures have no text.")
    own = torch.arange(batch)
    parts = [ranks(images[rows], texts[drawn[rows]], own) for rows in torch.from_numpy(order).split(batch)]
    joined = tuple(
        Ranks(
            *(np.concatenate([getattr(p[way], name) for p in parts]) for name in ("above", "tied", "right"))
        )
        for way in (0, 1)
    )
    return _scored(IN_BATCH, (joined[0], joined[1]), np.arange(len(order)), len(order), (1,), batch)


def _scored(
    protocol: str,
    found: tuple[Ranks, Ranks],
    owner: Int[np.ndarray, " texts"],
    pictures: int,
    ks: Sequence[int],
    batch: int | None = None,
) -> Retrieval:
    """Recalls both ways from ranks.

    Args:
        found: picture → text, text → picture.
        owner: row of each text's picture; the interval keeps a picture's texts together.
        pictures: how many.
        ks: of the recalls.
        batch: size of the galleries, where they are not the whole set.
    """
    texts = len(owner)
    own = np.bincount(owner, minlength=pictures)  # texts of each picture
    right = own if batch is None else np.ones(pictures, np.int64)
    to_text, by_image = _direction(found[0], right, batch or texts, np.arange(pictures), ks)
    to_image, by_text = _direction(found[1], np.ones(texts, np.int64), batch or pictures, owner, ks)
    both = (*to_text.recalls, *to_image.recalls)
    rsum = 100 * sum(one.share for one in both)
    variance = _variance(by_image + by_text)
    half = 100 * QUANTILE * math.sqrt(variance)
    low, high = rsum - half, rsum + half
    if variance == 0:  # all right or all wrong: the bounds that the recalls have themselves
        low, high = 100 * sum(one.low for one in both), 100 * sum(one.high for one in both)
    return Retrieval(
        protocol,
        pictures,
        texts,
        to_text,
        to_image,
        rsum,
        max(0.0, low),
        min(100.0 * len(both), high),
        100 * sum(one.chance for one in both),
        batch,
    )


def _direction(
    found: Ranks,
    right: Int[np.ndarray, " queries"],
    items: int,
    picture: Int[np.ndarray, " queries"],
    ks: Sequence[int],
) -> tuple[Direction, Float64[np.ndarray, " pictures"]]:
    """Recalls of one way, and what each picture moves their sum by.

    Args:
        found: ranks of the queries.
        right: right answers of each.
        items: among which it was answered.
        picture: row of each query's picture.
        ks: of the recalls.
    """
    recalls, moves = [], np.zeros(int(picture.max()) + 1)
    total = np.full(len(right), items)
    for k in ks:
        hits = found.found(k)
        moved = influence(hits, picture)
        low, high = interval(float(hits.mean()), moved)
        chance = float(found_by_chance(total, right, k).mean())
        recalls.append(Recall(k, float(hits.mean()), low, high, chance, float(found.found_by_lot(k).mean())))
        moves += moved
    against = found.against
    median = chance_median(items, right)
    way = Direction(
        len(against),
        items,
        tuple(recalls),
        float(np.median(against)),
        float(against.mean()),
        median,
        int((found.tied > 0).sum()),
    )
    return way, moves


def influence(
    hits: Float64[np.ndarray, " queries"], picture: Int[np.ndarray, " queries"]
) -> Float64[np.ndarray, " pictures"]:
    """What each picture moves the mean over queries by: (its hits − mean × its queries) / all queries."""
    sums, sizes = np.bincount(picture, hits), np.bincount(picture)
    return (sums - hits.mean() * sizes) / len(hits)


def _variance(moves: Float64[np.ndarray, " pictures"]) -> float:
    """Of the mean, pictures being the independent draws."""
    n = len(moves)
    return float(n / (n - 1) * (moves**2).sum()) if n > 1 else float("inf")


def interval(share: float, moves: Float64[np.ndarray, " pictures"]) -> tuple[float, float]:
    """95 % interval of a share over pictures: Wilson's, with as many queries as the spread between pictures allows.

    All queries of a picture count as one draw, so five captions of one picture are not five pictures. Where every
    picture scores alike the pictures themselves are counted. The gallery counts as given.

    Args:
        share: 0 to 1.
        moves: of the pictures, from `influence`.

    Source: Wilson 1927; effective sample size as in Korn and Graubard 1998, Survey Methodology 24.
    """
    variance, n = _variance(moves), float(len(moves))
    if math.isinf(variance):
        return 0.0, 1.0
    if variance > 1e-15 and 0 < share < 1:
        n = share * (1 - share) / variance
    return wilson(share * n, n)


def chance_median(items: int, right: Int[np.ndarray, " queries"]) -> float:
    """The median rank of the best right answer when items are in random order.

    Args:
        items: among which is answered.
        right: right answers of each query.
    """
    kinds, counts = np.unique(right, return_counts=True)
    low, high = 1, items
    while low < high:  # the smallest rank that half of the queries reach
        middle = (low + high) // 2
        reached = found_by_chance(np.full(len(kinds), items), kinds, middle)
        if float((reached * counts).sum() / counts.sum()) >= 0.5 - 1e-9:
            high = middle
        else:
            low = middle + 1
    return float(low)

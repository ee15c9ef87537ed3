"""Selective decoding: a stream's predicted embeddings are cut into segments, and text is made once a segment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sutura.core.errors import UserError
from sutura.core.runtime import derive_seed

Embeddings = Float[np.ndarray, "frames dim"]
Segments = Int[np.ndarray, " frames"]

#: Way of decoding → how it cuts the stream and what it decodes of a piece, for the report.
WAYS = {
    "selective": "Ward segments of the embeddings, their mean decoded",
    "selective, middle frame": "Ward segments, the frame in their middle decoded",
    "uniform, mean": "equal pieces, their mean decoded",
    "uniform": "equal pieces, the frame in their middle decoded",
    "random cuts": "as many drawn cuts, the mean decoded",
}


def ward_segments(embeddings: Embeddings, count: int) -> Segments:
    """Cut a stream into `count` runs of frames, merging neighbours so that variance within grows least.

    Args:
        embeddings: one a frame, in order.
        count: segments; as many as frames at most.

    Returns:
        Each frame's segment, 0 first.

    Raises:
        UserError: fewer than one segment, or scikit-learn is not installed.

    Source: Chen et al. 2025, arXiv:2512.10942, selective decoding: agglomerative clustering with
        temporal connectivity, by variance within (Ward 1963).
    """
    frames = len(embeddings)
    if count < 1:
        raise UserError(f"{count} segments: a stream is cut into at least one.")
    if count >= frames:
        return np.arange(frames)
    if count == 1:
        return np.zeros(frames, np.int64)
    try:
        from sklearn.cluster import AgglomerativeClustering
    except ImportError:
        raise UserError(
            "Selective decoding needs scikit-learn, which is not installed: pip install 'scikit-learn>=1.7'."
        ) from None
    from scipy.sparse import diags_array

    neighbours = diags_array([np.ones(frames - 1)] * 2, offsets=[-1, 1], format="csr")  # type: ignore[arg-type]
    found = AgglomerativeClustering(n_clusters=count, linkage="ward", connectivity=neighbours)
    return in_time(found.fit_predict(np.asarray(embeddings, np.float64)))


def in_time(labels: Int[np.ndarray, " frames"]) -> Segments:
    """Segments numbered in the order in which they come."""
    return np.cumsum(np.concatenate([[0], np.diff(labels) != 0])).astype(np.int64)


def uniform_segments(frames: int, count: int) -> Segments:
    """Equal pieces, as far as frames allow."""
    return np.arange(frames) * min(count, frames) // frames


def random_segments(frames: int, count: int, rng: np.random.Generator) -> Segments:
    """As many pieces with drawn cuts."""
    cuts = np.sort(rng.choice(np.arange(1, frames), size=min(count, frames) - 1, replace=False))
    return np.searchsorted(cuts, np.arange(frames), side="right")


def decoded(
    embeddings: Embeddings, segments: Segments, decode: Callable[[Embeddings], Sequence[str]], *, mean: bool
) -> list[str]:
    """Each frame's text: its segment's, decoded once.

    Args:
        embeddings: one a frame, of length one.
        segments: each frame's.
        decode: embeddings → texts; called with one embedding a segment.
        mean: decode the segment's mean, else its middle frame.
    """
    pieces = [np.flatnonzero(segments == piece) for piece in range(segments.max() + 1)]
    picked = [embeddings[p].mean(axis=0) if mean else embeddings[p[len(p) // 2]] for p in pieces]
    told = decode(np.stack(picked))
    return [str(told[int(piece)]) for piece in segments]


def nearest_text(
    texts: Sequence[str], table: Float[np.ndarray, "texts dim"]
) -> Callable[[Embeddings], list[str]]:
    """A decoder that says the candidate of greatest cosine. Raises UserError without candidates."""
    if not len(texts):
        raise UserError("There is no candidate text to decode with.")
    return lambda rows: [str(texts[int(i)]) for i in (rows @ table.T).argmax(axis=1)]


@dataclass(frozen=True)
class Watched:
    """A stream as the model sees it: predicted embeddings, and what was true of each frame."""

    embeddings: Embeddings
    truth: tuple[str, ...]
    changes: tuple[int, ...]


def things(text: str) -> Counter[tuple[str, ...]]:
    """What a text names: its parts between full stops, each as its words in any order."""
    return Counter(tuple(sorted(words)) for part in text.split(".") if (words := part.split()))


def f1(said: str, true: str) -> float:
    """Harmonic mean of precision and recall over things named, each wholly right or wrong."""
    found, wanted = things(said), things(true)
    shared = (found & wanted).total()
    return 2 * shared / (found.total() + wanted.total()) if shared else 0.0


def whole(said: str, true: str) -> float:
    """1 where all things there were named and no other."""
    return float(things(said) == things(true))


Score = Callable[[str, str], float]
"""What was said and what is true of a frame → 0 to 1."""


def quality(told: Sequence[str], truth: Sequence[str], score: Score = whole) -> float:
    """Mean over frames."""
    return float(np.mean([score(said, true) for said, true in zip(told, truth, strict=True)]))


def curve(
    streams: Sequence[Watched],
    decode: Callable[[Embeddings], Sequence[str]],
    decodes: Sequence[int],
    seed: int = 0,
    score: Score = whole,
) -> dict[str, Any]:
    """Quality against decoding operations a stream, by way of decoding; every stream is scored at every number.

    Returns:
        `decodes`, the numbers; `ways`, way → streams × numbers of quality; `true changes`, quality and mean number of
        operations where the true change points cut.

    Raises:
        UserError: no stream.
    """
    if not streams:
        raise UserError("There is no stream to decode.")
    numbers = sorted({min(number, min(len(s.truth) for s in streams)) for number in decodes})
    ways: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    exact: list[float] = []
    for i, stream in enumerate(streams):
        rng = np.random.default_rng(derive_seed(seed, "cuts", i))
        rows: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in numbers:
            ward = ward_segments(stream.embeddings, number)
            even = uniform_segments(len(stream.truth), number)
            drawn = random_segments(len(stream.truth), number, rng)
            for way, segments in zip(WAYS, (ward, ward, even, even, drawn), strict=True):
                mean = way not in ("uniform", "selective, middle frame")
                rows[way].append(
                    quality(decoded(stream.embeddings, segments, decode, mean=mean), stream.truth, score)
                )
        for way, row in rows.items():
            ways[way].append(row)
        true = np.searchsorted(np.asarray(stream.changes), np.arange(len(stream.truth)), side="right")
        exact.append(quality(decoded(stream.embeddings, true, decode, mean=True), stream.truth, score))
    return {
        "decodes": numbers,
        "ways": ways,
        "true changes": {
            "quality": exact,
            "decodes": float(np.mean([len(s.changes) + 1 for s in streams])),
        },
    }


def needed(curve_of: Float[np.ndarray, " numbers"], decodes: Sequence[int], level: float) -> float:
    """Operations at which a curve first reaches a level, between two numbers by a straight line; inf where never."""
    for i, value in enumerate(curve_of):
        if value >= level:
            if i == 0:
                return float(decodes[0])
            before = curve_of[i - 1]
            part = (level - before) / (value - before)
            return float(decodes[i - 1] + part * (decodes[i] - decodes[i - 1]))
    return float("inf")


def _or_never(ratio: float) -> float | None:
    """JSON has no infinity: None where uniform decoding never gets there."""
    return float(ratio) if np.isfinite(ratio) else None


def summary(found: Mapping[str, Any], at: int, seed: int = 0, resamples: int = 2000) -> dict[str, Any]:
    """Means with 95 % intervals over streams, and how many uniform decodes equal `at` selective ones.

    Args:
        found: as `curve` gives it.
        at: selective decoding operations whose quality is asked of uniform decoding.
        seed: of the bootstrap over streams.
        resamples: of it.
    """
    numbers = list(found["decodes"])
    ways = {way: np.asarray(rows) for way, rows in found["ways"].items()}
    count = len(ways["uniform"])
    draws = np.random.default_rng(derive_seed(seed, "streams")).integers(count, size=(resamples, count))
    rows = {}
    for way, values in ways.items():
        low, high = np.quantile(values[draws].mean(axis=1), (0.025, 0.975), axis=0)
        rows[way] = {"mean": values.mean(axis=0).tolist(), "low": low.tolist(), "high": high.tolist()}
    place = numbers.index(at)
    best = ways["selective"][:, place]
    ratios = [
        needed(ways["uniform"][draw].mean(axis=0), numbers, float(best[draw].mean())) / at
        for draw in draws[:500]
    ]
    low, high = np.quantile(ratios, (0.025, 0.975), method="inverted_cdf")
    gap = ways["selective"][:, place] - ways["uniform"][:, place]
    gaps = gap[draws].mean(axis=1)
    return {
        "streams": count,
        "decodes": numbers,
        "ways": rows,
        "at": at,
        "uniform needs": _or_never(needed(ways["uniform"].mean(axis=0), numbers, float(best.mean())) / at),
        "uniform needs, interval": [_or_never(low), _or_never(high)],
        "gain": float(gap.mean()),
        "gain, interval": [float(np.quantile(gaps, 0.025)), float(np.quantile(gaps, 0.975))],
        "true changes": {
            "quality": float(np.mean(found["true changes"]["quality"])),
            "decodes": found["true changes"]["decodes"],
        },
    }

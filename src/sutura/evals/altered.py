"""Copies that hashes miss: mirrored, cropped at the sides, turned to grey, recoloured, and all of that at once.

Two steps over the 32 × 32 thumbnails. The lowest frequencies of every picture are a vector; pairs whose vectors point
the same way are candidates, with one of the two mirrored or looked at through a smaller window as well. Then one
thumbnail is laid over the other where they agree best, and judged there (`alignment.py`).
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from sutura.core.runtime import cpu_count
from sutura.evals.alignment import Fit, compare, grey, halved, hat
from sutura.evals.lookalikes import THUMBNAIL, PictureHashes

#: Cosine from which two whole pictures are a candidate, and from which a picture and a window of another are.
WHOLE, WINDOW = 0.6, 0.8
#: Candidates of a test picture that are looked at, of each hand; the most alike first.
KEPT = 6
#: Parts of a side that a copy may have lost: left, top, right, bottom. What lies between is near one of them.
WINDOWS = ((0.07,) * 4, (0.08, 0.08, 0, 0), (0, 0.08, 0.08, 0), (0.08, 0, 0, 0.08), (0, 0, 0.08, 0.08))
_FREQUENCIES = 6
_COARSE = THUMBNAIL // 2
#: Standard deviation of brightness (0–255) under which a picture is too plain to be told from others.
_PLAIN = 4.0
#: Test and training pictures whose vectors are compared, and pairs that are aligned, at a time.
_ROWS, _COLUMNS = 256, 2_048
_PAIRS = 500


class Copy(NamedTuple):
    """One picture that is another one, altered.

    Args:
        picture: the training picture's id.
        how: what was done, in words: "mirrored, cropped".
    """

    picture: str
    how: str


def altered_matches(
    test: PictureHashes, train: PictureHashes, skip: Collection[str] = ()
) -> dict[str, tuple[Copy, ...]]:
    """Test picture → training pictures that it is an altered copy of, or that are altered copies of it.

    Args:
        test, train: with thumbnails of 32 × 32.
        skip: test pictures that are not looked at.
    """
    rows = np.array([row for row, name in enumerate(test.ids) if name not in skip], np.int64)
    if not len(rows) or not len(train.ids):
        return {}
    found: dict[str, dict[str, str]] = {}
    for mirrored in (False, True):
        ours = test.thumbnails[rows]
        ours = ours[:, :, ::-1] if mirrored else ours
        i, j = candidates(ours, train.thumbnails)
        parts = [slice(at, at + _PAIRS) for at in range(0, len(i), _PAIRS)]
        pairs = [(train.thumbnails, j[part], ours, i[part]) for part in parts]
        with ThreadPoolExecutor(cpu_count()) as pool:
            for (_, j_part, _, i_part), fit in zip(pairs, pool.map(_compare, pairs), strict=True):
                for at in np.flatnonzero(fit.same).tolist():
                    one, other = test.ids[rows[i_part[at]]], train.ids[j_part[at]]
                    found.setdefault(one, {}).setdefault(other, fit.how(at, mirrored))
    return {name: tuple(Copy(*pair) for pair in sorted(pairs.items())) for name, pairs in found.items()}


def _compare(pairs: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]) -> Fit:
    train, j, test, i = pairs
    return compare(train[j], test[i])


def candidates(
    test: UInt8[np.ndarray, "test 32 32 3"], train: UInt8[np.ndarray, "train 32 32 3"]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of test and of train that may be copies, at most KEPT a test picture, by test picture."""
    ours, theirs = _coarse(test), _coarse(train)
    whole, others = _vectors(ours), np.ascontiguousarray(_vectors(theirs).T)
    views = [(whole, others, WHOLE)]
    for window in WINDOWS:
        cut = cut_of(window)
        views.append((_vectors(ours, cut), others, WINDOW))
        views.append((whole, np.ascontiguousarray(_vectors(theirs, cut).T), WINDOW))
    starts = range(0, len(test), _ROWS)
    with ThreadPoolExecutor(cpu_count()) as pool:
        blocks = pool.map(lambda start: _block(views, start, start + _ROWS), starts)
        pairs = [(i + start, j) for start, (i, j) in zip(starts, blocks, strict=True)]
    return np.concatenate([i for i, _ in pairs]), np.concatenate([j for _, j in pairs])


def _block(
    views: list[tuple[np.ndarray, np.ndarray, float]], start: int, stop: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best pairs of some test pictures over all views. The vectors of a view have cosines of their own scale."""
    found = [_above(ours[start:stop], theirs, least) for ours, theirs, least in views]
    i, j, scores = (np.concatenate(columns) for columns in zip(*found, strict=True))
    order = np.lexsort((-scores, j, i))
    i, j, scores = i[order], j[order], scores[order]
    first = np.ones(len(i), bool)
    first[1:] = (i[1:] != i[:-1]) | (j[1:] != j[:-1])
    i, j, scores = i[first], j[first], scores[first]
    keep = _best(i, scores)
    return i[keep], j[keep]


def _above(ours: np.ndarray, theirs: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and cosines of the best pairs of every row above a cosine; piece by piece, to stay in the cache."""
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    for at in range(0, theirs.shape[1], _COLUMNS):
        alike = (ours @ theirs[:, at : at + _COLUMNS]).ravel()
        hits = np.flatnonzero(alike > least)
        if len(hits):
            i, j = np.divmod(hits, min(_COLUMNS, theirs.shape[1] - at))
            keep = _best(i, alike[hits])
            parts.append((i[keep], j[keep] + at, alike[hits[keep]]))
    i, j, scores = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    keep = _best(i, scores)
    return i[keep], j[keep], scores[keep]


def _best(rows: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Places of the KEPT highest scores of every row; ties in the order given."""
    order = np.lexsort((-scores, rows))
    sorted_rows = rows[order]
    begins = np.searchsorted(sorted_rows, sorted_rows)
    return order[np.arange(len(rows)) - begins < KEPT]


def _coarse(thumbnails: np.ndarray) -> Float32[np.ndarray, "pictures 16 16"]:
    parts = [halved(grey(thumbnails[at : at + 8192])) for at in range(0, len(thumbnails), 8192)]
    return np.concatenate(parts) if parts else np.zeros((0, _COARSE, _COARSE), np.float32)


def cut_of(window: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Matrices that stretch the window of a coarse picture over the whole, for rows and for columns."""
    left, top, right, bottom = window
    cells = np.arange(_COARSE) + 0.5

    def stretched(before: float, behind: float) -> np.ndarray:
        return hat(cells * (1 - before - behind) + before * _COARSE - 0.5, _COARSE)

    return stretched(top, bottom), stretched(left, right)


def _vectors(
    coarse: Float32[np.ndarray, "pictures 16 16"], cut: tuple[np.ndarray, np.ndarray] | None = None
) -> Float32[np.ndarray, "pictures 35"]:
    """Low frequencies of brightness without the mean, higher ones weighted up, at length 1; plain pictures give 0."""
    at = np.arange(_FREQUENCIES, dtype=np.float32)
    waves = np.cos(np.pi / _COARSE * at[:, None] * (np.arange(_COARSE, dtype=np.float32) + 0.5))
    waves *= np.sqrt(np.where(at == 0, 1, 2) / _COARSE).astype(np.float32)[:, None]
    rows, columns = (waves, waves) if cut is None else (waves @ cut[0], waves @ cut[1])
    weights = (1 + at[:, None] + at).astype(np.float32)
    found = (rows @ coarse @ columns.T * weights).reshape(len(coarse), -1)[:, 1:]
    length = np.linalg.norm(found, axis=1, keepdims=True)
    plain = coarse.std((1, 2))[:, None] < _PLAIN
    return np.where(plain, 0, found / np.maximum(length, 1e-6)).astype(np.float32)

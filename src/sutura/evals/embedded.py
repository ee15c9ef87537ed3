"""Near-duplicates by an encoder's features, where they are on disk already: candidates to look at, not matches.

A cosine says that two pictures look alike to this encoder, not that one is a copy of the other; so these stand apart
from what hashes and thumbnails find, and no score is computed without them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from sutura.encoders.cache import Store, estimate_bytes

if TYPE_CHECKING:
    from sutura.evals.contamination import Pair

#: A pair is named from this cosine on, and only if it is nearer than this share of training pictures is to its nearest
#: fellow. Encoders differ too much for one cosine: docs/contamination.md has what is found with some.
LEAST, SHARE = 0.9, 0.99
#: Training pictures whose nearest fellow is looked for, evenly spread.
_SAMPLED = 2_000
#: Bytes of features up to which they are read for this.
LARGEST = 8_000_000_000
#: Pairs that are kept by name.
NAMED = 100
_READ, _BLOCK = 256, 16_000_000


@dataclass(frozen=True)
class Alike:
    """Test pictures whose features are nearly those of a training picture.

    Args:
        encoder: whose features.
        test_pictures: how many were compared.
        count: how many have such a training picture.
        threshold: cosine from which a picture counts as nearly the same, of features less their mean in training.
        pairs: the nearest pairs (test picture, training picture, cosine), at most NAMED, the nearest first.
        missed: why nothing was compared; empty where it was.
    """

    encoder: str
    test_pictures: int
    count: int
    threshold: float
    pairs: tuple[tuple[str, str, float], ...]
    missed: str = ""

    def summary(self) -> str:
        """One sentence for the report."""
        if self.missed:
            return f"Near-duplicates by features of {self.encoder} were not looked for: {self.missed}."
        if not self.count:
            return (
                f"By features of {self.encoder} no other picture ({self.test_pictures:,}) has a training picture with "
                f"a cosine of {self.threshold:.3f} or more."
            )
        test, train, cosine = self.pairs[0]
        return (
            f"By features of {self.encoder} {self.count:,} of {self.test_pictures:,} other pictures have a training "
            f"picture with a cosine of {self.threshold:.3f} or more, the nearest {test} and {train} ({cosine:.3f}). "
            "These are candidates to look at, not counted as copies."
        )

    def facts(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "encoder": self.encoder,
            "test_pictures": self.test_pictures,
            "count": self.count,
            "threshold": self.threshold,
            "pairs": [list(pair) for pair in self.pairs],
            "missed": self.missed,
        }

    def named(self) -> list[Pair]:
        """The pairs as a contact sheet takes them."""
        from sutura.evals.contamination import Pair

        return [Pair(test, train, f"cosine {cosine:.3f}") for test, train, cosine in self.pairs]


def alike(encoder: str, train: Store, test: Store, known: Collection[str] = ()) -> Alike:
    """Compare the features of a test set with those of a training set, each picture by the mean of its patches.

    Args:
        encoder: its name, for the sentence.
        train, test: features on disk.
        known: test pictures that are copies already, and not looked at.
    """
    names = [name for name in test.image_ids if name not in known]
    size = sum(estimate_bytes(len(each), each.num_tokens, each.width, each.dtype) for each in (train, test))
    if size > LARGEST:
        return Alike(
            encoder, len(names), 0, LEAST, (), f"{size / 1e9:.1f} GB of features would have to be read"
        )
    if not names or len(train) < 2:
        return Alike(encoder, len(names), 0, LEAST, ())
    theirs, ours = pooled(train, train.image_ids), pooled(test, names)
    middle = theirs.mean(0)
    theirs, ours = _directions(theirs - middle), _directions(ours - middle)
    chosen = np.unique(np.linspace(0, len(theirs) - 1, min(_SAMPLED, len(theirs))).astype(np.int64))
    threshold = max(LEAST, float(np.quantile(_nearest(theirs[chosen], theirs, chosen)[1], SHARE)))
    nearest, cosine = _nearest(ours, theirs)
    found = np.flatnonzero(cosine >= threshold)
    order = found[np.argsort(-cosine[found], kind="stable")][:NAMED]
    pairs = tuple((names[i], train.image_ids[nearest[i]], round(float(cosine[i]), 4)) for i in order)
    return Alike(encoder, len(names), len(found), threshold, pairs)


def pooled(store: Store, names: Sequence[str]) -> Float32[np.ndarray, "pictures width"]:
    """Mean patch features of pictures, read a few at a time."""
    parts = [store.rows(names[at : at + _READ]).float().mean(1).numpy() for at in range(0, len(names), _READ)]
    return np.concatenate(parts)


def _directions(features: np.ndarray) -> np.ndarray:
    return (features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def _nearest(
    ours: np.ndarray, theirs: np.ndarray, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Row of the nearest of `theirs` and its cosine; `own` are the rows of each one itself, left out."""
    nearest, cosine = np.zeros(len(ours), np.int64), np.zeros(len(ours), np.float32)
    rows = max(1, _BLOCK // len(theirs))
    for start in range(0, len(ours), rows):
        block = ours[start : start + rows] @ theirs.T
        if own is not None:
            block[np.arange(len(block)), own[start : start + rows]] = -1
        nearest[start : start + rows], cosine[start : start + rows] = block.argmax(1), block.max(1)
    return nearest, cosine

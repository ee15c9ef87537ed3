"""Simulated comparisons whose truth is known: what intervals, tests and `sutura power` are held against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import root_scalar
from scipy.special import ndtr, stdtr, stdtrit

from sutura.compare.crossed import Crossed, crossed
from sutura.compare.statistics import CONFIDENCE

#: Latent standard deviation for one point of accuracy, near the middle of the scale.
PER_POINT = 0.039
#: Scores held at once.
_CHUNK = 6_000_000


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard deviations of an encoder's accuracy, about in points, as `components` finds them in real ledgers.

    Args:
        picture, item: of pictures and questions, the same for all encoders and seeds.
        seed: between training seeds.
        seed_picture: of a picture under one encoder and seed.
        late: share of seeds that come late and score `drop` points less.
    """

    picture: float = 3.0
    item: float = 29.0
    seed: float = 4.5
    seed_picture: float = 3.0
    late: float = 0.0
    drop: float = 9.0

    def latent(self) -> tuple[float, float, float, float, float]:
        """Picture, item, seed, seed and picture, drop, on the scale of the normal deviate."""
        found = (self.picture, self.item, self.seed, self.seed_picture, self.drop)
        return tuple(PER_POINT * value for value in found)  # type: ignore[return-value]


class Run(NamedTuple):
    """Simulated comparisons: right answers by picture, and questions a picture."""

    sums: Float[np.ndarray, "runs encoders seeds pictures"]
    sizes: Float[np.ndarray, "pictures"]


def simulate(
    runs: int,
    accuracies: Sequence[float],
    seeds: int,
    pictures: int,
    per_picture: int,
    noise: Noise,
    draw: int = 0,
) -> Iterator[Run]:
    """Comparisons in chunks: an answer is right when a normal deviate says so, moved by every source of noise.

    Args:
        runs: how many comparisons.
        accuracies: true mean accuracy of every encoder, 0 to 1.
        seeds, pictures, per_picture: the design.
        noise: its sources.
        draw: seed of the random numbers.
    """
    rng = np.random.default_rng(draw)
    of_picture, of_item, of_seed, of_both, drop = noise.latent()
    scale = float(np.sqrt(1 + of_picture**2 + of_item**2 + of_seed**2 + of_both**2))
    centre = np.array([_centre(accuracy, scale, noise.late, drop) for accuracy in accuracies])
    count = len(accuracies)
    at_once = max(1, _CHUNK // (count * seeds * pictures * per_picture))
    sizes = np.full(pictures, float(per_picture))
    for start in range(0, runs, at_once):
        rows = min(at_once, runs - start)
        shared = of_picture * rng.standard_normal((rows, 1, 1, pictures, 1), np.float32)
        shared = shared + of_item * rng.standard_normal((rows, 1, 1, pictures, per_picture), np.float32)
        own = of_seed * rng.standard_normal((rows, count, seeds, 1, 1), np.float32)
        if noise.late:
            own -= drop * (rng.random((rows, count, seeds, 1, 1)) < noise.late)
        own = own + of_both * rng.standard_normal((rows, count, seeds, pictures, 1), np.float32)
        level = centre[:, None, None, None].astype(np.float32) + own
        chosen = rng.standard_normal((rows, count, seeds, pictures, per_picture), np.float32)
        chosen -= level
        yield Run((chosen < shared).sum(-1).astype(np.float64), sizes)


def _centre(accuracy: float, scale: float, late: float, drop: float) -> float:
    """Latent mean that gives an accuracy, averaged over all noise."""

    def reached(centre: float) -> float:
        return float((1 - late) * ndtr(centre / scale) + late * ndtr((centre - drop) / scale)) - accuracy

    return float(root_scalar(reached, bracket=(-10 * scale, 10 * scale)).root)


def pairs_of(run: Run) -> Crossed:
    """Every pair's paired difference: runs × pairs."""
    left, right = zip(*combinations(range(run.sums.shape[1]), 2), strict=True)
    return crossed(run.sums[:, left] - run.sums[:, right], run.sizes)


def p_values(found: Crossed) -> Float[np.ndarray, "*batch"]:
    """Two-sided, of no difference."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(
            found.variance > 0, 2 * stdtr(found.df, -np.abs(found.mean) / np.sqrt(found.variance)), 1.0
        )


def covered(found: Crossed, truth: float) -> Float[np.ndarray, "*batch"]:
    """1.0 where the 95 % interval holds the truth."""
    half = stdtrit(found.df, (1 + CONFIDENCE) / 2) * np.sqrt(found.variance)
    return (np.abs(found.mean - truth) <= half).astype(float)

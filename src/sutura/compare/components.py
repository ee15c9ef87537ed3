"""Where the noise of a paired difference comes from: pictures, questions, training seeds and what they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from sutura.compare.scores import Arm, Scores, common_items, common_seeds
from sutura.compare.statistics import require_comparable
from sutura.core.errors import UserError


@dataclass(frozen=True, slots=True)
class Components:
    """Variances of one question's difference under one seed (a score is 0 to 1).

    Args:
        picture: between pictures, whatever the seed.
        item: between questions of a picture, whatever the seed.
        seed: between training seeds, for all questions alike.
        seed_picture: between seeds, for all questions of a picture alike.
        rest: between seeds, of a single question.
    """

    picture: float
    item: float
    seed: float
    seed_picture: float
    rest: float

    @property
    def once(self) -> float:
        """Variance of a single answer's difference, seeds' own part left out."""
        return self.picture + self.item + self.seed_picture + self.rest


def components(gap: Float[np.ndarray, "seeds items"], picture: Int[np.ndarray, "items"]) -> Components:
    """Estimate the components by equating mean squares with what is expected of them; none falls below 0.

    With one question a picture the two cannot be separated, and pictures get all.

    Args:
        gap: difference of each item under each seed.
        picture: of each item.

    Raises:
        UserError: fewer than two seeds or two pictures, where a part cannot be had.

    Source: Searle, Casella and McCulloch 1992, Variance Components, section 5.3 (moments, unequal numbers), for seeds
        crossed with items nested in pictures.
    """
    _, code, sizes = np.unique(picture, return_inverse=True, return_counts=True)
    seeds, count, pictures = len(gap), gap.shape[1], len(sizes)
    if seeds < 2 or pictures < 2:
        raise UserError(
            f"{seeds} seed and {pictures} pictures: the noise of training and of pictures can be told apart from two "
            "of each on. Give ledgers with more, or say the noise yourself (seed_sd)."
        )
    mean, of_seed, of_item = gap.mean(), gap.mean(1), gap.mean(0)
    cells = np.stack([np.bincount(code, weights=row) for row in gap]) / sizes
    of_picture = cells.mean(0)
    usual = (count - (sizes**2).sum() / count) / (pictures - 1)
    heavy = (sizes**2).sum() / count
    ms_picture = seeds * (sizes * (of_picture - mean) ** 2).sum() / (pictures - 1)
    ms_seed = count * ((of_seed - mean) ** 2).sum() / (seeds - 1)
    inner = cells - of_picture - of_seed[:, None] + mean
    ms_cell = (sizes * inner**2).sum() / ((seeds - 1) * (pictures - 1))
    item = rest = 0.0
    within = count - pictures
    if within:
        ms_item = seeds * ((of_item - of_picture[code]) ** 2).sum() / within
        single = gap - of_item - cells[:, code] + of_picture[code]
        rest = float((single**2).sum() / ((seeds - 1) * within))
        item = max(float(ms_item - rest) / seeds, 0.0)
    both = max(float(ms_cell - rest) / usual, 0.0)
    seed = max(float(ms_seed - heavy * both - rest) / count, 0.0)
    of_pictures = float(ms_picture - seeds * item - usual * both - rest) / (seeds * usual)
    return Components(max(of_pictures, 0.0), item, seed, both, rest)


@dataclass(frozen=True, slots=True)
class Found:
    """What ledgers say of the noise of a comparison.

    Args:
        noise: mean over the pairs.
        pairs: components of every pair.
        accuracy: mean over the encoders.
        per_picture: questions a picture.
    """

    noise: Components
    pairs: dict[tuple[Arm, Arm], Components]
    accuracy: float
    per_picture: float


def components_of(frame: pl.DataFrame, benchmark: str | None = None, metric: str = "exact") -> Found:
    """Components of every pair of encoders of a ledger.

    Args:
        frame: as `read_ledgers` gives it.
        benchmark: which; the first by name when left out.
        metric: the score column.

    Raises:
        UserError: fewer than two encoders with the right picture, or two seeds, or what `Scores.of` refuses.
    """
    scores, arms, _ = encoders_of(frame, benchmark, metric)
    pairs = {}
    for a, b in combinations(arms, 2):
        require_comparable(scores, a, b)
        left, right = scores.answers(a), scores.answers(b)
        pairs[a, b] = components(left.values - right.values, scores.picture_of[left.items])
    items = scores.answers(arms[0]).items
    level = float(np.mean([scores.answers(arm).values.mean() for arm in arms]))
    return Found(
        average(list(pairs.values())), pairs, level, len(items) / len(np.unique(scores.picture_of[items]))
    )


def encoders_of(
    frame: pl.DataFrame, benchmark: str | None, metric: str
) -> tuple[Scores, list[Arm], list[str]]:
    """Scores over common seeds and items, the encoders with the right picture, and what was left out.

    Raises:
        UserError: fewer than two such encoders, or what `Scores.of` refuses.
    """
    frame, notes = common_seeds(frame)
    frame, more = common_items(frame)
    scores = Scores.of(frame, benchmark or str(frame["benchmark"].min()), metric)
    arms = [arm for arm in scores.arms if arm.condition == "picture"]
    if len(arms) < 2:
        raise UserError(
            f"{scores.benchmark} has {len(arms)} encoder with the right picture here; a difference needs two."
        )
    return scores, arms, [*notes, *more]


def average(found: Sequence[Components]) -> Components:
    """The mean of each component."""
    return Components(*np.mean([astuple(one) for one in found], axis=0).tolist())


def ledgers_of(path: Path) -> list[Path]:
    """Ledgers of a comparison's directory, of a folder of Parquet files, or the one file."""
    from sutura.compare.publish import COMPARISON, read_comparison

    if path.is_file():
        return [path]
    if (path / COMPARISON).is_file():
        return read_comparison(path).ledgers
    found = sorted(path.glob("*.parquet"))
    if not found:
        raise UserError(
            f"{path} is no comparison (it has no {COMPARISON}) and holds no ledgers (*.parquet). Name runs/<name>, a "
            "folder of ledgers, or a ledger."
        )
    return found

"""Metrics that need a download: WUPS and BERTScore, computed from a ledger when they are asked for.

They are no columns of the ledger, so that a ledger does not depend on what is installed where it was made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import polars as pl

from sutura.core.errors import UserError
from sutura.core.registry import suggest
from sutura.evals.wups import THRESHOLD, wordnet_similarity, wups

METRICS = ("wups", "bertscore")
_WUPS = re.compile(r"wups(?:@(?P<threshold>0|1|0?\.\d+|1\.0))?")

#: (predictions, references of each) → a score of each.
Scorer = Callable[[Sequence[str], Sequence[Sequence[str]]], list[float]]


def extra_scorer(metric: str) -> Scorer:
    """What computes `wups`, `wups@0.5` (another threshold) or `bertscore`.

    Raises:
        UserError: an unknown metric, or one whose package or data is not there.
    """
    if found := _WUPS.fullmatch(metric):
        similarity = wordnet_similarity()
        threshold = float(found["threshold"] or THRESHOLD)
        return lambda said, golds: [
            wups(answer, gold, similarity, threshold) for answer, gold in zip(said, golds, strict=True)
        ]
    if metric == "bertscore":
        return _bert_scores
    raise UserError(
        f"There is no extra metric {metric!r}; there are wups, wups@THRESHOLD and bertscore. {suggest(metric, METRICS)}"
    )


def _bert_scores(said: Sequence[str], golds: Sequence[Sequence[str]]) -> list[float]:
    """BERTScore's F1 with its default English model, not rescaled; the best reference counts, an empty answer is 0.

    Source: Zhang et al. 2020, arXiv:1904.09675; computed by the bert_score package.
    """
    try:
        from bert_score import score  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            "BERTScore needs the package bert_score, which is not installed. Run `pip install bert-score`; its model "
            "(roberta-large, 1.4 GB) is downloaded with the first use. Every other metric works without."
        ) from None
    places = [place for place, answer in enumerate(said) if answer.strip() and golds[place]]
    values = [0.0] * len(said)
    if not places:
        return values
    try:
        _, _, found = score(
            [said[place] for place in places],
            [list(golds[place]) for place in places],
            lang="en",
            verbose=False,
        )
    except OSError as error:
        raise UserError(
            "BERTScore's model (roberta-large, 1.4 GB) is not in the cache and cannot be downloaded "
            f"({str(error).splitlines()[0]}). Run once with a connection."
        ) from None
    for place, value in zip(places, found.tolist(), strict=True):
        values[place] = min(1.0, max(0.0, float(value)))
    return values


def with_extra(frame: pl.DataFrame, metric: str) -> pl.DataFrame:
    """A ledger whose column `exact` holds an extra metric instead, for tables of one metric; nothing else changes.

    Every wording is scored once, however many runs gave it.

    Raises:
        UserError: as `extra_scorer`.
    """
    scorer = extra_scorer(metric)
    pairs = frame.select("prediction", "references").unique(maintain_order=True)
    scores = scorer(pairs["prediction"].to_list(), pairs["references"].to_list())
    scored = pairs.with_columns(pl.Series("scored", scores, pl.Float64))
    joined = frame.join(scored, on=["prediction", "references"], how="left", maintain_order="left")
    return joined.with_columns(pl.col("scored").alias("exact")).select(frame.columns)

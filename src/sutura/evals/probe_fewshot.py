"""The linear probe on a few pictures a class, over several draws of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sutura.core.errors import UserError
from sutura.core.runtime import derive_seed
from sutura.data.classes import Labels
from sutura.evals.probe_features import Features
from sutura.evals.probe_linear import chosen, sweep
from sutura.evals.probe_scores import plain_score


def draw_shots(labels: Labels, classes: int, shots: int, seed: int) -> Int[np.ndarray, " pictures"]:
    """Places of `shots` pictures of each class; of a multi-label set, at least so many that show each class.

    Multi-label pictures are drawn class by class, the rarest first, until each class is shown often enough;
    a picture drawn for one class counts for every class it shows. A class nobody shows is passed over.

    Raises:
        UserError: a class with fewer pictures than shots.
    """
    shown = labels > 0.5 if labels.ndim == 2 else np.eye(classes, dtype=bool)[labels]
    have = shown.sum(axis=0)
    short = np.flatnonzero((have > 0) & (have < shots))
    if len(short):
        raise UserError(
            f"{len(short)} classes have fewer than {shots} pictures to draw from, the fewest {have[short].min()}; "
            "give the part to fit on more pictures or ask for fewer (fewshot.shots=[1])."
        )
    rng = np.random.default_rng(derive_seed(seed, "shots"))
    taken: list[int] = []
    for c in np.argsort(have, kind="stable"):
        missing = shots - int(shown[taken, c].sum()) if have[c] else 0
        if missing > 0:
            rest = np.setdiff1d(np.flatnonzero(shown[:, c]), taken)
            taken += rng.permutation(rest)[:missing].tolist()
    return np.array(sorted(taken))


def fewshot(
    fit_on: Features,
    select: Features,
    test: Features,
    classes: int,
    *,
    shots: int,
    draws: int,
    penalties: tuple[float, ...],
    steps: int,
    seed: int,
) -> tuple[Float[np.ndarray, "draws pictures classes"], dict[str, Any]]:
    """Scores of the test pictures, one set of them a draw.

    One weight decay for all draws: the one with the best mean score on the selection part. That part is larger
    than the few pictures fitted on, as is usual in such tables; nothing is fitted on it.
    """
    pooled, checked, asked = fit_on.pooled(), select.pooled(), test.pooled()
    places = [draw_shots(fit_on.labels, classes, shots, derive_seed(seed, shots, d)) for d in range(draws)]
    fits = [sweep(pooled[p], fit_on.labels[p], classes, penalties, steps=steps) for p in places]
    means = np.mean([[plain_score(one.scores(checked), select.labels) for one in f] for f in fits], axis=0)
    best = chosen(means)
    scores = np.stack([one[best].scores(asked) for one in fits])
    told = {
        "penalty": fits[0][best].penalty,
        "selection": {f"{one.penalty:g}": round(float(m), 4) for one, m in zip(fits[0], means, strict=True)},
        "fitted": [len(p) for p in places],
    }
    return scores, told

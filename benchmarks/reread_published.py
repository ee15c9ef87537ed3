"""What an earlier study's tables say once every score has its interval: prints docs/results/published_reread.md.

python benchmarks/reread_published.py [docs/results/published_scores.json]

The study gives one percentage for each encoder and set, on n = 1,000 questions, one training seed. From those alone:

- a score's 95 % interval is Wilson's;
- two scores differ with a standard error of sqrt(p q / n + p' q' / n) where their errors have nothing to do with each
  other. On the same questions they may be paired; at best every question on which they disagree favours the better one,
  and the standard error is sqrt((d - d²) / n) for a difference d. The truth lies between, unless answers are opposed;
- another training seed moves each score too. With a standard deviation s between seeds, unknown here, 2 s² joins the
  variance.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import combinations
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import norm

SCORES = Path(__file__).parents[1] / "docs" / "results" / "published_scores.json"
Z = float(norm.ppf(0.975))
#: Standard deviations between training seeds, in points, that the last columns assume.
SEEDS = (1.0, 2.0)


class Gap(NamedTuple):
    """Two encoders on one set: difference in points, half widths of its 95 % intervals, p of the independent one."""

    experiment: str
    a: str
    b: str
    where: str
    points: float
    independent: float
    paired: float
    p: float
    with_seeds: tuple[float, ...]


def wilson(percent: float, n: int) -> tuple[float, float]:
    """95 % interval of a share, in percent. Source: Wilson 1927."""
    p = percent / 100
    middle, half = p + Z**2 / (2 * n), Z * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return 100 * (middle - half) / (1 + Z**2 / n), 100 * (middle + half) / (1 + Z**2 / n)


def variance(percent: float, n: int) -> float:
    """Of a share, in points squared; one right and one wrong answer are added, so that 0 % is not certain.

    Source: Agresti and Caffo 2000, for the difference of two shares.
    """
    p = (percent * n / 100 + 1) / (n + 2)
    return 1e4 * p * (1 - p) / (n + 2)


def gaps(study: dict[str, Any]) -> Iterator[Gap]:
    """Every pair of encoders on every set and on the mean of the sets, the better one first."""
    n = study["n"]
    for experiment, scores in study["experiments"].items():
        sets = [name for name in next(iter(scores.values())) if name != "mean"]
        for where in (*sets, "mean"):
            for one, other in combinations(scores, 2):
                a, b = sorted((one, other), key=lambda name: -scores[name][where])
                used = sets if where == "mean" else [where]
                both = [(scores[a][name], scores[b][name]) for name in used]
                share = len(used) ** 2
                apart = sum(variance(p, n) + variance(q, n) for p, q in both) / share
                paired = sum(abs(p - q) * (100 - abs(p - q)) / n for p, q in both) / share
                points = scores[a][where] - scores[b][where]
                p = float(2 * norm.sf(points / sqrt(apart)))
                seeds = tuple(Z * sqrt(apart + 2 * s**2 / len(used)) for s in SEEDS)
                yield Gap(experiment, a, b, where, points, Z * sqrt(apart), Z * sqrt(paired), p, seeds)


def holm(values: list[float]) -> list[float]:
    """Adjusted p-values. Source: Holm 1979."""
    order, worst, out = sorted(range(len(values)), key=values.__getitem__), 0.0, [0.0] * len(values)
    for rank, at in enumerate(order):
        worst = max(worst, min(1.0, (len(values) - rank) * values[at]))
        out[at] = worst
    return out


def against_floor(percent: float, n: int, floor: float) -> str:
    """Where a score stands to a floor, by its interval."""
    low, high = wilson(percent, n)
    return "below" if high < floor else "above" if low > floor else "not told apart"


def floor_table(study: dict[str, Any]) -> list[str]:
    """Every score with its interval, and where it stands to the floors."""
    n, floors = study["n"], study["floors"]
    lines = ["| experiment | set | encoder | % [95 %] | floors, % | it is |", "|---|---|---|---|---|---|"]
    for experiment, scores in study["experiments"].items():
        for where, known in floors.items():
            for encoder, own in scores.items():
                low, high = wilson(own[where], n)
                told = [against_floor(own[where], n, value) for _, value in known]
                named = "; ".join(f"{kind} {value:g}" for kind, value in known)
                verdict = told[0] if len(set(told)) == 1 else ", ".join(told)
                score = f"{own[where]:.1f} [{low:.1f}, {high:.1f}]"
                lines.append(f"| {experiment} | {where} | {encoder} | {score} | {named} | {verdict} |")
    return lines


def gap_table(found: list[Gap]) -> list[str]:
    """Every difference, and what is left of it."""
    seeds = " | ".join(f"± with seeds of {s:g}" for s in SEEDS)
    head = f"points | ± independent | ± paired at best | p (Holm) | {seeds} | it survives |"
    lines = [f"| experiment | set | difference | {head}", "|---" * (8 + len(SEEDS)) + "|"]
    for gap, p in zip(found, holm([one.p for one in found]), strict=True):
        with_seeds = " | ".join(f"{half:.1f}" for half in gap.with_seeds)
        shown = "<0.001" if p < 0.001 else f"{p:.3f}"
        lines.append(
            f"| {gap.experiment} | {gap.where} | {gap.a} − {gap.b} | {gap.points:+.1f} | {gap.independent:.1f} | "
            f"{gap.paired:.1f} | {shown} | {with_seeds} | {survives(gap, p)} |"
        )
    return lines


def survives(gap: Gap, p: float) -> str:
    """In words, from the strictest to the mildest."""
    if gap.points <= gap.paired:
        return "no"
    if gap.points <= gap.independent:
        return "at best, if paired"
    if p >= 0.05:
        return "alone; not among all"
    kept = [s for s, half in zip(SEEDS, gap.with_seeds, strict=True) if gap.points > half]
    return f"yes; also with seeds of {max(kept):g}" if kept else "yes; not with seeds of 1"


def main(path: Path = SCORES) -> str:
    """The page."""
    study = json.loads(path.read_text(encoding="utf-8"))
    found = list(gaps(study))
    lines = [
        "# The published scores with intervals",
        "",
        f"Made by `benchmarks/reread_published.py`; {study['source']}.",
        "",
    ]
    lines += ["## Scores and floors", "", *floor_table(study), ""]
    lines += [
        "## Differences",
        "",
        f"Points and half widths of 95 % intervals; Holm over these {len(found)}.",
        "",
    ]
    return "\n".join([*lines, *gap_table(found), ""])


if __name__ == "__main__":
    print(main(*map(Path, sys.argv[1:])), end="")

"""`sutura power` and `sutura resample`: from what was asked to sentences and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from sutura.compare.components import Components, components_of, encoders_of, ledgers_of
from sutura.compare.power import (
    CORRELATION,
    ITEMS,
    SEED_SD,
    SEEDS,
    assumed,
    family_level,
    power_table,
    seeds_needed,
)
from sutura.compare.resampling import REPLICATES, THESE_MODELS, resampled
from sutura.compare.statistics import POWER, paired
from sutura.compare.tables import Table
from sutura.core.errors import UserError
from sutura.evals.ledger import read_ledgers

#: Questions a picture where nothing says otherwise.
PER_PICTURE = 1.0


@dataclass(frozen=True, slots=True)
class Told:
    """Sentences above a table, the table, and sentences below it."""

    above: tuple[str, ...]
    table: Table
    title: str
    below: tuple[str, ...] = ()


def power_beforehand(
    difference: float,
    runs: Path | None = None,
    *,
    benchmark: str | None = None,
    accuracy: float = 60.0,
    seed_sd: float | None = None,
    correlation: float | None = None,
    seeds: Sequence[int] = SEEDS,
    items: Sequence[int] = ITEMS,
    per_picture: float | None = None,
    encoders: int = 2,
    power: float = POWER,
) -> Told:
    """How many questions and training seeds show a difference.

    Args:
        difference: in points.
        runs: a comparison, a folder of ledgers or a ledger whose noise to go by; None goes by `accuracy` and what this
            project's runs showed.
        benchmark: of the ledgers; the first by name.
        accuracy: of both encoders, in percent; unused with `runs`.
        seed_sd: of the difference between training seeds, in points; in place of what ledgers say or runs showed.
        correlation: of two encoders' answers to one question; unused with `runs`.
        seeds, items: rows and columns of the table.
        per_picture: questions a picture; as the ledgers have it, else 1.
        encoders: in the comparison to be.
        power: probability with which the difference is to be shown.

    Raises:
        UserError: what `power_table`, `assumed` and `components_of` refuse, and a negative seed_sd.
    """
    if seed_sd is not None and seed_sd < 0:
        raise UserError(f"seed_sd {seed_sd:g} must be at least 0 points.")
    if runs is None:
        shared = CORRELATION if correlation is None else correlation
        spread = SEED_SD if seed_sd is None else seed_sd / 100
        noise = assumed(accuracy / 100, seed_sd=spread, correlation=shared)
        origin = (
            f"Assumed: accuracy {accuracy:g} %, answers of two encoders correlate at {shared:g}, a standard deviation "
            f"of {100 * spread:.1f} points between seeds of the difference (unless you said so, as in this project's "
            "small runs). Runs of your own tell more: name them."
        )
        each = PER_PICTURE if per_picture is None else per_picture
    else:
        found = components_of(read_ledgers(ledgers_of(runs)), benchmark)
        noise, each = found.noise, found.per_picture if per_picture is None else per_picture
        if seed_sd is not None:
            noise = replace(noise, seed=(seed_sd / 100) ** 2)
        origin = f"Noise as in {runs}, mean of {len(found.pairs)} pairs of encoders; accuracy "
        origin += f"{100 * found.accuracy:.1f} %."
        if seed_sd is not None:
            origin += f" Between seeds {seed_sd:g} points, as given."
    table = power_table(
        noise,
        seeds=seeds,
        items=items,
        per_picture=each,
        difference=difference / 100,
        encoders=encoders,
        power=power,
    )
    pairs = encoders * (encoders - 1) // 2
    family = "" if pairs == 1 else f", the strictest of {pairs} pairs after Holm's correction"
    above = (
        f"Smallest difference in points that is shown in {100 * power:g} % of comparisons (p < 0.05{family}), by "
        f"training seeds and questions, {each:.3g} of them a picture.",
        origin,
        noise_words(noise),
    )
    least = seeds_needed(difference / 100, noise, power=power, level=family_level(encoders))
    count = "over 1,000" if least is None else least
    below = [f"{difference:g} points need at least {count} training seeds, however many questions there are."]
    if 1 in seeds:
        below.append(
            "* One seed: training noise is not in these figures, and what is shown holds for the trained models only."
        )
    if 2 in seeds:
        below.append(
            "Two seeds hardly say how far seeds lie apart: intervals are then very wide. Three are far better."
        )
    return Told(above, table, "smallest difference shown, points; rows", tuple(below))


def noise_words(noise: Components) -> str:
    """Standard deviations, in points."""
    names = ("picture", "question", "seed", "picture under a seed", "question under a seed")
    values = (noise.picture, noise.item, noise.seed, noise.seed_picture, noise.rest)
    shown = ", ".join(f"{name} {100 * value**0.5:.1f}" for name, value in zip(names, values, strict=True))
    return f"Standard deviations of one question's difference, points: {shown}."


def resample(
    runs: Path, benchmark: str | None = None, *, metric: str = "exact", replicates: int = REPLICATES
) -> Told:
    """Every pair of encoders by the formula, by the bootstrap over pictures and seeds, and by pictures alone.

    Args:
        runs: a comparison, a folder of ledgers or a ledger.
        benchmark: which; the first by name.
        metric: the score column.
        replicates: of the bootstrap, and permutations.

    Raises:
        UserError: what `paired` and `resampled` refuse, fewer than two encoders, too few replicates.
    """
    if replicates < 200:
        raise UserError(
            f"replicates {replicates}: the ends of a 95 % interval need at least 200, better 4,000."
        )
    scores, arms, notes = encoders_of(read_ledgers(ledgers_of(runs)), benchmark, metric)
    arms.sort(key=lambda arm: -scores.answers(arm).values.mean())
    rows = []
    for a, b in combinations(arms, 2):
        gap, again = paired(scores, a, b), resampled(scores, a, b, replicates=replicates)
        rows.append(
            (
                f"{a.label} − {b.label}",
                f"{100 * gap.difference:+.1f}",
                _span(gap.low, gap.high),
                _span(again.low, again.high),
                _p(gap.p),
                _p(again.p_pictures),
            )
        )
    columns = ("pair", "points", "interval", "bootstrap", "p", f"p, pictures alone ({THESE_MODELS})")
    seeds = len(scores.answers(arms[0]).seeds)
    above = (
        f"{scores.benchmark}, {seeds} training seed{'s' if seeds > 1 else ''}: 95 % intervals by the formula and by "
        f"{replicates:,} bootstrap samples of pictures and seeds. No p-value is adjusted for the number of pairs.",
        *notes,
    )
    below = (
        "Pictures alone leave training noise out: that column says whether these trained models differ, nothing about "
        "their encoders.",
    )
    return Told(above, Table(columns, tuple(rows)), "pairs", below)


def _span(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{100 * low:+.1f} to {100 * high:+.1f}"


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"

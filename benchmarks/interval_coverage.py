"""How often 95 % intervals hold the truth, same against same is called different, and planted differences are found.

Four tables, on simulated scores whose truth is known; docs/statistics.md keeps them:

1. coverage of a paired difference's interval over a wide range of noise, with the bootstrap over pictures and seeds,
   and false alarms of pictures alone and of the permutation over pictures. The lowest and highest coverage for two to
   four seeds are `sutura.compare.statistics.COVERAGE_FOUND`, which the verdict quotes.
2. whole comparisons of encoders that are the same, right or wrong answers, noise as found in real runs: false alarms
   of a pair, and of a run after Holm; coverage of accuracies and of the probability of improvement.
3. planted differences as large as `sutura power` calls detectable: how many are shown.
4. two benchmarks together: coverage of the mean and the interquartile mean of paired differences.

    python benchmarks/interval_coverage.py [REPEATS] [wide] [same] [planted] [together]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from sutura.compare.aggregate import combine
from sutura.compare.components import Components, average, components
from sutura.compare.crossed import crossed
from sutura.compare.power import Design, detectable
from sutura.compare.ranking import superiority
from sutura.compare.resampling import bootstrap, expanded_tail, resample_pictures, resample_seeds, sign_flip
from sutura.compare.simulation import Noise, covered, p_values, pairs_of, simulate

SEEDS = (1, 2, 3, 4, 5, 8)
PICTURES = (100, 400)
#: Standard deviations of: pictures, seeds, their interaction, single items.
NOISE = (
    (0.30, 0.00, 0.10, 0.40),
    (0.10, 0.00, 0.20, 0.50),
    (0.10, 0.01, 0.20, 0.50),
    (0.10, 0.02, 0.20, 0.50),
    (0.10, 0.04, 0.20, 0.50),
    (0.00, 0.00, 0.00, 0.60),
    (0.00, 0.02, 0.00, 0.60),
    (0.30, 0.10, 0.05, 0.20),
    (0.02, 0.04, 0.06, 0.50),
)
#: Every so many simulations, what is slow is done too.
SLOW = 10
#: Encoders' noise in whole comparisons: seeds as in the zoo, quieter, and some of them late.
KINDS = {
    "as found (seeds 4.5)": Noise(),
    "seeds 2": Noise(seed=2.0),
    "seeds 1": Noise(seed=1.0),
    "no seed noise": Noise(seed=0.0),
    "a fifth of seeds 9 points late": Noise(seed=1.0, late=0.2),
    "pictures 15, seeds 1": Noise(picture=15.0, item=25.0, seed=1.0),
}
TESTED = (1000, 6, 400, 7)
"""Of the second and third table: repeats at most, encoders, pictures, questions a picture."""


def tables(seeds: int, pictures: int, noise: Sequence[float], repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Differences with a true mean of 0, added up by picture; pictures with unequal numbers of questions."""
    rng = np.random.default_rng([seeds, pictures, *(int(1000 * sd) for sd in noise)])
    of_picture, of_seed, of_both, of_item = noise
    sizes = 1 + rng.poisson(5, (repeats, pictures)).astype(float)
    table = rng.normal(0, of_picture, (repeats, 1, pictures)) + rng.normal(0, of_seed, (repeats, seeds, 1))
    table = table + rng.normal(0, of_both, (repeats, seeds, pictures))
    table = table + rng.normal(0, of_item, (repeats, seeds, pictures)) / np.sqrt(sizes)[:, None]
    return table * sizes[:, None], sizes


def coverage(seeds: int, pictures: int, noise: Sequence[float], repeats: int) -> dict[str, float]:
    """Shares of intervals that hold 0, and of tests that call 0 different."""
    sums, sizes = tables(seeds, pictures, noise, repeats)
    found = {"both": _share(sums, sizes), "pictures": 1 - _share(sums.mean(-2, keepdims=True), sizes)}
    if pictures == max(PICTURES):
        few = range(0, repeats, SLOW)
        boot = [bootstrap(sums[i], sizes[i], replicates=1000) for i in few]
        found["bootstrap"] = float(np.mean([low <= 0 <= high for low, high in boot]))
        found["permutation"] = float(np.mean([sign_flip(sums[i], permutations=500) < 0.05 for i in few]))
    return found


def _share(sums: np.ndarray, sizes: np.ndarray) -> float:
    found = crossed(sums, sizes)
    return float(np.mean(np.abs(found.mean) <= stdtrit(found.df, 0.975) * np.sqrt(found.variance)))


def wide(repeats: int) -> None:
    """The first table."""
    slow = len(range(0, repeats, SLOW))
    print("\n## Coverage and false alarms of one paired difference\n")
    print(
        f"{repeats:,} simulations a row, {slow} for the bootstrap and the permutation (largest set of pictures only)."
    )
    print(f"Monte-Carlo error of 95 %: {error(0.05, repeats)} and {error(0.05, slow)} points.\n")
    names = ("coverage %", "bootstrap %", "alarms: pictures alone %", "permutation %")
    head(("seeds", "pictures", "sd picture, seed, both, item", *names))
    keys, spans = ("both", "bootstrap", "pictures", "permutation"), []
    for seeds in SEEDS:
        every = []
        for pictures in PICTURES:
            for noise in NOISE:
                found = coverage(seeds, pictures, noise, repeats)
                every.append(found)
                text = ", ".join(f"{sd:.2f}" for sd in noise)
                row((seeds, pictures, text, *(shown(found.get(key)) for key in keys)))
        found = [[one[key] for one in every if key in one] for key in keys]
        spans.append((seeds, *(f"{shown(min(f))} to {shown(max(f))}" for f in found)))
    print("\nLowest and highest of all rows:\n")
    head(("seeds", *names))
    for span in spans:
        row(span)


def head(columns: Sequence[str]) -> None:
    """First two lines of a table."""
    row(columns)
    row([":--" if i == 0 else "--:" for i in range(len(columns))])


def row(cells: Sequence[object]) -> None:
    """One line of a table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def shown(share: float | None) -> str:
    """In percent."""
    return "–" if share is None else f"{100 * share:.1f}"


def same(repeats: int) -> None:
    """The second table: encoders that are the same."""
    most, encoders, pictures, each = TESTED
    repeats = min(repeats, most)
    print(f"\n## Comparisons of {encoders} encoders that are the same\n")
    print(
        f"{repeats:,} runs a row ({repeats // SLOW} for the last column), {pictures} pictures, {each} questions each."
    )
    print(f"Monte-Carlo error of a run's 5 %: {error(0.05, repeats)} points.\n")
    names = ("alarms, a pair %", "alarms, a run (Holm) %", "difference %", "accuracy %", "improvement %")
    head(("noise, points", "seeds", *names[:2], *(f"covered: {name}" for name in names[2:])))
    for name, noise in KINDS.items():
        for seeds in (2, 3, 5, 8):
            row((name, seeds, *(shown(value) for value in whole(noise, seeds, repeats))))


def whole(noise: Noise, seeds: int, repeats: int) -> tuple[float, float, float, float, float]:
    """Alarms of a pair and of a run; coverage of differences, accuracies and probabilities of improvement."""
    _, encoders, pictures, each = TESTED
    level, count = 0.6, encoders * (encoders - 1) // 2
    pair, run, gap, alone, chance = [], [], [], [], []
    for part in simulate(repeats, [level] * encoders, seeds, pictures, each, noise):
        found = pairs_of(part)
        p = p_values(found)
        pair.append(p < 0.05)
        run.append(p.min(1) * count < 0.05)
        gap.append(covered(found, 0.0))
        alone.append(_wilson_holds(crossed(part.sums, part.sizes), level))
        chance += [_improvement_holds(sums, part.sizes) for sums in part.sums[::SLOW, :2]]
    return tuple(
        float(np.mean(np.concatenate(x) if np.ndim(x[0]) else x)) for x in (pair, run, gap, alone, chance)
    )  # type: ignore[return-value]


def _wilson_holds(found: object, level: float) -> np.ndarray:
    """The interval of `statistics.accuracy`, for a batch."""
    mean, variance, df, _ = found  # type: ignore[misc]
    quantile = stdtrit(df, 0.975)
    share = quantile**2 * variance / (mean * (1 - mean))
    centre = (mean + share / 2) / (1 + share)
    half = np.sqrt(share * mean * (1 - mean) + share**2 / 4) / (1 + share)
    return np.abs(centre - level) <= half


def _improvement_holds(sums: np.ndarray, sizes: np.ndarray) -> float:
    """Whether the interval of `ranking.improvement` holds one half."""
    rng, seeds = np.random.default_rng(0), sums.shape[1]
    means = resample_pictures(sums.reshape(2 * seeds, -1), sizes, 1000, rng)
    chosen = resample_seeds(seeds, 1000, rng)
    shares = superiority(
        np.take_along_axis(means[:, :seeds], chosen, 1), np.take_along_axis(means[:, seeds:], chosen, 1)
    )
    tail = expanded_tail(float(crossed(sums[0] - sums[1], sizes).df))
    low, high = np.quantile(shares, [tail, 1 - tail])
    return float(low <= 0.5 <= high)


def together(repeats: int) -> None:
    """The fourth table: two encoders that are the same, over two benchmarks that one stitch answers."""
    repeats = min(repeats, TESTED[0]) // SLOW * 4
    print("\n## Two benchmarks together\n")
    print(
        "Two encoders that are the same, 150 and 250 pictures with seven questions each, one stitch a seed for both."
    )
    print(
        f"{repeats} runs a row, bootstraps of 1,000; Monte-Carlo error of 95 %: {error(0.05, repeats)} points.\n"
    )
    head(
        (
            "noise, points",
            "seeds",
            *(f"covered: {name} %" for name in ("mean", "interquartile mean", "improvement")),
        )
    )
    for name, noise in KINDS.items():
        for seeds in (3, 5):
            held = []
            for part in simulate(repeats, [0.6, 0.6], seeds, 400, 7, noise, draw=2):
                for sums in part.sums:
                    tables = [(sums[..., :150], part.sizes[:150]), (sums[..., 150:], part.sizes[150:])]
                    pair = combine(tables, replicates=1000)[-1]
                    low, high = pair.quartile[1:]
                    assert pair.improvement is not None
                    less, more = pair.improvement[1:]
                    held.append((float(covered(pair.mean, 0.0)), low <= 0 <= high, less <= 0.5 <= more))
            row((name, seeds, *(shown(float(share)) for share in np.mean(held, axis=0))))


def planted(repeats: int) -> None:
    """The third table: differences that `sutura power` calls detectable."""
    most, _, pictures, each = TESTED
    repeats = min(repeats, most)
    print("\n## Planted differences\n")
    print(
        f"As large as `sutura power` says is shown in 80 % (two encoders); {repeats:,} runs a row, {pictures} pictures,"
    )
    print(f"{each} questions each; Monte-Carlo error {error(0.8, repeats)} points.\n")
    head(("noise, points", "seeds", "difference, points", "shown %"))
    for name, noise in KINDS.items():
        for seeds in (2, 3, 5, 8):
            size, share = found_again(noise, seeds, pictures, each, repeats)
            row((name, seeds, shown(size), shown(share)))


def found_again(
    noise: Noise, seeds: int, pictures: int, each: int, repeats: int
) -> tuple[float, float | None]:
    """The difference that a known noise makes detectable, and how often it is shown (None: too large to be)."""
    size = detectable(known(noise, pictures, each), Design(seeds, pictures, each))
    if size > 0.6:
        return size, None
    low, high = 0.55 - size / 2, 0.55 + size / 2
    shown = [
        p_values(pairs_of(part)) < 0.05
        for part in simulate(repeats, [low, high], seeds, pictures, each, noise, draw=1)
    ]
    return size, float(np.mean(np.concatenate(shown)))


def known(noise: Noise, pictures: int, each: int) -> Components:
    """Components of a difference under a noise, from many seeds."""
    found = []
    code = np.repeat(np.arange(pictures), each)
    for part in items(noise, pictures, each):
        found.append(components(part, code))
    return average(found)


def items(noise: Noise, pictures: int, each: int, runs: int = 20, seeds: int = 100) -> list[np.ndarray]:
    """Differences of single questions: simulated with one question a picture, pictures put together again."""
    rng = np.random.default_rng(5)
    of_picture, of_item, of_seed, of_both, drop = noise.latent()
    gaps = []
    for _ in range(runs):
        shared = of_picture * np.repeat(rng.normal(size=pictures), each) + of_item * rng.normal(
            size=pictures * each
        )
        right = []
        for _ in range(2):
            own = of_seed * rng.normal(size=(seeds, 1)) - drop * (rng.random((seeds, 1)) < noise.late)
            both = of_both * np.repeat(rng.normal(size=(seeds, pictures)), each, axis=1)
            level = 0.19 + shared + own + both
            right.append((rng.normal(size=level.shape) < level).astype(float))
        gaps.append(right[0] - right[1])
    return gaps


def error(share: float, repeats: int) -> str:
    """Monte-Carlo standard error of a share, in points."""
    return f"{100 * np.sqrt(share * (1 - share) / max(repeats, 1)):.1f}"


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    for table in (wide, same, planted, together):
        if len(sys.argv) < 3 or table.__name__ in sys.argv[2:]:
            table(repeats)


if __name__ == "__main__":
    main()

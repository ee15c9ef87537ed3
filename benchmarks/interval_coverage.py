"""How often 95 % intervals hold the truth, and how often same against same is called different.

Simulated differences with a true value of 0: pictures with unequal numbers of questions, picture, seed and
interaction noise over the range that stitches show. Prints a table, and the lowest and highest coverage for
each number of seeds, which `sutura.compare.statistics.COVERAGE_FOUND` keeps for the sentences of the verdict.

    python benchmarks/interval_coverage.py [REPEATS]
"""

from __future__ import annotations

import sys

import numpy as np
from scipy.special import stdtrit

from sutura.compare.crossed import crossed

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
)


def coverage(seeds: int, pictures: int, noise: tuple[float, ...], repeats: int) -> tuple[float, float]:
    """Share of intervals that hold 0: with both sources of noise, and with pictures alone."""
    rng = np.random.default_rng([seeds, pictures, *(int(1000 * sd) for sd in noise)])
    of_picture, of_seed, of_both, of_item = noise
    sizes = 1 + rng.poisson(5, (repeats, pictures)).astype(float)
    table = rng.normal(0, of_picture, (repeats, 1, pictures)) + rng.normal(0, of_seed, (repeats, seeds, 1))
    table = table + rng.normal(0, of_both, (repeats, seeds, pictures))
    table = table + rng.normal(0, of_item, (repeats, seeds, pictures)) / np.sqrt(sizes)[:, None]
    sums = table * sizes[:, None]
    return _share(sums, sizes), _share(sums.mean(-2, keepdims=True), sizes)


def _share(sums: np.ndarray, sizes: np.ndarray) -> float:
    found = crossed(sums, sizes)
    return float(np.mean(np.abs(found.mean) <= stdtrit(found.df, 0.975) * np.sqrt(found.variance)))


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print(f"{repeats} simulations a row; Monte-Carlo error {100 * np.sqrt(0.95 * 0.05 / repeats):.1f} points")
    print("| seeds | pictures | sd picture, seed, both, item | coverage % | pictures alone % |")
    print("| --: | --: | :-- | --: | --: |")
    for seeds in SEEDS:
        shares = []
        for pictures in PICTURES:
            for noise in NOISE:
                both, alone = coverage(seeds, pictures, noise, repeats)
                shares.append(both)
                text = ", ".join(f"{sd:.2f}" for sd in noise)
                print(f"| {seeds} | {pictures} | {text} | {100 * both:.1f} | {100 * alone:.1f} |")
        print(
            f"| **{seeds}** | all | | **{100 * min(shares):.1f} to {100 * max(shares):.1f}** | |", flush=True
        )


if __name__ == "__main__":
    main()

"""Real same against same: the seeds of one encoder dealt to two names in every way, and where its noise comes from.

    python benchmarks/same_against_same.py runs/NAME

of a comparison with four or more training seeds. An encoder entered twice under two names answers alike under the same
seed, bit by bit, so that only seeds that are dealt to two names show what training noise does.
"""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path

import numpy as np

from sutura.compare.components import Components, components, components_of, ledgers_of
from sutura.compare.crossed import crossed
from sutura.compare.resampling import sign_flip
from sutura.compare.scores import Scores, common_items
from sutura.compare.simulation import p_values
from sutura.evals.ledger import read_ledgers

PARTS = "picture, question, seed, seed and picture, rest"


def real(folder: Path) -> None:
    """Noise of real ledgers, and an encoder's seeds dealt to two names in every way."""
    frame, _ = common_items(read_ledgers(ledgers_of(folder)))
    frame = frame.filter(frame["condition"] == "picture")
    for benchmark in sorted(frame["benchmark"].unique()):
        scores = Scores.of(frame, benchmark)
        print(f"\n## {benchmark}: sd in points of picture, question, seed, seed and picture, rest\n")
        if len(scores.arms) > 1:
            for (a, b), noise in components_of(frame, benchmark).pairs.items():
                print(f"- {a.label} − {b.label}: {_sds(noise)}")
        for arm, answers in scores.arms.items():
            picture = scores.picture_of[answers.items]
            if len(answers.seeds) < 4:
                continue
            print(
                f"- {arm.label} alone: {_sds(components(answers.values, picture))}; seeds at "
                f"{', '.join(f'{100 * mean:.1f}' for mean in answers.values.mean(1))} %"
            )
            deals = dealt(answers.values, picture)
            alarms = np.mean([p < 0.05 for p, _ in deals])
            alone = np.mean([p < 0.05 for _, p in deals])
            print(
                f"- {arm.label} against itself, {len(deals)} ways to deal {len(answers.seeds)} seeds to two names: "
                f"{100 * alarms:.1f} % called different, by pictures alone {100 * alone:.1f} %"
            )


def _sds(noise: Components) -> str:
    values = (noise.picture, noise.item, noise.seed, noise.seed_picture, noise.rest)
    return ", ".join(f"{100 * value**0.5:.1f}" for value in values)


def dealt(values: np.ndarray, picture: np.ndarray) -> list[tuple[float, float]]:
    """p-values of an encoder against itself, by pictures and seeds, and by a permutation over pictures alone."""
    _, code, sizes = np.unique(picture, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(code, weights=row) for row in values])
    half, everyone = len(sums) // 2, range(len(sums))
    found = []
    for first in combinations(everyone, half):
        rest = [seed for seed in everyone if seed not in first]
        if len(rest) == half and first[0] != 0:
            continue
        gap = sums[list(first)] - sums[rest[:half]]
        found.append((float(p_values(crossed(gap, sizes.astype(float)))), sign_flip(gap, permutations=500)))
    return found


def main() -> None:
    real(Path(sys.argv[1]))


if __name__ == "__main__":
    main()

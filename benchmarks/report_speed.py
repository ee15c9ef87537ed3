"""Time and memory of statistics and report for a large comparison, from ledgers on disk.

    python benchmarks/report_speed.py [--encoders 9] [--seeds 5] [--items 20000] [--per-picture 5] [--controls]

Simulated ledgers, one a cell, are written into a temporary folder; then they are read, checked and reported. Prints
seconds of each part and the process's peak memory (resident, making the ledgers left out: they are written by a
process of their own). `--controls` adds the wrong picture of every cell, blind runs and the most frequent answer.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from sutura.evals.ledger import SCHEMA, write_ledger

#: Peak megabytes and seconds that are allowed.
SECONDS, MEGABYTES = 60, 2048


def make(folder: Path, encoders: int, seeds: int, items: int, per_picture: int, controls: bool) -> None:
    """Ledgers of encoders a point apart, seeds 2 points apart; twelve kinds of question."""
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 0.3, items)
    kinds = [f"kind {k}" for k in range(12)]
    base = pl.DataFrame(
        {
            "item_id": [f"picture-{i // per_picture:06d}/question-{i % per_picture}" for i in range(items)],
            "image_id": [f"picture-{i // per_picture:06d}" for i in range(items)],
            "question_type": [kinds[i % 12] for i in range(items)],
            "question": [
                f"How many of the {i % 997} things are to the left of the others?" for i in range(items)
            ],
            "references": [[str(i % 10)] for i in range(items)],
        }
    )
    arms = [(f"encoder-{e}", "picture", 0.5 + 0.01 * e) for e in range(encoders)]
    if controls:
        arms += [(f"encoder-{e}", "wrong-picture", 0.35) for e in range(encoders)]
        arms += [("none", "blind", 0.35), ("none", "majority", 0.3)]
    for encoder, condition, level in arms:
        for seed in range(1 if condition == "majority" else seeds):
            right = rng.random(items) < np.clip(level + hard + rng.normal(0, 0.02), 0, 1)
            score = right.astype(float)
            rows = base.with_columns(
                run=pl.lit(f"{encoder}-{condition}-{seed}"),
                encoder=pl.lit(encoder),
                seed=pl.lit(seed),
                condition=pl.lit(condition),
                benchmark=pl.lit("world/test"),
                prediction=pl.Series(np.where(right, [str(i % 10) for i in range(items)], "none")),
                exact=pl.Series(score),
                lenient=pl.Series(score),
                token_f1=pl.Series(score),
                numeric=pl.lit(None, pl.Float64),
                vqa=pl.lit(None, pl.Float64),
                likelihood=pl.lit(None, pl.Float64),
                empty=pl.lit(False),
                stopped=pl.lit(True),
            )
            name = f"{encoder}-{condition}-{seed}.parquet"
            write_ledger(folder / name, rows.select(list(SCHEMA)), {"protocol": "1"})


def peak() -> float:
    """Megabytes that this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(folder: Path) -> None:
    """Read, compute and report, with the time of each."""
    from sutura.compare.aggregate import aggregate
    from sutura.compare.ranking import ranking_table
    from sutura.compare.report import standings_of, write_report
    from sutura.evals.ledger import read_ledgers

    print(f"imports: {peak():.0f} MB")
    began = time.perf_counter()
    frame = read_ledgers(sorted(folder.glob("*.parquet")))
    read = time.perf_counter()
    print(f"reading {len(frame):,} rows: {read - began:.1f} s, peak {peak():.0f} MB", flush=True)
    (standing,) = standings_of(frame, {}, {})
    computed = time.perf_counter()
    print(f"statistics: {computed - read:.1f} s, peak {peak():.0f} MB", flush=True)
    ranking_table(standing)
    aggregate([standing, standing])
    ranked = time.perf_counter()
    print(f"ranks, and two benchmarks together: {ranked - computed:.1f} s, peak {peak():.0f} MB", flush=True)
    del standing
    write_report(folder / "report", frame, [], {}, {})
    whole = time.perf_counter()
    print(f"report.md with plots and tables: {whole - ranked:.1f} s, peak {peak():.0f} MB")
    total = read - began + whole - ranked
    kept = total <= SECONDS and peak() <= MEGABYTES
    print(
        f"reading and report: {total:.1f} s, peak {peak():.0f} MB ({'within' if kept else 'OVER'} 60 s and 2 GB)"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--encoders", type=int, default=9)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--per-picture", type=int, default=5)
    parser.add_argument("--controls", action="store_true")
    parser.add_argument("--only-make", type=Path)
    given = parser.parse_args()
    if given.only_make:
        make(given.only_make, given.encoders, given.seeds, given.items, given.per_picture, given.controls)
        return
    with tempfile.TemporaryDirectory() as name:
        subprocess.run([sys.executable, *sys.argv, "--only-make", name], check=True)
        measure(Path(name))


if __name__ == "__main__":
    main()

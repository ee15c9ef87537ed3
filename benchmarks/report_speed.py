"""Both reports of a large comparison: seconds, peak memory, and the size of the page.

    python benchmarks/report_speed.py --encoders 9 --seeds 5 --items 20000

Ledgers of random scores, with a wrong picture beside every encoder, long answers, and photographs of noise, which
compress worst. Prints the time of reading them, that of statistics, tables, plots and page, and the peak memory of the
process that reads and reports.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from sutura.compare.report import write_report
from sutura.compare.report_page import Pictures
from sutura.core.doctor import machine
from sutura.data.samples import BytesPicture, PictureTurns, Sample, VqaData, make_data
from sutura.evals.ledger import SCHEMA, brought_up, read_ledgers, write_ledger

BENCHMARK = "local:large"
FAMILIES = ("exist", "count", "compare", "colour", "shape", "size", "material", "side", "chain")
PER_PICTURE = 5
STEPS = 5000


def questions(count: int) -> list[Sample]:
    """Items with their families; pictures are given later."""
    nothing = BytesPicture(b"")
    return [
        Sample(
            nothing,
            f"how many things of kind {i} are there in the picture?",
            ("yes",),
            f"p{i // PER_PICTURE}",
            f"p{i // PER_PICTURE}/{i % PER_PICTURE}",
            FAMILIES[i % len(FAMILIES)],
        )
        for i in range(count)
    ]


def noise(index: int) -> BytesPicture:
    """A photograph that compresses badly."""
    pixels = np.random.default_rng(index).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90)
    return BytesPicture(out.getvalue())


def ledger(samples: list[Sample], encoders: int, seeds: int, alone: bool = False) -> pl.DataFrame:
    """One row an answer of every encoder, seed and condition."""
    rng = np.random.default_rng(0)
    base = pl.DataFrame(
        {
            "item_id": [s.item_id for s in samples],
            "image_id": [s.image_id for s in samples],
            "question_type": [s.question_type for s in samples],
            "question": [s.question for s in samples],
            "references": [list(s.answers) for s in samples],
        }
    )
    hard = np.repeat(rng.normal(0, 0.15, len(samples) // PER_PICTURE + 1), PER_PICTURE)[: len(samples)]
    arms = [(f"encoder-{e}", "picture", 0.5 + 0.03 * e) for e in range(encoders)]
    arms += [(f"encoder-{e}", "wrong-picture", 0.35) for e in range(encoders)] + [("none", "blind", 0.36)]
    arms = arms[:encoders] if alone else arms
    runs = [(*arm, seed) for arm in arms for seed in range(seeds)] + [("none", "majority", 0.33, 0)]
    frames = []
    for encoder, condition, skill, seed in runs:
        right = rng.random(len(samples)) < np.clip(skill + hard, 0, 1)
        score = right.astype(np.float64)
        said = np.where(right, "yes", f"no, and {encoder} says at length why it is not so, seed {seed}")
        columns: dict[str, Any] = {
            "run": f"{encoder}-{condition}-{seed}",
            "encoder": encoder,
            "seed": seed,
            "condition": condition,
            "benchmark": BENCHMARK,
            "prediction": pl.Series(said),
            "empty": False,
            "stopped": True,
            **dict.fromkeys(("exact", "lenient", "token_f1"), pl.Series(score)),
            **dict.fromkeys(("numeric", "vqa", "likelihood")),
        }
        named = {
            name: value if isinstance(value, pl.Series) else pl.lit(value, SCHEMA[name])
            for name, value in columns.items()
        }
        frames.append(brought_up(base.with_columns(**named)).select(list(SCHEMA)))
    return pl.concat(frames)


def cells(folder: Path, encoders: int, seeds: int) -> list[dict[str, Any]]:
    """What the cells would have left, with their losses."""
    found = []
    for encoder in range(encoders):
        for seed in range(seeds):
            metrics = folder / f"{encoder}-{seed}.jsonl"
            lines = (json.dumps({"step": k, "loss": 3 / k + 0.1 * encoder}) for k in range(1, STEPS))
            metrics.write_text("\n".join(lines) + "\n")
            facts = {"params": 10 ** (6 + encoder % 3), "num_tokens": 64 * (1 + encoder % 3)}
            about = {"encoder": f"encoder-{encoder}", "condition": "picture", "seed": seed}
            loss = {"first": 3.0, "final_mean": 0.3, "final_sd": 0.1, "window": 50}
            more = {"hash": metrics.stem, "encoder_facts": facts, "loss": loss, "metrics_path": str(metrics)}
            found.append({**about, **more, "seconds": {"train": 100.0 + encoder}})
    return found


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", type=int, default=9)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--alone", action="store_true", help="no wrong pictures and no blind runs")
    arguments = parser.parse_args()
    samples = questions(arguments.items)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # made by a process of its own, so that its memory is not counted here
        made = multiprocessing.get_context("fork").Process(
            target=keep, args=(folder, samples, arguments.encoders, arguments.seeds, arguments.alone)
        )
        made.start()
        made.join()
        known = cells(folder, arguments.encoders, arguments.seeds)
        before = peak()
        began = time.perf_counter()
        rows = read_ledgers(sorted(folder.glob("*.parquet")))
        read = time.perf_counter() - began
        count = len(rows)
        data = photographs(samples)
        finder = Pictures(loaded={BENCHMARK: data})
        began = time.perf_counter()
        path = write_report(folder / "report", rows, known, {}, {"name": "large"}, pictures=finder)
        seconds = time.perf_counter() - began
        size = path.with_suffix(".html").stat().st_size
    print(machine())
    print(
        f"{count:,} rows of {arguments.encoders} encoders, {arguments.seeds} seeds, {arguments.items:,} items"
    )
    print(
        f"reading and checking {read:.1f} s, both reports {seconds:.1f} s ({seconds / read:.1f} times the reading)"
    )
    print(f"peak memory {peak():.2f} GiB ({before:.2f} GiB of it before); report.html {size / 1e6:.2f} MB")


def keep(folder: Path, samples: list[Sample], encoders: int, seeds: int, alone: bool) -> None:
    """The rows on disk, a file a run, as cells leave them."""
    for (run,), part in ledger(samples, encoders, seeds, alone).partition_by("run", as_dict=True).items():
        write_ledger(folder / f"{run}.parquet", part, {"protocol": "1"})


def photographs(samples: list[Sample]) -> VqaData:
    """The benchmark's data, every picture of it a photograph of noise."""
    pictures = [
        PictureTurns(f"p{k}", noise(k % 500), tuple(samples[k * PER_PICTURE : (k + 1) * PER_PICTURE]))
        for k in range((len(samples) + PER_PICTURE - 1) // PER_PICTURE)
    ]
    return make_data("large", "test", pictures, content=(p.image_id for p in pictures))


def peak() -> float:
    """GiB that this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()

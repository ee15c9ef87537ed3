"""Pretraining: does memory stay flat when the data set grows.

For each size a process of its own reads every picture once through the feed and then trains a few steps. Pixels stay in
a mapped file, whose pages the system keeps while there is room: they are counted apart from the process's own memory.

    python benchmarks/pretrain_memory.py
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from pretrain_references import SIZES, Run, make_pictures, open_pictures
from pretrain_speed import ours

from sutura.train.methods import METHODS
from sutura.train.pretrain import build_feed

SIDE = SIZES["tiny"]["image_size"]


def measured(count: int, steps: int) -> dict[str, float]:
    """Peak memory of a process that pretrains on `count` pictures, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        make_pictures(Path(folder), count, SIDE)
        words = [sys.executable, __file__, "--one", folder, "--sizes", str(count), "--steps", str(steps)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def one(folder: Path, count: int, steps: int) -> dict[str, float]:
    """What `measured` starts in a process of its own."""
    run = Run(SIZES["tiny"], 64, steps, "bfloat16", "cpu", 0)
    data = open_pictures(folder, count, SIDE)
    config = run.config("clip").model_copy(update={"passes": count // run.batch * run.batch})
    feed = build_feed(config, METHODS.get("clip"), data)
    own = []
    for step in range(feed.steps):
        feed.micro_batches(step)
        own.append(_own_memory())
    ours(run, "clip", data)
    own.append(_own_memory())
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {"pictures": count, "own": max(own), "with mapped files": whole}


def _own_memory() -> float:
    """Memory of this process that is no file's, in MB; Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 24_000])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", help="append the figures to this file")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.sizes[0], options.steps)))
        return
    found = []
    for count in options.sizes:
        found.append(measured(count, options.steps))
        print(
            f"{count:8,} pictures: own memory {found[-1]['own']:.0f} MB at most, with pages of mapped files "
            f"{found[-1]['with mapped files']:.0f} MB",
            flush=True,
        )
    first, last = found[0], found[-1]
    if last["pictures"] > first["pictures"]:
        each = (last["own"] - first["own"]) / (last["pictures"] - first["pictures"]) * 2**10
        print(f"{each:.2f} kB more a picture; the pixels of one are {3 * SIDE**2 / 2**10:.1f} kB")
    line = json.dumps({"memory_mb": found})
    if options.json:
        with open(options.json, "a") as file:
            file.write(line + "\n")
    else:
        print(line)


if __name__ == "__main__":
    main()

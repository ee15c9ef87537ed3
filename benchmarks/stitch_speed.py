"""Answers a second, training and evaluating, against a plain transformers + peft loop in the same run.

The plain loop is what a tutorial writes: the encoder runs on every sample, one question is one sample, the language
model computes logits everywhere, and evaluation calls `generate` on one sample at a time. Ours adds one lever after
another. Weights are random at the true shapes; pictures are random pixels; questions have the lengths and the number
a picture of the data set named (VQAv2: 5.4 questions a picture; the built-in world: 7). On the CPU; `stitch_gpu.py`
does the same on a GPU.

    python benchmarks/stitch_speed.py --size tiny
    python benchmarks/stitch_speed.py --size 0.5b --repeats 3 --precision bfloat16
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from typing import Any

import torch
from stitch_references import SHAPES, Training, build, evaluation_steps, make_rows
from stitch_timing import arithmetic, ceiling, memory, timed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SHAPES, default="tiny")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--new-tokens", type=int, default=3)
    parser.add_argument("--only", choices=("training", "evaluation"), help="one of the two parts")
    parser.add_argument("--json", help="append the figures to this file")
    options = parser.parse_args()
    shape = SHAPES[options.size]
    model = build(shape, getattr(torch, options.precision))
    rows = make_rows(shape, torch.Generator().manual_seed(0))
    figures: dict[str, Any] = {
        "size": options.size,
        "precision": options.precision,
        "threads": torch.get_num_threads(),
    }
    parts = {
        "training": lambda: Training(model, rows, options.precision).steps(),
        "evaluation": lambda: evaluation_steps(model, rows, options.new_tokens),
    }
    for title in [options.only] if options.only else parts:
        steps = parts[title]()
        rates: dict[str, float] = {}
        print(
            f"\n{title}, {options.size}, {options.precision}, {figures['threads']} threads, {platform.machine()}"
        )
        for name, step in steps.items():
            rates[name] = statistics.median(timed(step, options.repeats))
            ratio = rates[name] / next(iter(rates.values()))
            print(
                f"  {name:34s} {rates[name]:9.2f} answers/s  {ratio:6.2f}x  peak so far {memory():.2f} GB",
                flush=True,
            )
        figures[title] = rates
        if title == "evaluation":
            top = figures["ceiling"] = ceiling(options.precision)
            work = [arithmetic(step) for step in steps.values()]
            figures["operations"] = dict(zip(steps, work, strict=True))
            for (name, rate), each in zip(rates.items(), work, strict=True):
                print(
                    f"  {name:34s} {each / 1e9:9.2f} G operations an answer, {rate * each / top:.0%} of the ceiling"
                )
            print(
                f"  ceiling {top / 1e9:.0f} G operations/s: at best {top / work[1] / rates[next(iter(rates))]:.1f}x"
            )
    if options.json:
        with open(options.json, "a") as file:
            file.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()

"""Pretraining's step on one device: pictures a second, beside timm's modules, and the share of the device's ceiling.

Pictures, labels, captions and masks are drawn before and lie on the device, so that nothing but the step is timed:
forward, backward, clipping and AdamW under bfloat16 autocast, the loss read after each step. Ours is
`sutura.train.loop.fit`; the reference is a plain loop around timm's (open_clip's, lightly's, where they can be
imported) modules of the same sizes. The ceiling is a square matrix product in the same precision. Operations are
counted by torch on a few pictures of our step, attention as matrix products; the same number stands for both sides.

    python benchmarks/pretrain_device.py --device cuda --size b16 --batch 256 --seconds 40 --json figures.jsonl
    python benchmarks/pretrain_device.py --batch 16 --steps 2 --repeats 2
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pretrain_references import LABELS, LENGTH, PARTS, SIZES, WARM, WORDS, Run
from pretrain_timm import Reference, reference
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sutura.core.runtime import generator
from sutura.data.captions import END, PAD, CaptionedPictures, WordVocabulary
from sutura.models.vit import ViT
from sutura.nn.block import initialise
from sutura.train.loop import fit
from sutura.train.methods import METHODS, Parts
from sutura.train.picture_feed import PictureBatch

OBJECTIVES = ("supervised", "clip", "mae", "ijepa")
#: Token ids and length of the texts: the second is CLIP's.
TEXTS = {"tiny": (WORDS, LENGTH), "b16": (49_408, 77)}
#: Pictures that operations are counted on.
COUNTED = 8


class Enough(Exception):
    """The time of a row is up."""


class Resident:
    """A feed whose batches lie on the device; two of them take turns."""

    def __init__(self, batches: list[PictureBatch], steps: int) -> None:
        self.batches, self.steps = batches, steps

    def micro_batches(self, step: int) -> list[PictureBatch]:
        """The one batch of a step."""
        return [self.batches[step % len(self.batches)]]


class Clock:
    """Times stretches of steps, with the device waited for at both ends of each.

    Args:
        run: both sides' settings.
        repeats: stretches.
        seconds: after which the row ends, once one stretch is whole.
    """

    def __init__(self, run: Run, repeats: int, seconds: float) -> None:
        self.run, self.until = run, time.perf_counter() + seconds
        self.last, self.steps = WARM + repeats * run.steps, 0
        self.marks: list[float] = []

    def step(self) -> None:
        """Called after each step. Raises `Enough` when the time is up."""
        self.steps += 1
        if self.steps >= WARM and (self.steps - WARM) % self.run.steps == 0:
            wait(self.run.device)
            self.marks.append(time.perf_counter())
            if len(self.marks) > 1 and self.marks[-1] > self.until and self.steps < self.last:
                raise Enough

    def rates(self) -> list[float]:
        """Pictures a second of each stretch."""
        return [self.run.batch * self.run.steps / taken for taken in np.diff(self.marks).tolist()]


def wait(device: str) -> None:
    """Until the device has done what it was asked."""
    if device == "cuda":
        torch.cuda.synchronize()


def draw_batch(run: Run, seed: int) -> PictureBatch:
    """A batch of random pictures with all that any objective takes beside them, on the device."""
    draw = torch.Generator(run.device).manual_seed(seed)
    count, side, on = run.batch, run.vit["image_size"], run.device
    words = torch.randint(2, run.words, (count, run.length), generator=draw, device=on)
    ends = torch.randint(run.length // 4, run.length, (count, 1), generator=draw, device=on)
    places = torch.arange(run.length, device=on)
    words = torch.where(places < ends, words, (places == ends).long())
    batch = PictureBatch(
        torch.randn(count, 3, side, side, generator=draw, device=on),
        list(range(count)),
        labels=(torch.rand(count, LABELS, generator=draw, device=on) < 0.2).float(),
        words=words,
        positives=torch.eye(count, dtype=torch.bool, device=on),
    )
    grid = (side // run.vit["patch_size"],) * 2
    for method in ("mae", "ijepa"):
        masks = METHODS.get(method).masks
        assert masks is not None
        drawn = masks(run.config(method).methods, grid)(count, generator(seed, "masks"))
        batch = batch._replace(**{name: mask.to(on) for name, mask in drawn.items()})
    return batch


def part_of(batch: PictureBatch, count: int) -> PictureBatch:
    """The first pictures of a batch."""
    whole = {k: v for k, v in batch._asdict().items() if isinstance(v, Tensor)}
    cut = {k: v[:count] for k, v in whole.items()}
    cut |= {"targets": whole["targets"][:, :count], "positives": whole["positives"][:count, :count]}
    return batch._replace(ids=batch.ids[:count], **cut)


def build_ours(run: Run, method: str) -> nn.Module:
    """Our model, its weights drawn on the device."""
    side = run.vit["image_size"]
    blank = CaptionedPictures(
        np.zeros((2, side, side, 3), np.uint8),
        np.zeros((2, LABELS), np.float32),
        np.ones((2, 1, run.length), np.int16),
        WordVocabulary((PAD, END, *(f"word{i}" for i in range(2, run.words)))),
        "blank",
    )
    config = run.config(method)
    with torch.device(run.device):
        model = METHODS.get(method).build(Parts(ViT(**config.vit.args()), config.methods, blank, 100))
        initialise(model)
    return model


def operations(model: nn.Module, method: str, batch: PictureBatch) -> float:
    """Floating-point operations of a picture, forward and backward."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    few = part_of(batch, min(COUNTED, len(batch.pixels)))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        METHODS.get(method).objective(model, few, 0)[0].backward()
    model.zero_grad(set_to_none=True)
    return counter.get_total_flops() / len(few.pixels)


def ours(run: Run, method: str, model: nn.Module, batches: list[PictureBatch], clock: Clock) -> None:
    """Steps of `fit`."""
    config, kind = run.config(method), METHODS.get(method)
    fit(
        model,
        kind.tune(config.methods) if kind.tune else kind.objective,
        Resident(batches, clock.last),
        config.optim,
        seed=0,
        directory=None,
        after_step=kind.after_step(config.methods, clock.last) if kind.after_step else None,
        on_step=lambda done, row: clock.step(),
        device=run.device,
    )


def plain(run: Run, model: nn.Module, other: Reference, batches: list[PictureBatch], clock: Clock) -> None:
    """Steps of the loop that a tutorial writes."""
    model.train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.05)
    follow: Callable[[], None] | None = getattr(model, "follow", None)
    for step in range(clock.last):
        with run.autocast():
            loss = other.call(model, batches[step % len(batches)])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if follow is not None:
            follow()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        clock.step()


def row(run: Run, method: str, side: str, batches: list[PictureBatch], clock: Clock) -> dict[str, Any]:
    """One side of one method."""
    torch.manual_seed(0)
    facts: dict[str, Any] = {"method": method, "side": side, "modules": "sutura"}
    if run.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        if side == "ours":
            model = build_ours(run, method)
            facts["operations"] = operations(model, method, batches[0])
            ours(run, method, model, batches, clock)
        else:
            other = reference(method)
            facts["modules"] = other.about
            with torch.device(run.device):
                model = other.build(run)
            plain(run, model, other, batches, clock)
    except Enough:
        pass
    rates = clock.rates()
    facts |= {"pictures_per_second": statistics.median(rates), "least": min(rates), "most": max(rates)}
    facts |= {"repeats": len(rates), "steps": run.steps}
    if run.device == "cuda":
        facts["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return facts


def ceiling(run: Run, side: int) -> float:
    """Floating-point operations a second of a square matrix product: median of seven rounds."""
    a, b = torch.randn(2, side, side, device=run.device).to(getattr(torch, run.precision))
    times = []
    for _ in range(8):
        wait(run.device)
        began = time.perf_counter()
        for _ in range(5):
            torch.mm(a, b)
        wait(run.device)
        times.append((time.perf_counter() - began) / 5)
    return 2 * side**3 / statistics.median(times[1:])


def show(facts: dict[str, Any]) -> None:
    """One row as text."""
    if "error" in facts:
        print(f"{facts['method']:11s} {facts['side']:9s} failed: {facts['error']}", flush=True)
        return
    share = f"{facts['share_of_ceiling']:6.1%}" if "share_of_ceiling" in facts else "      "
    peak = f"{facts['peak_gib']:6.1f} GiB" if "peak_gib" in facts else ""
    print(
        f"{facts['method']:11s} {facts['side']:9s} {facts['pictures_per_second']:9.1f} pictures/s "
        f"({facts['least']:.1f} to {facts['most']:.1f}, {facts['repeats']} × {facts['steps']} steps) "
        f"{share} of the ceiling {peak}  {facts['modules']}",
        flush=True,
    )


def main() -> None:
    began = time.perf_counter()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--methods", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5, help="of a stretch that is timed")
    parser.add_argument("--repeats", type=int, default=5, help="stretches")
    parser.add_argument("--seconds", type=float, default=math.inf, help="for all rows, imports not counted")
    parser.add_argument("--matrix", type=int, help="side of the ceiling's matrices; 8192 on a GPU, else 1024")
    parser.add_argument("--json", help="append each row to this file as it is done")
    o = parser.parse_args()
    words, length = TEXTS[o.size]
    run = Run(SIZES[o.size], o.batch, o.steps, o.precision, o.device, 0, PARTS[o.size], words, length)
    where = torch.cuda.get_device_name() if o.device == "cuda" else platform.machine()
    common = {"size": o.size, "precision": o.precision, "batch": o.batch, "device": where}
    common |= {"torch": torch.__version__}
    print(", ".join(f"{name} {value}" for name, value in common.items()), flush=True)
    side = o.matrix or (8192 if o.device == "cuda" else 1024)
    top = common["ceiling"] = ceiling(run, side)
    print(f"a product of {side} × {side} matrices: {top / 1e12:.4g} T operations/s", flush=True)
    batches = [draw_batch(run, seed) for seed in range(2)]
    rows = [(method, side) for method in o.methods for side in ("ours", "reference")]
    work: dict[str, float] = {}
    for place, (method, side) in enumerate(rows):
        left = o.seconds - (time.perf_counter() - began)
        clock = Clock(run, o.repeats, left / (len(rows) - place))
        try:
            if left <= 0:
                raise TimeoutError(f"{o.seconds:.0f} seconds are over")
            facts = row(run, method, side, batches, clock)
        except Exception as error:  # the rest goes on
            facts = {"method": method, "side": side, "error": f"{type(error).__name__}: {error}"}
        work |= {method: facts["operations"]} if "operations" in facts else {}
        if method in work and "error" not in facts:
            facts["operations"] = work[method]
            facts["share_of_ceiling"] = facts["pictures_per_second"] * work[method] / top
        show(facts)
        if o.json:
            with open(o.json, "a") as file:
                file.write(json.dumps(common | facts) + "\n")
        del clock
        gc.collect()
        if o.device == "cuda":
            torch.cuda.empty_cache()
    for method, count in work.items():
        print(f"{method}: {count / 1e9:.2f} G operations a picture, forward and backward")
    print(f"{time.perf_counter() - began:.1f} s after the imports")


if __name__ == "__main__":
    main()

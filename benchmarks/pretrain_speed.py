"""Pretraining: pictures a second beside timm's, open_clip's and lightly's modules in a plain loop, in the same run.

Both sides train the same ViT (width, depth, heads, patch) on the same pictures with the same batch, precision, AdamW
and clipping. Ours is `sutura.train.loop.fit` with its feed, as `sutura pretrain` runs it. The plain loop reads pictures
through a DataLoader with torchvision's transforms; a second figure leaves its loader out: one batch, in memory. MAE
needs lightly, which is no dependency, and is left out where it cannot be imported. `pretrain_device.py` times the
step alone, with pictures that lie on the device.

    python benchmarks/pretrain_speed.py
    python benchmarks/pretrain_speed.py --size b16 --device cuda --batch 256 --methods supervised
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pretrain_references import PARTS, PLAIN, SIZES, WARM, OneByOne, Run, make_pictures
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from sutura.data.captions import CaptionedPictures
from sutura.train.loop import fit
from sutura.train.methods import METHODS
from sutura.train.picture_feed import Ahead
from sutura.train.pretrain import build_feed, build_model


def possible(method: str) -> bool:
    """Whether the reference of a method is installed."""
    return method != "mae" or importlib.util.find_spec("lightly") is not None


def ours(run: Run, method: str, data: CaptionedPictures) -> float:
    """Pictures a second of `fit`, as `sutura pretrain` runs it."""
    config, kind = run.config(method), METHODS.get(method)
    feed = build_feed(config, kind, data)
    model = build_model(config, kind, data, feed.steps)
    objective = kind.tune(config.methods) if kind.tune else kind.objective
    times = [0.0]
    with Ahead(feed) as batches, tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            objective,
            batches,
            config.optim,
            seed=0,
            directory=Path(folder),
            after_step=kind.after_step(config.methods, feed.steps) if kind.after_step else None,
            on_step=lambda done, row: times.append(time.perf_counter()),
            device=run.device,
        )
    return run.batch / statistics.median(np.diff(times[WARM:]))


def plain(run: Run, method: str, data: CaptionedPictures, *, loader: bool) -> float:
    """Pictures a second of the loop that a tutorial writes."""
    torch.manual_seed(0)
    model = PLAIN[method](run).to(run.device).train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.05)
    times = []
    for pixels, labels, words in _batches(run, data, loader=loader):
        batch = [part.to(run.device, non_blocking=True) for part in (pixels, labels, words)]
        with run.autocast():
            loss = model(*batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # as a loop that logs its loss; waits for the device
        times.append(time.perf_counter())
    return run.batch / statistics.median(np.diff(times[WARM - 1 :]))


def _batches(run: Run, data: CaptionedPictures, *, loader: bool) -> Iterator[list[Tensor]]:
    source = DataLoader(
        OneByOne(data, run.vit["image_size"]), run.batch, shuffle=True, drop_last=True,
        num_workers=run.workers if loader else 0, persistent_workers=bool(run.workers and loader),
    )  # fmt: skip
    count, once = 0, None
    while count < WARM + run.steps:
        for batch in source if once is None else [once]:
            if not loader:
                once = [part.to(run.device) for part in batch]
            yield batch if once is None else once
            count += 1
            if count == WARM + run.steps or once is not None:
                break


def compare(run: Run, methods: list[str], data: CaptionedPictures, repeats: int) -> dict[str, Any]:
    """Every method: ours, the plain loop, and the plain loop without its loader, taking turns."""
    figures: dict[str, Any] = {}
    for method in methods:
        if not possible(method):
            print(f"\n{method}: lightly cannot be imported, so there is no reference; left out", flush=True)
            continue
        sides: dict[str, Callable[[], float]] = {
            "plain loop": lambda m=method: plain(run, m, data, loader=True),
            "plain loop, one batch in memory": lambda m=method: plain(run, m, data, loader=False),
            "ours, with its loader": lambda m=method: ours(run, m, data),
        }
        found: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(repeats):
            for name, side in sides.items():
                found[name].append(side())
        rates = {name: statistics.median(values) for name, values in found.items()}
        print(f"\n{method}")
        for name, rate in rates.items():
            print(f"  {name:34s} {rate:10.1f} pictures/s  {rate / rates['plain loop']:6.2f}x", flush=True)
        figures[method] = rates | {"spread": {name: [min(v), max(v)] for name, v in found.items()}}
    return figures


def ceiling(run: Run) -> float:
    """Floating-point operations a second of a large matrix product, median of five."""
    side = 8192 if run.device == "cuda" else 2048
    a = torch.rand(side, side, device=run.device).to(getattr(torch, run.precision))
    times = []
    for _ in range(6):
        began = time.perf_counter()
        a @ a
        if run.device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 2 * side**3 / statistics.median(times[1:])


def arithmetic(run: Run, method: str, data: CaptionedPictures) -> float:
    """Floating-point operations of a picture, forward and backward, counted by torch."""
    config, kind = run.config(method), METHODS.get(method)
    feed = build_feed(config, kind, data)
    model = build_model(config, kind, data, feed.steps).to(run.device)
    batch = feed.micro_batches(0)[0]
    batch = batch._replace(
        **{k: v.to(run.device) for k, v in batch._asdict().items() if isinstance(v, Tensor)}
    )
    with FlopCounterMode(display=False) as counter:
        kind.objective(model, batch, 0)[0].backward()
    return counter.get_total_flops() / run.batch


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--methods", nargs="+", choices=PLAIN, default=list(PLAIN))
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8, help="counted in every round")
    parser.add_argument("--repeats", type=int, default=3, help="rounds in which the sides take turns")
    parser.add_argument("--workers", type=int, default=1, help="of the plain loop's DataLoader")
    parser.add_argument("--pictures", type=int, default=1024)
    parser.add_argument("--json", help="append the figures to this file")
    o = parser.parse_args()
    run = Run(SIZES[o.size], o.batch, o.steps, o.precision, o.device, o.workers, PARTS[o.size])
    where = torch.cuda.get_device_name() if o.device == "cuda" else platform.machine()
    figures: dict[str, Any] = {
        "size": o.size,
        "precision": o.precision,
        "batch": o.batch,
        "device": where,
        "threads": torch.get_num_threads(),
    }
    print(
        f"pretraining, {o.size}, {o.precision}, batch {o.batch}, {where}, {figures['threads']} threads, "
        f"medians of {o.repeats} rounds of {o.steps} steps"
    )
    with tempfile.TemporaryDirectory() as folder:
        data = make_pictures(Path(folder), max(o.pictures, o.batch), run.vit["image_size"])
        rates = figures["pictures_per_second"] = compare(run, o.methods, data, o.repeats)
        top = figures["ceiling"] = ceiling(run)
        print(f"\nceiling of a matrix product: {top / 1e12:.3g} T operations/s")
        for method in rates:
            work = arithmetic(run, method, data)
            share = rates[method]["ours, with its loader"] * work / top
            rates[method] |= {"operations": work, "share_of_ceiling": share}
            print(f"  {method:12s} {work / 1e9:8.2f} G operations a picture, ours at {share:.0%} of it")
    if o.json:
        with open(o.json, "a") as file:
            file.write(json.dumps(figures) + "\n")
    else:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()

"""A step of `align` beside a plain implementation of the same losses, and beside open_clip's own step, in one run.

Three comparisons, each side the same towers, batch, precision and AdamW; ours through `sutura.train.loop.fit`:

* `all terms`: prediction, contrastive, variance and hardest negative, against a loop as a tutorial writes it: hidden
  patches become mask tokens that run through the whole picture tower, the moving average is taken weight by weight;
* `live`: the contrastive term alone, against open_clip's modules with its ClipLoss, towers training;
* `cached`: towers frozen, heads training: ours reads the towers' output, open_clip (both towers locked) runs them.

    python benchmarks/jepa_speed.py
    python benchmarks/jepa_speed.py --size b16 --device cuda --precision bfloat16 --batch 128
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sutura.losses.collapse import variance_loss
from sutura.losses.contrastive import clip_loss
from sutura.losses.ranking import hardest_negative_loss
from sutura.models.clip import TextTransformer
from sutura.models.ijepa import Predictor
from sutura.models.projection_heads import HEADS
from sutura.models.vit import ViT
from sutura.models.vljepa_align import AlignVLJEPA
from sutura.nn.masking import RectangleMask, gather_patches
from sutura.train.align import PLACES, AlignObjective, AlignTraining
from sutura.train.align_config import AlignConfig, LossConfig, Phase, RatesConfig, ViewsConfig
from sutura.train.align_feed import AlignBatch
from sutura.train.align_phases import Freezer, plan
from sutura.train.align_run import follow
from sutura.train.loop import fit
from sutura.train.optim import OptimConfig

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"image": 64, "patch": 8, "vision": (128, 4, 4), "text": (128, 2, 4), "dim": 128},
    "small": {"image": 96, "patch": 8, "vision": (192, 6, 6), "text": (192, 4, 6), "dim": 256},
    "b16": {"image": 224, "patch": 16, "vision": (768, 12, 12), "text": (512, 12, 8), "dim": 512},
}
WORDS, LENGTH, END, LONGEST = 49408, 77, 49407, 24
WARM = 2


@dataclass(frozen=True)
class Run:
    """What both sides share."""

    size: str
    batch: int
    steps: int
    device: str
    precision: str

    @property
    def of(self) -> dict[str, Any]:
        return SIZES[self.size]

    def autocast(self):
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16")

    def batch_of(self, *, cached: bool = False, masked: bool = False) -> AlignBatch:
        """Noise with captions of 12 to 24 tokens, as COCO's are."""
        g = torch.Generator().manual_seed(0)
        o, n = self.of, self.batch
        words = torch.randint(1, 400, (n, LONGEST), generator=g)
        ends = torch.randint(12, LONGEST, (n,), generator=g)
        words[torch.arange(LONGEST) > ends[:, None]] = 0
        words[torch.arange(n), ends] = END
        numbers = torch.arange(n)
        side = o["image"] // o["patch"]
        context, target = RectangleMask((side, side)).sample(n, g)
        found = AlignBatch(list(range(n)), numbers, numbers[:, None], 1.0)
        if cached:
            image, text = (torch.randn(n, o[side][0], generator=g) for side in ("vision", "text"))
            return found._replace(image_features=image, text_features=text)
        found = found._replace(pixels=torch.randn(n, 3, o["image"], o["image"], generator=g), words=words)
        return found._replace(context=context, target=target) if masked else found


def model_of(run: Run, *, predicts: bool, head: str) -> AlignVLJEPA:
    """Our model at a size."""
    torch.manual_seed(0)
    o = run.of
    (vw, vd, vh), (tw, td, th) = o["vision"], o["text"]
    vision = ViT(o["image"], o["patch"], vw, vd, vh, cls=True, pooling="cls", pre_norm=True, patch_bias=False)
    text = TextTransformer(WORDS, LENGTH, tw, td, th, END)
    predictor = Predictor(vision.grid, vw, vw // 2, 4, vh) if predicts else None
    heads = [HEADS[head](width, o["dim"], None, None) for width in (vw, tw)]
    return AlignVLJEPA(vision, text, predictor, heads[0], heads[1])


class Fixed:
    """The same batch at every step."""

    def __init__(self, batch: AlignBatch, steps: int) -> None:
        self.batch, self.steps = batch, steps

    def micro_batches(self, step: int) -> list[AlignBatch]:
        return [self.batch]


def ours(run: Run, phase: Phase, *, cached: bool = False, head: str = "clip") -> list[float]:
    """Seconds of each step of `fit`."""
    steps = WARM + run.steps
    planned = plan([phase], steps, steps, 1.0)
    training = AlignTraining(model_of(run, predicts=phase.alpha > 0, head=head))
    freezer = Freezer(training, PLACES, planned, RatesConfig(), 1e-4, {"image_head": 1.0, "text_head": 1.0})
    times = [time.perf_counter()]
    fit(
        training,
        AlignObjective(planned, LossConfig(contrastive="infonce", smoothing=0.0), ViewsConfig()),
        Fixed(run.batch_of(cached=cached, masked=phase.alpha > 0), steps),
        OptimConfig(lr=1e-4, precision=run.precision),
        seed=0,
        directory=None,
        groups=freezer.groups,
        before_step=freezer.before_step,
        after_step=follow(AlignConfig(name="speed", phases=(phase,)), planned),
        on_step=lambda done, row: times.append(time.perf_counter()),
        device=run.device,
    )
    return [after - before for before, after in itertools.pairwise(times)][WARM:]


def timed(
    run: Run, weights: list[nn.Parameter], loss_of: Callable[[], Tensor], after: Callable[[], None]
) -> list[float]:
    """Seconds of each step of a plain loop."""
    optimizer = torch.optim.AdamW(weights, lr=1e-4)
    times = []
    for _ in range(WARM + run.steps):
        began = time.perf_counter()
        with run.autocast():
            loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        after()
        loss.item()
        times.append(time.perf_counter() - began)
    return times[WARM:]


def plain(run: Run, phase: Phase) -> list[float]:
    """The same losses as a tutorial writes them."""
    model = model_of(run, predicts=True, head="mlp").to(run.device)
    encoder, target = model.context_encoder, copy.deepcopy(model.context_encoder).requires_grad_(False)
    o = run.of
    mask_token = nn.Parameter(torch.zeros(1, 1, o["vision"][0], device=run.device))
    b = run.batch_of(masked=True)
    assert b.pixels is not None
    assert b.words is not None
    assert b.context is not None
    assert b.target is not None
    pixels, words, context, hidden_at = (
        part.to(run.device) for part in (b.pixels, b.words, b.context, b.target)
    )
    whole = torch.zeros(len(words), LENGTH, dtype=words.dtype, device=run.device)
    whole[:, : words.shape[1]] = words
    hidden = torch.zeros(len(words), encoder.grid[0] * encoder.grid[1], dtype=torch.bool, device=run.device)
    hidden.scatter_(1, hidden_at, True)

    def loss_of() -> Tensor:
        image, text = model.encode_image(pixels), model.encode_text(whole)
        seen = encoder(pixels, hidden=hidden, mask_token=mask_token)[1]["normed"]
        assert model.predictor is not None
        guesses = model.predictor(gather_patches(seen, context), context, hidden_at)
        with torch.no_grad():
            found = F.layer_norm(target(pixels)[1]["normed"].float(), (o["vision"][0],))
        prediction = F.mse_loss(guesses.float(), gather_patches(found, hidden_at))
        return (
            phase.alpha * prediction
            + phase.beta * clip_loss(image, text, model.log_scale)
            + phase.gamma * (variance_loss(image) + variance_loss(text)) / 2
            + phase.delta * hardest_negative_loss(image, text)
        )

    @torch.no_grad()
    def after() -> None:
        for mine, theirs in zip(target.parameters(), encoder.parameters(), strict=True):
            mine.mul_(0.996).add_(theirs, alpha=0.004)

    weights = [p for p in model.parameters() if p.requires_grad] + [mask_token]
    return timed(run, weights, loss_of, after)


def open_clips(run: Run, *, locked: bool) -> list[float]:
    """open_clip's modules and loss, in the loop of its own training: forward of both towers, ClipLoss, clamp."""
    from open_clip.loss import ClipLoss
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    o = run.of
    (vw, vd, vh), (tw, td, th) = o["vision"], o["text"]
    torch.manual_seed(0)
    model = CLIP(
        o["dim"],
        CLIPVisionCfg(layers=vd, width=vw, head_width=vw // vh, patch_size=o["patch"], image_size=o["image"]),
        CLIPTextCfg(context_length=LENGTH, vocab_size=WORDS, width=tw, heads=th, layers=td),
    ).to(run.device)
    if locked:
        for name, weight in model.named_parameters():
            weight.requires_grad_(name in ("visual.proj", "text_projection", "logit_scale"))
    b = run.batch_of()
    assert b.pixels is not None
    assert b.words is not None
    pixels = b.pixels.to(run.device)
    words = torch.zeros(len(b.words), LENGTH, dtype=b.words.dtype)
    words[:, : b.words.shape[1]] = b.words
    words, loss = words.to(run.device), ClipLoss()

    def after() -> None:
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))

    def loss_of() -> Tensor:
        return loss(*model(pixels, words))

    return timed(run, [p for p in model.parameters() if p.requires_grad], loss_of, after)


def compare(run: Run, repeats: int) -> dict[str, Any]:
    """Every comparison, the sides taking turns."""
    every = Phase(alpha=0.1, beta=0.9, gamma=0.01, delta=0.1)
    alone = Phase(alpha=0, beta=1.0, gamma=0)
    frozen = Phase(alpha=0, beta=1.0, gamma=0, frozen=("vision", "text"))
    sides: dict[str, tuple[Callable[[], list[float]], Callable[[], list[float]]]] = {
        "all terms": (lambda: ours(run, every, head="mlp"), lambda: plain(run, every)),
        "live": (lambda: ours(run, alone), lambda: open_clips(run, locked=False)),
        "cached": (lambda: ours(run, frozen, cached=True), lambda: open_clips(run, locked=True)),
    }
    found = {}
    for name, (mine, theirs) in sides.items():
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(repeats):
            times[0].extend(mine())
            times[1].extend(theirs())
        medians = [statistics.median(one) for one in times]
        quartiles = [list(statistics.quantiles(one, n=4)[::2]) for one in times]
        found[name] = {
            "ours_s": medians[0],
            "reference_s": medians[1],
            "ratio": medians[1] / medians[0],
            "ours_quartiles": quartiles[0],
            "reference_quartiles": quartiles[1],
            "steps": len(times[0]),
        }
        print(
            f"{name:10s} ours {1e3 * medians[0]:8.1f} ms, reference {1e3 * medians[1]:8.1f} ms, "
            f"{medians[1] / medians[0]:.2f}x",
            flush=True,
        )
    return found


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    run = Run(given.size, given.batch, given.steps, given.device, given.precision)
    found = compare(run, given.repeats)
    if given.json:
        about = {
            "date": time.strftime("%Y-%m-%d"),
            "size": given.size,
            "batch": given.batch,
            "precision": given.precision,
            "device": torch.cuda.get_device_name()
            if given.device == "cuda"
            else platform.processor() or "cpu",
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "command": "python benchmarks/jepa_speed.py "
            + f"--size {given.size} --batch {given.batch} --steps {given.steps} --repeats {given.repeats} "
            + f"--device {given.device} --precision {given.precision}",
        }
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(about | {"comparisons": found}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

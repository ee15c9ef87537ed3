"""One of two processes that train a stitch whose trunk lies in pieces: `shard_worker.py RANK FOLDER`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sutura.core.log import read_metrics
from sutura.core.runtime import generator
from sutura.data.samples import SetAside
from sutura.encoders.config import EncoderConfig
from sutura.stitch.bundle import Stitch, StitchConfig, build_stitch
from sutura.stitch.config import LlmConfig
from sutura.stitch.generate import generate
from sutura.stitch.pack import Row
from sutura.train.config import FeedConfig, OptimConfig
from sutura.train.loop import fit
from sutura.train.shard import shard_frozen
from sutura.train.stitching import StitchFeed, stitch_loss, to_rows
from tiny_models import ENCODER_WIDTH, TinyEncoder, awaken, many_questions
from two_processes import answer, refused

OPTIM = OptimConfig(lr=5e-3, schedule="constant", clip=0.3)


class Trunk(nn.Module):
    """Blocks that an encoder can name."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(ENCODER_WIDTH, ENCODER_WIDTH) for _ in range(2))

    def blocks(self) -> nn.ModuleList:
        return self.layers

    def forward(self, patches: Tensor) -> Tensor:
        for layer in self.layers:
            patches = patches + layer(patches).tanh()
        return patches


class BlockEncoder(TinyEncoder):
    """A frozen encoder that runs live."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk().requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.trunk(super().forward(pixels))


def make_stitch(lm: Path) -> Stitch:
    """A stitch with a live encoder, on a language model that was saved before: transformers lets the first
    process alone save one."""
    encoder = BlockEncoder()
    config = StitchConfig(encoder=EncoderConfig(id="tiny"), llm=LlmConfig(id=str(lm), rank=4, dropout=0.0))
    stitch = build_stitch(config, encoder.facts())
    awaken(stitch.model)
    stitch.model.encoder = encoder
    return stitch


def pixels(names: Any) -> Tensor:
    return torch.stack([torch.rand(3, 8, 8, generator=generator(int(n[1:]), "pixels")) for n in names])


def train(lm: Path, folder: Path, *, sharded: bool = False, where: Path | None = None) -> dict[str, Any]:
    """The curve, the weights, the answers, and how many frozen elements this process holds."""
    stitch = make_stitch(lm)
    rows = to_rows(many_questions(), stitch.prompt, learn=True, set_aside=SetAside())
    feed = StitchFeed(
        rows, FeedConfig(batch=7, micro_batch=2, epochs=1.0), stitch.prompt, seed=0, pixels=pixels
    )
    frozen = {n: p for n, p in stitch.model.named_parameters() if not p.requires_grad}
    told: dict[str, Any] = {"frozen": sum(p.numel() for p in frozen.values())}
    if sharded:
        told["pieces"] = shard_frozen(stitch.model, torch.device("cpu"))
    held = [p for p in stitch.model.parameters() if not p.requires_grad]
    told["held"] = sum(getattr(p, "_local_tensor", p).numel() for p in held)
    result = fit(
        stitch.model, stitch_loss, feed, OPTIM, seed=0, directory=where, checkpoint_every=2 if where else 0
    )
    told["loss"] = [result.loss.first, result.loss.final_mean]
    if where is not None:
        told["curve"] = [[row["loss"], row["grad_norm"]] for row in read_metrics(where / "metrics.jsonl")]
    named = stitch.model.named_parameters()
    told["weights"] = {n: p.detach().clone() for n, p in named if p.requires_grad}
    told["parts"] = [len(feed.micro_batches(step)) for step in range(feed.steps)]
    asked = [Row(i, (stitch.prompt.turn(f"{i}", f"How many {i}?"),)) for i in range(3)]
    visual = stitch.model.project(stitch.model.encode(pixels(["p0", "p1", "p2"])))
    told["answers"] = [a.text for a in generate(stitch.model, stitch.prompt, asked, visual, max_new_tokens=5)]
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        stitch.save(folder / f"saved-{'sharded' if sharded else 'whole'}")
    return told


def work(rank: int, folder: Path) -> dict[str, Any]:
    lm, own = folder / "lm", folder / str(rank)
    own.mkdir()
    told = {"sharded": train(lm, own, sharded=True, where=folder / "sharded"), "whole": train(lm, own)}
    again = make_stitch(lm)
    again.model.lm.get_base_model().model.layers = nn.ModuleList()
    told["no blocks"] = refused(lambda: shard_frozen(again.model, torch.device("cpu")))
    return told


if __name__ == "__main__":
    answer(work)

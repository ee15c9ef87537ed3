"""What a pretraining run cost: arithmetic, who saw how many pictures, the loss on the way, the machine."""

from __future__ import annotations

import copy
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from torch import nn

from sutura.core.doctor import machine
from sutura.core.log import read_metrics
from sutura.train.loop import FitResult, Objective
from sutura.train.methods import Method
from sutura.train.picture_feed import PictureFeed

#: Pictures that arithmetic is counted on at most.
COUNTED = 64

if TYPE_CHECKING:
    from sutura.train.pretrain_config import PretrainConfig


def operations(
    model: nn.Module, objective: Objective, method: Method, feed: PictureFeed, config: PretrainConfig
) -> float:
    """Of the whole run: matrix products and attention, counted forward and backward on a batch of each stage.

    Of a large batch a part is counted, and taken as often as it fits.
    """
    from torch.utils.flop_counter import FlopCounterMode

    part = copy.copy(feed)
    part.batch = min(feed.batch, COUNTED)
    switch = method.switch(config.methods, feed.steps) if method.switch else feed.steps
    total = 0.0
    for first, steps in ((0, switch), (switch, feed.steps - switch)):
        if steps:
            with FlopCounterMode(display=False) as counter:
                objective(model, part.micro_batches(first)[0], first)[0].backward()
            model.zero_grad(set_to_none=True)
            total += counter.get_total_flops() * steps * feed.batch / part.batch
    return total


def passes(config: PretrainConfig, method: Method, model: nn.Module, steps: int) -> dict[str, int]:
    """Pictures seen by the trained encoder, by whoever else sees them, and in the teacher's own training."""
    seen = {"encoder": config.passes}
    if method.switch is not None:
        first = method.switch(config.methods, steps) * config.batch
        seen |= {"encoder, first stage": first, "encoder, second stage": config.passes - first}
    for who, share in (method.others(config.methods, steps) if method.others else {}).items():
        seen[who] = round(share * config.passes)
    if method.teacher(config.methods) is not None:
        seen["teacher, its own training before"] = model.teacher.passes  # pyright: ignore
    return seen


def loss_curve(result: FitResult, points: int = 10) -> list[tuple[int, float]]:
    """Steps done and the mean loss of the stretch that ends there, for equal stretches of the run."""
    assert result.history is not None
    losses = [row["loss"] for row in read_metrics(result.history)]
    ends = sorted({max(1, round(len(losses) * (i + 1) / points)) for i in range(points)})
    curve = []
    for start, end in zip([0, *ends], ends, strict=False):
        finite = [loss for loss in losses[start:end] if loss is not None]
        curve.append((end, fmean(finite) if finite else float("nan")))
    return curve


def hardware(model: nn.Module) -> str:
    """What the model lies on."""
    device = next(model.parameters()).device
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}; {machine()}"
    return f"{torch.get_num_threads()} threads of {machine()}"

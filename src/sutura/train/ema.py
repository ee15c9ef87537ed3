"""Exponential moving averages: a target network that follows the online one."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from sutura.core.errors import UserError


def momentum(
    step: int,
    steps: int,
    start: float = 0.996,
    end: float = 1.0,
    shape: Literal["linear", "cosine"] = "linear",
) -> float:
    """Momentum of the target at a step, from `start` at step 0 to `end` at step == steps.

    Source: linear as in I-JEPA, Assran et al. 2023, arXiv:2301.08243, appendix A.1 and its reference
        implementation; cosine as in BYOL, Grill et al. 2020, arXiv:2006.07733, section 3.3.
    """
    progress = min(1.0, max(0.0, step / max(1, steps)))
    if shape == "cosine":
        progress = 0.5 * (1 - math.cos(math.pi * progress))
    return start + (end - start) * progress


@torch.no_grad()
def update_ema(target: nn.Module, online: nn.Module, momentum: float, *, moved: bool = False) -> None:
    """target ← momentum · target + (1 − momentum) · online, weight by weight; buffers are copied.

    Args:
        moved: the online network trained before, so that the average has a way to go though it is frozen now.

    Raises:
        UserError: the two differ in a name or a shape, the target would receive gradients, or no weight of
            the online network trains, so that the average would equal it for ever.
    """
    targets, onlines = dict(target.named_parameters()), dict(online.named_parameters())
    target_buffers, online_buffers = dict(target.named_buffers()), dict(online.named_buffers())
    if targets.keys() != onlines.keys() or target_buffers.keys() != online_buffers.keys():
        differ = (targets.keys() ^ onlines.keys()) | (target_buffers.keys() ^ online_buffers.keys())
        raise UserError(f"Target and online network differ in {', '.join(sorted(differ)[:4])}.")
    if any(p.requires_grad for p in targets.values()):
        raise UserError("The target network asks for gradients; freeze it, it only follows the online one.")
    if not moved and not any(p.requires_grad for p in onlines.values()):
        raise UserError(
            "The online network is frozen, so its moving average is the same network for ever; "
            "train it or leave the average out."
        )
    for name, weight in targets.items():
        if weight.shape != onlines[name].shape:
            raise UserError(f"{name}: target {tuple(weight.shape)}, online {tuple(onlines[name].shape)}.")
    names = list(targets)
    torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
        [targets[name] for name in names],
        [onlines[name].to(targets[name].dtype) for name in names],
        1.0 - momentum,
    )
    for name, buffer in target_buffers.items():
        buffer.copy_(online_buffers[name])

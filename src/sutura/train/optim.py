"""Learning rates as functions of the step, and parameter groups that account for every trainable weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from sutura.core.config import Section
from sutura.core.errors import UserError

Schedule = Literal["constant", "cosine", "linear"]


class OptimConfig(Section):
    """How weights move.

    Args:
        lr: peak learning rate.
        weight_decay: AdamW's, on tensors of two or more dimensions only (see `decay_all`).
        betas: AdamW's moments.
        schedule: shape of the learning rate after the warm-up.
        warmup: steps of linear rise; 0 starts at the peak.
        floor: fraction of `lr` at which cosine and linear end.
        clip: largest allowed gradient norm over all trainable weights; None leaves gradients alone.
        precision: float32, or bfloat16 autocast over float32 weights.
        decay_all: decay biases, norms and scalars too.
        max_bad_batches: steps with a non-finite loss or gradient that are skipped before the run stops.
    """

    lr: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Schedule = "cosine"
    warmup: int = Field(0, ge=0)
    floor: float = Field(0.0, ge=0, le=1)
    clip: float | None = Field(1.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    decay_all: bool = False
    max_bad_batches: int = Field(10, ge=0)


def lr_factor(step: int, steps: int, schedule: Schedule, warmup: int = 0, floor: float = 0.0) -> float:
    """Fraction of the peak learning rate at a step: a pure function, so a resumed run needs no state for it.

    The rise is (step + 1) / (warmup + 1), never zero, and reaches 1 at step == warmup; from there to `steps`
    the shape goes down to `floor`, which the last step does not quite reach.

    Args:
        step: index of the optimizer step, from 0.
        steps: optimizer steps in the run.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    fall = 0.5 * (1 + math.cos(math.pi * progress)) if schedule == "cosine" else 1 - progress
    return floor + (1 - floor) * fall


@dataclass(frozen=True)
class Group:
    """Trainable weights that share a learning rate.

    Args:
        name: shown in messages.
        parameters: names as `model.named_parameters()` gives them.
        lr_scale: multiplies the run's learning rate.
        weight_decay: replaces the run's.
    """

    name: str
    parameters: Sequence[str]
    lr_scale: float = 1.0
    weight_decay: float | None = None


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every weight that asks for a gradient, by name.

    Raises:
        UserError: none does, or one of them is not float32. Half-precision weights lose updates smaller than
            their spacing; bfloat16 belongs in the autocast and in frozen weights.
    """
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not found:
        raise UserError("Nothing to train: every weight of the model is frozen.")
    halves = [f"{name} ({p.dtype})" for name, p in found.items() if p.dtype != torch.float32]
    if halves:
        raise UserError(
            f"{len(halves)} trainable weights are not float32: {', '.join(halves[:3])}"
            f"{' …' if len(halves) > 3 else ''}. Trainable weights are kept in float32; "
            "cast them, and use precision: bfloat16 for the arithmetic."
        )
    return found


def build_optimizer(
    trainable: dict[str, nn.Parameter], config: OptimConfig, groups: Sequence[Group] | None = None
) -> torch.optim.AdamW:
    """AdamW over groups, each split into a decayed and an undecayed half; sets no learning rate yet.

    Raises:
        UserError: a group names a weight that does not train or that another group has, or a trainable weight
            is in no group.
    """
    groups = [Group("all", list(trainable))] if groups is None else groups
    _account(trainable, groups)
    built = []
    for group in groups:
        decay = config.weight_decay if group.weight_decay is None else group.weight_decay
        halves: dict[bool, list[str]] = {True: [], False: []}
        for name in group.parameters:
            halves[config.decay_all or trainable[name].ndim >= 2].append(name)
        for decayed, names in halves.items():
            if names:
                built.append(
                    {
                        "params": [trainable[name] for name in names],
                        "names": names,
                        "group": group.name,
                        "lr": 0.0,
                        "lr_scale": group.lr_scale,
                        "weight_decay": decay if decayed else 0.0,
                    }
                )
    fused = all(p.device.type in ("cpu", "cuda") for p in trainable.values())
    return torch.optim.AdamW(built, lr=0.0, betas=config.betas, fused=fused)


def _account(trainable: dict[str, nn.Parameter], groups: Sequence[Group]) -> None:
    owner: dict[str, str] = {}
    for group in groups:
        for name in group.parameters:
            if name not in trainable:
                raise UserError(f"Group {group.name!r} names {name!r}, which is no trainable weight.")
            if name in owner:
                raise UserError(f"{name!r} is in two groups, {owner[name]!r} and {group.name!r}.")
            owner[name] = group.name
    left = [name for name in trainable if name not in owner]
    if left:
        raise UserError(f"{len(left)} trainable weights are in no group: {', '.join(left[:4])}.")


def set_lr(optimizer: torch.optim.Optimizer, config: OptimConfig, step: int, steps: int) -> float:
    """Give every group its learning rate for a step; returns the unscaled one."""
    lr = config.lr * lr_factor(step, steps, config.schedule, config.warmup, config.floor)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
    return lr

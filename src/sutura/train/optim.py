"""Learning rates as functions of the step, and parameter groups that account for every trainable weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sutura.core.errors import UserError
from sutura.train.config import OptimConfig, Schedule
from sutura.train.muon import MuonAdamW


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
        muon: move the group's matrices by Muon instead of AdamW.
        factor: for a step, from 0, what multiplies the rate besides; None for 1. At 0 neither the gradient nor the
            decay moves a weight.
    """

    name: str
    parameters: Sequence[str]
    lr_scale: float = 1.0
    weight_decay: float | None = None
    muon: bool = False
    factor: Callable[[int], float] | None = None


def trainable_parameters(model: nn.Module, dtype: str = "float32") -> dict[str, nn.Parameter]:
    """Every weight that asks for a gradient, by name.

    Args:
        model: with some weights that train.
        dtype: "bfloat16" brings them to it, to repeat a run that trained in it (`optim.trained_dtype`).

    Raises:
        UserError: none does, or one of them is not float32. Half-precision weights lose updates smaller than
            their spacing; bfloat16 belongs in the autocast and in frozen weights.
    """
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not found:
        raise UserError("Nothing to train: every weight of the model is frozen.")
    if dtype == "bfloat16":
        for parameter in found.values():
            parameter.data = parameter.data.to(torch.bfloat16)
        return found
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
) -> torch.optim.AdamW | MuonAdamW:
    """AdamW over groups, each split into a decayed and an undecayed half; sets no learning rate yet.

    With a group for Muon, both optimizers in one.

    Raises:
        UserError: a group names a weight that does not train or that another group has, a trainable weight
            is in no group, or a group for Muon holds something that is no matrix.
    """
    groups = [Group("all", list(trainable))] if groups is None else groups
    _account(trainable, groups)
    built: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for group in groups:
        decay = config.weight_decay if group.weight_decay is None else group.weight_decay
        halves: dict[bool, list[str]] = {True: [], False: []}
        for name in group.parameters:
            halves[config.decay_all or trainable[name].ndim >= 2].append(name)
        for decayed, names in halves.items():
            if names:
                built[group.muon].append(
                    {
                        "params": [trainable[name] for name in names],
                        "names": names,
                        "group": group.name,
                        "lr": 0.0,
                        "lr_scale": group.lr_scale,
                        "factor": group.factor,
                        "weight_decay": decay if decayed else 0.0,
                    }
                )
    fused = all(p.device.type in ("cpu", "cuda") for p in trainable.values())
    if built[True]:
        return MuonAdamW(built[True], built[False], betas=config.betas, fused=fused)
    return torch.optim.AdamW(built[False], lr=0.0, betas=config.betas, fused=fused)


def _account(trainable: dict[str, nn.Parameter], groups: Sequence[Group]) -> None:
    owner: dict[str, str] = {}
    for group in groups:
        for name in group.parameters:
            if name not in trainable:
                raise UserError(f"Group {group.name!r} names {name!r}, which is no trainable weight.")
            if group.muon and trainable[name].ndim != 2:
                shape = tuple(trainable[name].shape)
                raise UserError(f"Muon moves matrices; {name!r} in group {group.name!r} has shape {shape}.")
            if name in owner:
                raise UserError(f"{name!r} is in two groups, {owner[name]!r} and {group.name!r}.")
            owner[name] = group.name
    left = [name for name in trainable if name not in owner]
    if left:
        raise UserError(f"{len(left)} trainable weights are in no group: {', '.join(left[:4])}.")


def set_lr(optimizer: torch.optim.Optimizer | MuonAdamW, config: OptimConfig, step: int, steps: int) -> float:
    """Give every group its learning rate for a step; returns the unscaled one."""
    lr = config.lr * lr_factor(step, steps, config.schedule, config.warmup, config.floor)
    for group in optimizer.param_groups:
        factor = group["factor"]
        group["lr"] = lr * group["lr_scale"] * (1.0 if factor is None else factor(step))
    return lr

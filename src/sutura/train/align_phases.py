"""A run in phases: what each step weighs, which weights move and how fast, all functions of the step.

Every weight that trains in some phase is in the optimizer from the beginning. In a phase that freezes it, it asks for
no gradient, so that no graph is built below it and the optimizer passes it by: neither its bits nor its moments move.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from sutura.core.errors import UserError
from sutura.train.align_config import PARTS, Part, Phase, RatesConfig
from sutura.train.modes import set_train_mode
from sutura.train.optim import Group

#: For every weight of the picture tower that belongs to no block, where it comes in.
_BEFORE, _AFTER = -1, 10**6


@dataclass(frozen=True)
class Plan:
    """Phases in steps.

    Args:
        phases: as configured.
        starts: the first step of each.
        steps: of the run.
    """

    phases: tuple[Phase, ...]
    starts: tuple[int, ...]
    steps: int

    def number(self, step: int) -> int:
        """Which phase a step belongs to."""
        return bisect_right(self.starts, step) - 1

    def at(self, step: int) -> Phase:
        """The phase of a step."""
        return self.phases[self.number(step)]

    def trained_until(self, step: int) -> set[Part]:
        """Parts that the phase of a step or one before it trains: a moving average of them has somewhere to go."""
        return {
            part
            for phase in self.phases[: self.number(step) + 1]
            for part in PARTS
            if part not in phase.frozen or (part == "vision" and phase.trains_vision())
        }

    def first_step(self, holds: Sequence[bool]) -> int:
        """The first step of the first phase for which something holds; `steps` if there is none."""
        return next((start for start, found in zip(self.starts, holds, strict=True) if found), self.steps)

    def flags(self) -> list[str]:
        """What a reader has to know of this order of phases."""
        told = []
        for i, (phase, start) in enumerate(zip(self.phases, self.starts, strict=True)):
            end = (*self.starts, self.steps)[i + 1]
            trained = any(earlier.trains_vision() for earlier in self.phases[:i])
            if phase.alpha and not phase.trains_vision() and trained:
                told.append(
                    f"FROZEN PICTURE TOWER in phase {i + 1} (steps {start + 1} to {end}): alpha={phase.alpha:g} while "
                    "it does not move. Its moving average still comes closer to it, and ends as the same network; the "
                    "prediction term trains the predictor alone."
                )
            elif phase.alpha and not phase.trains_vision():
                told.append(
                    f"EMA OF A FROZEN NETWORK in phase {i + 1} (steps {start + 1} to {end}): alpha={phase.alpha:g} "
                    "while the picture tower is frozen. Its moving average is the same network for as long as that "
                    "lasts, so the predictor learns to repeat fixed features, and the prediction term teaches the "
                    "tower nothing."
                )
        if not any(phase.alpha for phase in self.phases):
            told.append(
                "alpha is 0 in every phase: no patch is predicted; there is no target encoder and no predictor."
            )
        return told


def plan(phases: Sequence[Phase], steps: int, per_epoch: float, epochs: float) -> Plan:
    """Where each phase begins.

    Args:
        phases: one or more; the last one may leave its length out.
        steps: of the run.
        per_epoch: steps of a pass over the data.
        epochs: of the run, for the message.

    Raises:
        UserError: phases that are longer or shorter than the run, or of no step.
    """
    if not phases:
        raise UserError("phases is empty; a run has one or more.")
    starts, at = [], 0.0
    for i, phase in enumerate(phases):
        starts.append(round(at))
        if phase.epochs is None and phase.share is None:
            if i != len(phases) - 1:
                raise UserError(
                    f"phases.{i} has neither epochs nor share; only the last phase may leave them out."
                )
            at = float(steps)
        else:
            at += phase.epochs * per_epoch if phase.epochs is not None else (phase.share or 0.0) * steps
    if abs(at - steps) > 0.5:
        raise UserError(
            f"The phases take {at:.0f} steps and the run has {steps} (epochs={epochs:g}); leave the last phase's "
            "length out, or make them fit."
        )
    for i, (start, end) in enumerate(zip(starts, [*starts[1:], steps], strict=True)):
        if end <= start:
            raise UserError(
                f"phases.{i} has no step (from {start} to {end} of {steps}); give it more, or remove it."
            )
    return Plan(tuple(phases), tuple(starts), steps)


class Freezer:
    """Which weights move at which step; `before_step` of the loop, and its groups.

    Args:
        model: as `fit` will train it. What trains in no phase is frozen for good here.
        places: where the parts lie: prefix of a weight's name → part. What is in none trains never.
        plan: of the run.
        rates: multiples of the learning rate.
        lr: `optim.lr`.
        heads: of the image and the text head, what `None` in `rates` stands for.

    Raises:
        UserError: a phase that trains more blocks than there are, or nothing at all.
    """

    def __init__(
        self,
        model: nn.Module,
        places: Mapping[str, Part],
        plan: Plan,
        rates: RatesConfig,
        lr: float,
        heads: Mapping[str, float],
    ) -> None:
        self.plan = plan
        depth = _depth(model, places)
        scale: dict[str, tuple[float, ...]] = {}
        for name, weight in model.named_parameters():
            part = _part(name, places)
            found = tuple(
                0.0 if part is None else _rate(part, _block(name), phase, depth, rates, lr, heads)
                for phase in plan.phases
            )
            if any(found):
                scale[name] = found
            weight.requires_grad_(any(found))
        self.scale = scale
        for i, phase in enumerate(plan.phases):
            if phase.vision_blocks > depth:
                raise UserError(
                    f"phases.{i}.vision_blocks={phase.vision_blocks}: the picture tower has {depth} blocks."
                )
            if not any(found[i] for found in scale.values()):
                raise UserError(f"phases.{i} freezes everything; nothing would train in it.")
        self._now: int | None = None

    def groups(self, model: nn.Module) -> list[Group]:
        """Weights whose rate goes through the same values, together."""
        by: dict[tuple[float, ...], list[str]] = {}
        for name, found in self.scale.items():
            by.setdefault(found, []).append(name)
        return [
            Group(_called(found), names, factor=partial(_factor, self.plan.starts, found))
            for found, names in by.items()
        ]

    def before_step(self, model: nn.Module, step: int) -> None:
        """Let ask for gradients what trains at this step, and nothing else."""
        number = self.plan.number(step)
        if number == self._now:
            return
        weights = dict(model.named_parameters())
        for name, found in self.scale.items():
            weights[name].requires_grad_(found[number] > 0)
        set_train_mode(model)
        self._now = number

    def trained(self, number: int) -> int:
        """Weights (tensors) that move in a phase."""
        return sum(found[number] > 0 for found in self.scale.values())


def _factor(starts: tuple[int, ...], values: tuple[float, ...], step: int) -> float:
    return values[bisect_right(starts, step) - 1]


def _called(found: tuple[float, ...]) -> str:
    return "rates " + ", ".join(f"{one:g}" for one in found)


def _part(name: str, places: Mapping[str, Part]) -> Part | None:
    for prefix, part in places.items():
        if name == prefix or name.startswith(f"{prefix}."):
            return part
    return None


def _block(name: str) -> int:
    """Number of the block that a weight of the picture tower is in; before all blocks, or after them."""
    pieces = name.split(".")
    if "blocks" in pieces:
        return int(pieces[pieces.index("blocks") + 1])
    return _AFTER if "norm" in pieces else _BEFORE


def _depth(model: nn.Module, places: Mapping[str, Part]) -> int:
    numbers = [_block(name) for name, _ in model.named_parameters() if _part(name, places) == "vision"]
    return 1 + max((number for number in numbers if number not in (_BEFORE, _AFTER)), default=-1)


def _rate(
    part: Part,
    block: int,
    phase: Phase,
    depth: int,
    rates: RatesConfig,
    lr: float,
    heads: Mapping[str, float],
) -> float:
    """Multiple of the learning rate in a phase, 0 where the weight is frozen."""
    thawed = part == "vision" and phase.vision_blocks > 0 and block >= depth - phase.vision_blocks
    if part in phase.frozen and not thawed:
        return 0.0
    if part == "predictor" and not phase.alpha:
        return 0.0
    if part == "vision" and phase.vision_lr is not None:
        return phase.vision_lr / lr
    found = getattr(rates, part)
    return heads[part] if found is None else found

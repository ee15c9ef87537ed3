"""What a run of `sutura jepa` needs, stage by stage: the form that every plan of one has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from sutura.compare.plan_config import PlanSettings
from sutura.compare.plan_gpus import Gpu
from sutura.compare.plan_pass import Pass

GB = 10**9


@dataclass(frozen=True)
class Part:
    """A part of the model.

    Args:
        parameters, trained: what stands in two parts counts in the first; trained in any stage.
    """

    name: str
    parameters: int
    trained: int


@dataclass(frozen=True)
class Stage:
    """A stretch of steps that cost the same.

    Args:
        name: of the stage.
        trains: names of the parts that do.
        steps: None where the size of the data is not known.
        rows: of the largest forward pass: pairs, pictures or answers.
        passes: of a step.
        cost: of one forward pass with its backward one.
        optimizer: bytes of the optimizer's state.
        beside: bytes on the device that no step touches.
        whole: rows of a step, where its passes are of different sizes.
    """

    name: str
    trains: tuple[str, ...]
    steps: int | None
    rows: int
    passes: int
    cost: Pass
    optimizer: int
    beside: int = 0
    whole: int | None = None

    @property
    def peak(self) -> int:
        """Bytes held at once at most."""
        return self.cost.peak + self.optimizer + self.beside

    @property
    def flops(self) -> int:
        """Of a step."""
        return (self.whole or self.passes * self.rows) * self.cost.flops // self.rows


@dataclass(frozen=True)
class Once:
    """What a frozen network says of every picture or text, computed once, in float32.

    Args:
        count: pictures or texts; None where not known.
        rows: computed at once.
        cost: of so many.
        disk: bytes that one row takes; 0 where none is kept.
        beside: bytes on the device that belong to no part of it.
    """

    name: str
    count: int | None
    rows: int
    cost: Pass
    disk: int = 0
    beside: int = 0

    @property
    def peak(self) -> int:
        """Bytes held at once at most."""
        return self.cost.peak + self.beside

    @property
    def bytes(self) -> int | None:
        """On disk."""
        return None if self.count is None else self.count * self.disk


@dataclass(frozen=True)
class JepaPlan:
    """A run's needs.

    Args:
        sizes: what is read, in words, with where the numbers come from.
        batch: rows of a step.
        pictures_bytes: of the pictures kept as squares on disk; None where not known, 0 where none are.
        half: arithmetic of the steps in bfloat16.
        flags: what a reader has to know.
    """

    name: str
    form: str
    settings: PlanSettings
    sizes: str
    batch: int
    half: bool
    parts: tuple[Part, ...]
    once: tuple[Once, ...]
    stages: tuple[Stage, ...]
    pictures_bytes: int | None = 0
    flags: tuple[str, ...] = ()

    @property
    def phases(self) -> dict[str, int]:
        """Bytes held at most in each phase of the run."""
        return {one.name: one.peak for one in self.once} | {one.name: one.peak for one in self.stages}

    @property
    def needed(self) -> float:
        """GB of a GPU, with slack and reserve."""
        return max(self.phases.values()) / GB * (1 + self.settings.slack) + self.settings.reserve_gb

    @property
    def steps(self) -> int | None:
        """Of all stages; None where one is not known."""
        counts = [stage.steps for stage in self.stages]
        return None if any(one is None for one in counts) else sum(one or 0 for one in counts)

    def fits(self, gpu: Gpu) -> bool:
        """Whether the run fits a GPU."""
        return self.needed <= gpu.memory_gb

    def stage_seconds(self, stage: Stage, gpu: Gpu) -> float | None:
        """Of a stage on a GPU."""
        if stage.steps is None:
            return None
        rate = gpu.bf16 if self.half else gpu.fp32
        return stage.steps * stage.flops / (rate * self.settings.utilisation * 10**12)

    def once_seconds(self, gpu: Gpu) -> float | None:
        """Of all that is computed once."""
        total = 0.0
        for one in self.once:
            if one.count is None:
                return None
            total += one.count * one.cost.flops / one.rows / (gpu.fp32 * self.settings.utilisation * 10**12)
        return total

    def total_seconds(self, gpu: Gpu) -> float | None:
        """Of all stages and all that is computed once; reading pictures and evaluation are not in it."""
        parts = [self.once_seconds(gpu), *(self.stage_seconds(stage, gpu) for stage in self.stages)]
        return None if any(one is None for one in parts) else math.fsum(one or 0.0 for one in parts)


def trained_parts(trained: Iterable[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """What the parts are called that some weights belong to, in the order of the table."""
    found = {
        called for name in trained for prefix, called in names.items() if f"{name}.".startswith(f"{prefix}.")
    }
    return tuple(called for called in dict.fromkeys(names.values()) if called in found)


def count_parts(model: nn.Module, trained: Sequence[str], names: Mapping[str, str]) -> tuple[Part, ...]:
    """Parameters of a model's parts.

    Args:
        model: on the meta device.
        trained: names of the weights that train at any time.
        names: prefix of a weight's name → what the part is called, in the order of the table.
    """
    learns, seen = set(trained), set()
    counts = {name: [0, 0] for name in dict.fromkeys(names.values())}
    for name, weight in model.named_parameters(remove_duplicate=True):
        if id(weight) in seen:
            continue
        seen.add(id(weight))
        place = next(called for prefix, called in names.items() if f"{name}.".startswith(f"{prefix}."))
        counts[place][0] += weight.numel()
        counts[place][1] += weight.numel() * (name in learns)
    return tuple(Part(name, *pair) for name, pair in counts.items() if pair[0])

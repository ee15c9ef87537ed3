"""`sutura plan`: what a run needs, from its config alone. Nothing is downloaded and no weight is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sutura.compare.config import CompareConfig
from sutura.compare.plan_config import PlanSettings
from sutura.compare.plan_data import DataSizes, data_sizes
from sutura.compare.plan_gpus import GPUS, Gpu
from sutura.compare.plan_pass import Pass
from sutura.compare.plan_shapes import (
    Parts,
    Training,
    ask_batch,
    count_parts,
    encode_batch,
    micro_sizes,
    runs_live,
    train_micro,
)
from sutura.encoders.cache import estimate_bytes
from sutura.encoders.config import EncoderConfig
from sutura.encoders.outline import outline_encoder

GB = 10**9


@dataclass(frozen=True)
class RowPlan:
    """One encoder of the comparison, or the blind run.

    Args:
        name, id: of the row; the blind run has no id.
        image_tokens: given to the language model.
        width: of a patch's features.
        parts: parameters.
        training: one micro-batch.
        asking: as many questions as evaluation reads at once.
        encoding: a batch of pictures on the way to the feature cache; None where the encoder runs in every step.
        encode_flops: of one picture; 0 where that is part of training.
        cache_bytes: features on disk; None without a cache, or where the number of pictures is not known.
    """

    name: str
    id: str
    image_tokens: int
    width: int
    parts: Parts
    training: Training
    asking: Pass
    encoding: Pass | None
    encode_flops: float
    cache_bytes: int | None

    @property
    def peaks(self) -> dict[str, int]:
        """Bytes held at most in each phase of the run."""
        found = {"training": self.training.peak, "evaluation": self.asking.peak}
        return found if self.encoding is None else {**found, "encoding": self.encoding.peak}

    @property
    def flops_per_answer(self) -> float:
        """Of training, forward and backward."""
        return self.training.cost.flops / self.training.answers


@dataclass(frozen=True)
class Plan:
    """A run's needs.

    Args:
        config, settings, sizes: what it was computed from.
        micro: answers of a micro-batch; found here where the config says `auto`.
        rows: every encoder, the blind run last.
    """

    config: CompareConfig
    settings: PlanSettings
    sizes: DataSizes
    micro: int
    rows: tuple[RowPlan, ...]

    @property
    def steps(self) -> int | None:
        """Optimizer steps of one cell; None where the number of answers is not known."""
        return None if self.sizes.answers is None else math.ceil(self.sizes.answers / self.config.feed.batch)

    @cached_property
    def phases(self) -> dict[str, int]:
        """The most any row holds in each phase, bytes."""
        names = dict.fromkeys(name for row in self.rows for name in row.peaks)
        return {name: max(row.peaks.get(name, 0) for row in self.rows) for name in names}

    def needed(self, peak: int | None = None) -> float:
        """GB of a GPU for a computed peak: with slack and reserve, for every worker."""
        peak = max(self.phases.values()) if peak is None else peak
        workers = max(1, self.config.engine.workers)
        return workers * (peak / GB * (1 + self.settings.slack) + self.settings.reserve_gb)

    def fits(self, gpu: Gpu) -> bool:
        """Whether the whole run fits a GPU."""
        return self.needed() <= gpu.memory_gb

    def seconds(self, row: RowPlan, gpu: Gpu) -> tuple[float | None, float | None]:
        """Of encoding all pictures once, and of training one cell; None where a number is not known."""
        busy = self.settings.utilisation * 10**12
        pictures, answers = self.sizes.encoded, self.sizes.answers
        encode: float | None = 0.0
        if row.encode_flops:
            encode = None if pictures is None else pictures * row.encode_flops / (gpu.fp32 * busy)
        train = None
        if answers is not None:
            train = answers * row.flops_per_answer / (self._rate(gpu) * busy)
        return encode, train

    def total_seconds(self, gpu: Gpu) -> float | None:
        """Of every cell: all seeds, features once. Evaluation is not in it."""
        total = 0.0
        for row in self.rows:
            encode, train = self.seconds(row, gpu)
            if encode is None or train is None:
                return None
            total += encode + len(self.config.seeds) * train
        return total

    def _rate(self, gpu: Gpu) -> float:
        """10¹² operations a second of the language model's arithmetic."""
        config = self.config
        half = config.optim.precision == "bfloat16" or (
            config.llm.train != "full" and config.llm.dtype != "float32"
        )
        return gpu.bf16 if half else gpu.fp32


def plan_run(config: CompareConfig, settings: PlanSettings | None = None, gpu: Gpu | None = None) -> Plan:
    """Compute a run's needs.

    Args:
        config: of the comparison.
        settings: what the plan assumes beside it.
        gpu: with `feed.micro_batch=auto`, the largest micro-batch that fits it is planned; without one, the whole
            batch is.

    Raises:
        UserError: an encoder or a language model whose shape is not known here.
    """
    settings = settings or PlanSettings()
    sizes = data_sizes(config, settings)
    listed: list[EncoderConfig | None] = list(config.encoder_rows())
    if config.controls.blind and config.llm.train != "none":
        listed.append(None)
    micro = config.feed.micro_batch
    if micro == "auto":
        micro = _largest(config, settings, sizes, listed, gpu)
    made: dict[str, RowPlan] = {}
    return Plan(
        config, settings, sizes, micro, tuple(_row(config, row, sizes, micro, made) for row in listed)
    )


def _largest(
    config: CompareConfig,
    settings: PlanSettings,
    sizes: DataSizes,
    rows: Sequence[EncoderConfig | None],
    gpu: Gpu | None,
) -> int:
    """The first of the whole batch, its half, … that fits."""
    if gpu is None:
        return config.feed.batch
    for micro in micro_sizes(config.feed.batch):
        bare = Plan(config, settings, sizes, micro, ())
        if all(bare.needed(train_micro(config, row, sizes, micro).peak) <= gpu.memory_gb for row in rows):
            return micro
    return 1


def _row(
    config: CompareConfig,
    row: EncoderConfig | None,
    sizes: DataSizes,
    micro: int,
    made: dict[str, RowPlan],
) -> RowPlan:
    """One row; rows of one shape (the untrained control and its model) are computed once."""
    if row is None:
        training = train_micro(config, None, sizes, micro)
        asking = ask_batch(config, None, sizes)
        return RowPlan("blind", "", 0, 0, count_parts(config, None), training, asking, None, 0.0, None)
    shape = row.model_copy(update={"name": None, "untrained_seed": None, "trained": True}).hash()
    if shape not in made:
        outline = outline_encoder(row)
        live, encoded = runs_live(config), sizes.encoded
        encoding = None if live else encode_batch(config, row)
        cache = None
        if not live and encoded is not None:
            cache = estimate_bytes(encoded, outline.num_tokens, outline.width, config.features.dtype)
        made[shape] = RowPlan(
            row.display_name(),
            row.id,
            outline.num_tokens,
            outline.width,
            count_parts(config, outline),
            train_micro(config, row, sizes, micro),
            ask_batch(config, row, sizes),
            encoding,
            0.0 if encoding is None else encoding.flops / config.features.batch,
            cache,
        )
    found = made[shape]
    return replace(found, name=row.display_name())


def smallest_gpu(plan: Plan) -> Gpu | None:
    """The first GPU of the table, which goes by memory, that the run fits."""
    return next((gpu for gpu in GPUS if plan.fits(gpu)), None)

"""`sutura plan`: what a run needs, from its config alone. Nothing is downloaded and no weight is made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
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
    in_float32,
    live_float32,
    micro_sizes,
    runs_live,
    train_micro,
)
from sutura.encoders.cache import estimate_bytes
from sutura.encoders.config import EncoderConfig
from sutura.encoders.outline import outline_encoder

GB = 10**9


@dataclass(frozen=True)
class Kept:
    """Features that are computed once and kept on disk; rows that read the same encoder share them.

    Args:
        key: of encoder, tokens and layer.
        cost: a batch of pictures on the way to the disk.
        flops: of one picture.
        size: bytes; None where the number of pictures is not known.
    """

    key: str
    cost: Pass
    flops: float
    size: int | None


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
        kept: features on disk, of a fused row those of each part; none where the encoder runs in every step.
        live_float32: operations of a micro-batch that a live encoder does in float32 beside a language model in half
            precision.
    """

    name: str
    id: str
    image_tokens: int
    width: int
    parts: Parts
    training: Training
    asking: Pass
    kept: tuple[Kept, ...] = ()
    live_float32: int = 0

    @property
    def encoding(self) -> Pass | None:
        """A batch of pictures on the way to the disk, by the encoder that holds the most; None without a cache."""
        return max((kept.cost for kept in self.kept), key=lambda cost: cost.peak, default=None)

    @property
    def encode_flops(self) -> float:
        """Of one picture on the way to the disk; 0 where that is part of training."""
        return sum(kept.flops for kept in self.kept)

    @property
    def cache_bytes(self) -> int | None:
        """Features on disk that it reads; None without a cache, or where the number of pictures is not known."""
        sizes = [kept.size for kept in self.kept if kept.size is not None]
        return sum(sizes) if sizes else None

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

    @property
    def cells(self) -> int:
        """Trained for each row: the seeds, and one for every learning rate that is tried before them."""
        return len(self.config.seeds) + len(self.config.optim.lr_sweep)

    @property
    def kept(self) -> dict[str, Kept]:
        """Everything on disk once, whatever rows read it."""
        return {kept.key: kept for row in self.rows for kept in row.kept}

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
        encode = self._encode_seconds(row.kept, gpu)
        if self.sizes.answers is None:
            return encode, None
        micros, slow = self.sizes.answers / row.training.answers, row.live_float32
        fast = row.training.cost.flops - slow
        train = micros * (fast / self._rate(gpu) + slow / gpu.fp32) / self._busy
        return encode, train

    def total_seconds(self, gpu: Gpu) -> float | None:
        """Of every cell: all seeds and tried learning rates, features once. Evaluation is not in it."""
        total = self._encode_seconds(self.kept.values(), gpu)
        for row in self.rows:
            _, train = self.seconds(row, gpu)
            if total is None or train is None:
                return None
            total += self.cells * train
        return total

    @property
    def _busy(self) -> float:
        return self.settings.utilisation * 10**12

    def _encode_seconds(self, kept: Iterable[Kept], gpu: Gpu) -> float | None:
        """Of all pictures once, in float32."""
        flops = sum(one.flops for one in kept)
        if not flops:
            return 0.0
        pictures = self.sizes.encoded
        return None if pictures is None else pictures * flops / (gpu.fp32 * self._busy)

    def _rate(self, gpu: Gpu) -> float:
        """10¹² operations a second of the language model's arithmetic."""
        return gpu.fp32 if in_float32(self.config) else gpu.bf16


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
    passes: dict[str, Pass] = {}
    rows = tuple(_row(config, row, sizes, micro, made, passes) for row in listed)
    return Plan(config, settings, sizes, micro, rows)


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
    passes: dict[str, Pass],
) -> RowPlan:
    """One row; rows of one shape (the untrained control and its model) are computed once."""
    if row is None:
        training, asking = train_micro(config, None, sizes, micro), ask_batch(config, None, sizes)
        return RowPlan("blind", "", 0, 0, count_parts(config, None), training, asking)
    shape = row.model_copy(update={"name": None, "untrained_seed": None, "trained": True}).hash()
    if shape not in made:
        outline = outline_encoder(row)
        training = train_micro(config, row, sizes, micro)
        slow = 0 if in_float32(config) else live_float32(config, row, sizes, training)
        made[shape] = RowPlan(
            row.display_name(),
            row.id,
            config.projector.tokens(outline.num_tokens),
            outline.width,
            count_parts(config, outline),
            training,
            ask_batch(config, row, sizes),
            live_float32=slow,
        )
    return replace(made[shape], name=row.display_name(), kept=tuple(_kept(config, row, sizes, passes)))


def _kept(
    config: CompareConfig, row: EncoderConfig, sizes: DataSizes, passes: dict[str, Pass]
) -> Iterator[Kept]:
    """What a row reads from disk; passes are remembered by the encoder's shape."""
    for part in () if runs_live(config) else row.parts():
        key = part.model_copy(update={"name": None})
        shape = key.model_copy(update={"untrained_seed": None, "trained": True}).hash()
        if shape not in passes:
            passes[shape] = encode_batch(config, part)
        cost, outline = passes[shape], outline_encoder(part)
        size = None
        if sizes.encoded is not None:
            size = estimate_bytes(sizes.encoded, outline.num_tokens, outline.width, config.features.dtype)
        yield Kept(key.hash(), cost, cost.flops / config.features.batch, size)


def smallest_gpu(plan: Plan) -> Gpu | None:
    """The first GPU of the table, which goes by memory, that the run fits."""
    return next((gpu for gpu in GPUS if plan.fits(gpu)), None)

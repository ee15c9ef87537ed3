"""What would make a run fit a GPU: each change by itself, computed and not guessed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sutura.compare.config import CompareConfig
from sutura.compare.plan import Plan, smallest_gpu
from sutura.compare.plan_gpus import GPUS, Gpu
from sutura.compare.plan_shapes import ask_batch, encode_batch, micro_sizes, runs_live, train_micro
from sutura.encoders.config import EncoderConfig


@dataclass(frozen=True)
class Proposal:
    """A change and what the phase it concerns would need with it.

    Args:
        phase: training, evaluation or encoding; "all" for another GPU.
        change: as it is written on the command line, or a GPU.
        needed_gb: of the GPU, slack and reserve included.
        fits: whether that is little enough.
        note: what it costs, or does not.
    """

    phase: str
    change: str
    needed_gb: float
    fits: bool
    note: str


def proposals(plan: Plan, gpu: Gpu) -> list[Proposal]:
    """Nothing where the run fits; else changes phase by phase, each tried by itself, and the GPUs that would do."""
    if plan.fits(gpu):
        return []
    found: list[Proposal] = []
    for phase, peak in plan.phases.items():
        if plan.needed(peak) > gpu.memory_gb:
            row = _heaviest(plan, phase)
            makers = {"training": _training, "evaluation": _evaluation, "encoding": _encoding}
            for change, peak_then, note in makers[phase](plan, row, gpu):
                need = plan.needed(peak_then)
                found.append(Proposal(phase, change, need, need <= gpu.memory_gb, note))
    if plan.config.engine.workers > 1:
        need = plan.needed() / plan.config.engine.workers
        found.append(
            Proposal("all", "engine.workers=1", need, need <= gpu.memory_gb, "one cell at a time on the GPU")
        )
    if (other := smallest_gpu(plan)) is not None:
        found.append(
            Proposal(
                "all", f"--gpu {other.key}", plan.needed(), True, f"{other.name}, {other.memory_gb:g} GB"
            )
        )
    else:
        largest = GPUS[-1]
        found.append(
            Proposal("all", f"--gpu {largest.key}", plan.needed(), False, "no GPU of the table is enough")
        )
    return found


def _heaviest(plan: Plan, phase: str) -> EncoderConfig | None:
    """The encoder whose phase holds the most."""
    configs: list[EncoderConfig | None] = [*plan.config.encoder_rows(), None]
    pairs = zip(plan.rows, configs, strict=False)
    return max(pairs, key=lambda pair: pair[0].peaks.get(phase, 0))[1]


def _training(plan: Plan, row: EncoderConfig | None, gpu: Gpu) -> Iterator[tuple[str, int, str]]:
    config, sizes = plan.config, plan.sizes

    def peak(changed: CompareConfig, micro: int) -> int:
        return train_micro(changed, row, sizes, micro).peak

    same = "the same gradients" if config.feed.average == "step" else "another loss, under feed.average=micro"
    smaller = [micro for micro in micro_sizes(config.feed.batch) if micro < plan.micro]
    for micro in smaller:
        needed = peak(config, micro)
        if plan.needed(needed) <= gpu.memory_gb or micro == 1:
            yield (
                f"feed.micro_batch={micro}",
                needed,
                f"the batch stays {config.feed.batch}; {same}, more passes",
            )
            break
    if not config.llm.gradient_checkpointing:
        changed = _with(config, "llm", gradient_checkpointing=True)
        yield "llm.gradient_checkpointing=true", peak(changed, plan.micro), "about a third more arithmetic"
        yield (
            "feed.micro_batch=1 llm.gradient_checkpointing=true",
            peak(changed, 1),
            "the least that this language model trains in here",
        )
    if runs_live(config) and config.encoder.train == "none":
        changed = _with(config, "features", cache=True)
        yield "features.cache=true", peak(changed, plan.micro), "the encoder leaves the GPU before training"
    if config.llm.dtype == "float32" and config.llm.train != "full":
        changed = _with(_with(config, "llm", dtype="bfloat16"), "optim", precision="bfloat16")
        yield (
            "llm.dtype=bfloat16 optim.precision=bfloat16",
            peak(changed, plan.micro),
            "frozen weights and arithmetic at half the size",
        )


def _evaluation(plan: Plan, row: EncoderConfig | None, gpu: Gpu) -> Iterator[tuple[str, int, str]]:
    for batch in micro_sizes(plan.config.evaluate.batch)[1:]:
        needed = ask_batch(_with(plan.config, "evaluate", batch=batch), row, plan.sizes).peak
        if plan.needed(needed) <= gpu.memory_gb or batch == 1:
            yield f"evaluate.batch={batch}", needed, "the same answers, more passes"
            return


def _encoding(plan: Plan, row: EncoderConfig | None, gpu: Gpu) -> Iterator[tuple[str, int, str]]:
    assert row is not None
    for batch in micro_sizes(plan.config.features.batch)[1:]:
        needed = encode_batch(_with(plan.config, "features", batch=batch), row).peak
        if plan.needed(needed) <= gpu.memory_gb or batch == 1:
            yield f"features.batch={batch}", needed, "the same features, more passes"
            return


def _with(config: CompareConfig, section: str, **values: object) -> CompareConfig:
    changed = getattr(config, section).model_copy(update=values)
    return config.model_copy(update={section: changed})

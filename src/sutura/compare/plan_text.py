"""A plan for reading: Markdown on the terminal, or plain data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sutura.compare.plan import GB, Plan, RowPlan, plan_run, smallest_gpu
from sutura.compare.plan_advice import Proposal, proposals
from sutura.compare.plan_config import split_overrides
from sutura.compare.plan_gpus import GPUS, Gpu, get_gpu
from sutura.compare.settings import settings
from sutura.compare.tables import Table
from sutura.compare.units import duration, gigabytes
from sutura.core.config import apply_overrides, read_preset
from sutura.stitch.language_outline import shape_source


def planned(
    preset: str, overrides: Sequence[str] = (), *, gpu: str | None = None, as_json: bool = False
) -> str:
    """What `sutura plan` prints.

    Args:
        preset: a comparison's, or a run's of `sutura jepa`.
        overrides: of its config, and `plan.key=value` of the plan's own settings.
        gpu: a key of the GPU table.
        as_json: plain data instead of text.
    """
    chosen = get_gpu(gpu) if gpu else None
    mine, rest = split_overrides(overrides)
    values = read_preset(preset)
    if "form" in values:
        from sutura.compare.plan_jepa_text import planned_jepa

        return planned_jepa(apply_overrides(values, rest), mine, chosen, as_json=as_json)
    plan = plan_run(settings(preset, rest), mine, chosen)
    advice = proposals(plan, chosen) if chosen is not None else []
    if as_json:
        return json.dumps(as_data(plan, chosen, advice), indent=1)
    return text(plan, chosen, advice)


def as_data(plan: Plan, gpu: Gpu | None, advice: Sequence[Proposal]) -> dict[str, Any]:
    """Every number of a plan."""
    return {
        "name": plan.config.name,
        "language_model": plan.config.llm.id,
        "shape_of_language_model": shape_source(plan.config.llm),
        "settings": plan.settings.resolved(),
        "data": asdict(plan.sizes),
        "batch": plan.config.feed.batch,
        "micro_batch": plan.micro,
        "steps": plan.steps,
        "cells_of_a_row": plan.cells,
        "cache_bytes": sum(kept.size or 0 for kept in plan.kept.values()),
        "rows": [
            {
                **asdict(row),
                "parts": {**asdict(row.parts), "total": row.parts.total},
                "flops_per_answer": row.flops_per_answer,
                "encode_flops": row.encode_flops,
                "cache_bytes": row.cache_bytes,
                "peak_bytes": row.peaks,
            }
            for row in plan.rows
        ],
        "needed_gb": plan.needed(),
        "gpus": [
            {
                **asdict(one),
                "fits": plan.fits(one),
                "train_seconds": {row.name: plan.seconds(row, one)[1] for row in plan.rows},
                "encode_seconds": {row.name: plan.seconds(row, one)[0] for row in plan.rows},
                "total_seconds": plan.total_seconds(one),
            }
            for one in ([gpu] if gpu is not None else GPUS)
        ],
        "proposals": [asdict(proposal) for proposal in advice],
    }


def text(plan: Plan, gpu: Gpu | None, advice: Sequence[Proposal]) -> str:
    """Tables and sentences."""
    blocks = [
        f"# Plan of {plan.config.name}",
        _situation(plan),
        "## Parameters",
        _parameters(plan).markdown(),
        "## One pass",
        _passes(plan).markdown(),
        "## Memory, GB of 10⁹ bytes",
        _memory(plan).markdown(),
        _need(plan),
        f"## Time, at {100 * plan.settings.utilisation:g} % of the datasheet's arithmetic",
        _times(plan, [gpu] if gpu is not None else GPUS).markdown(),
        _about_time(plan),
    ]
    if gpu is not None:
        blocks += [f"## {gpu.name}", *_verdict(plan, gpu, advice)]
    return "\n\n".join(blocks)


def _situation(plan: Plan) -> str:
    config, sizes = plan.config, plan.sizes
    llm = config.llm
    trains = {
        "none": "the projector alone trains",
        "lora": f"the projector and a LoRA adapter (rank {llm.rank}, on {_targets(llm.targets)}) train",
        "full": "the projector and the whole language model train",
    }[llm.train]
    if config.encoder.train != "none":
        trains += f", and of the encoder {config.encoder.train}"
    read = "unknown pictures" if sizes.pictures is None else f"{sizes.pictures:,} pictures"
    length = "" if plan.steps is None else f", {sizes.answers:,} answers in {plan.steps:,} steps"
    auto = " (auto)" if config.feed.micro_batch == "auto" else ""
    arithmetic = "arithmetic in bfloat16" if config.optim.precision == "bfloat16" else "no autocast"
    return (
        f"Nothing was downloaded. Language model {llm.id}, frozen weights in {llm.dtype}, trained ones in "
        f"{config.optim.trained_dtype}, {arithmetic}; its shape is from {shape_source(llm)}. {trains[0].upper()}"
        f"{trains[1:]}. Training data: {read}, {sizes.per_picture:.3g} questions a picture{length}; a question has "
        f"{sizes.texts.question} tokens with its template, an answer {sizes.texts.answer}, the template's head "
        f"{sizes.texts.head} ({sizes.source}). Batch {config.feed.batch}, micro-batch {plan.micro}{auto}, turns "
        f"{config.feed.turns}."
    )


def _targets(targets: Sequence[str] | str) -> str:
    return targets if isinstance(targets, str) else ", ".join(targets)


def _parameters(plan: Plan) -> Table:
    columns = ("encoder", "encoder's", "projector", "adapter", "language model", "trainable", "total")
    rows = []
    for row in plan.rows:
        parts = row.parts
        counts = (
            parts.encoder,
            parts.projector,
            parts.adapter,
            parts.language_model,
            parts.trainable,
            parts.total,
        )
        rows.append((row.name, *(f"{count:,}" for count in counts)))
    return Table(columns, tuple(rows))


def _passes(plan: Plan) -> Table:
    columns = (
        "encoder",
        "picture tokens",
        "tokens of a row",
        "answers, pictures",
        "encode a picture, GFLOP",
        "forward an answer",
        "backward an answer",
    )
    return Table(columns, tuple(_pass(row) for row in plan.rows))


def _pass(row: RowPlan) -> tuple[str, ...]:
    training = row.training
    return (
        row.name,
        str(row.image_tokens),
        str(training.tokens),
        f"{training.answers}, {training.pictures}",
        f"{row.encode_flops / GB:,.1f}" if row.encode_flops else "–",
        f"{training.cost.forward / training.answers / GB:,.1f}",
        f"{training.cost.backward / training.answers / GB:,.1f}",
    )


def _memory(plan: Plan) -> Table:
    columns = (
        "encoder",
        "weights",
        "gradients",
        "optimizer",
        "activations",
        "logits",
        "training at most",
        "evaluation at most",
        "encoding at most",
        "features on disk",
    )
    rows = []
    for row in plan.rows:
        cost = row.training.cost
        held = (
            cost.weights,
            cost.gradients,
            row.training.optimizer,
            cost.activations,
            cost.logits,
            row.training.peak,
            row.asking.peak,
        )
        rows.append(
            (
                row.name,
                *(gigabytes(size) for size in held),
                "–" if row.encoding is None else gigabytes(row.encoding.peak),
                "–" if row.cache_bytes is None else gigabytes(row.cache_bytes),
            )
        )
    return Table(columns, tuple(rows))


def _need(plan: Plan) -> str:
    phase = max(plan.phases, key=lambda name: plan.phases[name])
    workers = plan.config.engine.workers
    each = f", for each of {workers} workers" if workers > 1 else ""
    smallest = smallest_gpu(plan)
    which = (
        "no GPU of the table holds that"
        if smallest is None
        else f"the smallest GPU of the table that holds it is {smallest.name} ({smallest.memory_gb:g} GB)"
    )
    disk = sum(kept.size or 0 for kept in plan.kept.values())
    kept = f" Features on disk: {disk / GB:,.1f} GB in all, each encoder's once." if disk else ""
    return (
        f"The most is held in {phase}: {plan.phases[phase] / GB:.2f} GB; with {100 * plan.settings.slack:g} % slack "
        f"and {plan.settings.reserve_gb:g} GB for driver and libraries{each} {plan.needed():.1f} GB, and {which}. "
        "What a pass holds besides the parts (one layer's temporaries, other live encoders) is in the sums at most."
        f"{kept}"
    )


def _times(plan: Plan, gpus: Sequence[Gpu]) -> Table:
    columns = ("GPU", "GB", "bf16, float32 TFLOP/s", "fits", *(row.name for row in plan.rows), "all cells")
    rows = []
    for gpu in gpus:
        cells = []
        for row in plan.rows:
            encode, train = plan.seconds(row, gpu)
            cells.append(f"{duration(train)}" + (f" + {duration(encode)}" if row.encode_flops else ""))
        rows.append(
            (
                gpu.name,
                f"{gpu.memory_gb:g}",
                f"{gpu.bf16:g}, {gpu.fp32:g}",
                "yes" if plan.fits(gpu) else "no",
                *cells,
                duration(plan.total_seconds(gpu)),
            )
        )
    return Table(columns, tuple(rows))


def _about_time(plan: Plan) -> str:
    cached = any(row.encode_flops for row in plan.rows)
    live = any(row.live_float32 for row in plan.rows)
    twice = " + once for all seeds, encoding its pictures in float32" if cached else ""
    twice += ", its live encoder in float32" if live else ""
    cells = f"Training one cell{twice}; all cells: {_seeds(plan)}."
    return (
        f"{cells} Operations divided by datasheet figures: a small model may reach less (its calls cost more than its "
        "arithmetic), evaluation and reading pictures are not in it. Datasheets state more than a matrix product "
        "reaches: an H200's was measured at about 790 TFLOP/s."
    )


def _seeds(plan: Plan) -> str:
    count, rates = len(plan.config.seeds), len(plan.config.optim.lr_sweep)
    seeds = "one seed" if count == 1 else f"{count} seeds"
    return f"{seeds}, and before them one cell for each of {rates} learning rates" if rates else seeds


def _verdict(plan: Plan, gpu: Gpu, advice: Sequence[Proposal]) -> list[str]:
    if not advice:
        left = gpu.memory_gb - plan.needed()
        return [f"It fits: {plan.needed():.1f} GB of {gpu.memory_gb:g}, {left:.1f} GB to spare."]
    table = Table(
        ("change", "phase", "needs, GB", "fits", "note"),
        tuple((p.change, p.phase, f"{p.needed_gb:.1f}", "yes" if p.fits else "no", p.note) for p in advice),
    )
    over = [name for name, peak in plan.phases.items() if plan.needed(peak) > gpu.memory_gb]
    return [
        f"It does not fit: {plan.needed():.1f} GB of {gpu.memory_gb:g}, in {' and '.join(over)}. Each change by "
        "itself; where several phases are over, one for each of them:",
        table.markdown(),
    ]

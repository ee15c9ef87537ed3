"""A plan of a `sutura jepa` run for reading: Markdown on the terminal, or plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sutura.compare.plan_config import PlanSettings
from sutura.compare.plan_gpus import GPUS, Gpu
from sutura.compare.plan_jepa import Change, changes, plan_jepa
from sutura.compare.plan_needs import GB, JepaPlan
from sutura.compare.tables import Table
from sutura.compare.units import duration, gigabytes


def planned_jepa(values: Mapping[str, Any], settings: PlanSettings, gpu: Gpu | None, *, as_json: bool) -> str:
    """What `sutura plan` prints of a run of `sutura jepa`.

    Args:
        values: of the preset, its `form` among them.
        settings: what the plan assumes beside it.
        gpu: that is asked about.
        as_json: plain data instead of text.
    """
    plan = plan_jepa(values, settings)
    advice = changes(values, plan, gpu) if gpu is not None else []
    if as_json:
        return json.dumps(as_data(plan, gpu, advice), indent=1)
    return text(plan, gpu, advice)


def as_data(plan: JepaPlan, gpu: Gpu | None, advice: Sequence[Change]) -> dict[str, Any]:
    """Every number of a plan."""
    return {
        "name": plan.name,
        "form": plan.form,
        "settings": plan.settings.resolved(),
        "data": plan.sizes,
        "batch": plan.batch,
        "steps": plan.steps,
        "parts": [asdict(part) for part in plan.parts],
        "once": [{**asdict(one), "disk_bytes": one.bytes} for one in plan.once],
        "stages": [
            {**asdict(stage), "peak_bytes": stage.peak, "flops_per_step": stage.flops}
            for stage in plan.stages
        ],
        "pictures_bytes": plan.pictures_bytes,
        "needed_gb": plan.needed,
        "gpus": [
            {**asdict(one), "fits": plan.fits(one), "total_seconds": plan.total_seconds(one)}
            for one in ([gpu] if gpu is not None else GPUS)
        ],
        "changes": [asdict(change) for change in advice],
        "flags": list(plan.flags),
    }


def text(plan: JepaPlan, gpu: Gpu | None, advice: Sequence[Change]) -> str:
    """Tables and sentences."""
    arithmetic = "bfloat16" if plan.half else "float32"
    trained, whole = sum(part.trained for part in plan.parts), sum(part.parameters for part in plan.parts)
    blocks = [
        f"# Plan of {plan.name}, form {plan.form}",
        f"Nothing was downloaded. {plan.sizes} Batch {plan.batch}; arithmetic of the steps in {arithmetic}, of what is "
        "computed once in float32; weights, gradients and AdamW's state in float32.",
        *(f"**{flag}**" for flag in plan.flags),
        "## Parameters",
        _parameters(plan, trained, whole).markdown(),
        "## Steps",
        _stages(plan).markdown(),
    ]
    if plan.once:
        blocks += ["## Computed once", _once(plan).markdown()]
    blocks += [
        _need(plan),
        f"## Time, at {100 * plan.settings.utilisation:g} % of the datasheet's arithmetic",
        _times(plan, [gpu] if gpu is not None else GPUS).markdown(),
        "Operations divided by datasheet figures: a small model may reach less (its calls cost more than its "
        "arithmetic). Looks at held-out pictures, the evaluation at the end and the reading of pictures are not in it.",
    ]
    if gpu is not None:
        blocks += [f"## {gpu.name}", *_verdict(plan, gpu, advice)]
    return "\n\n".join(blocks)


def _parameters(plan: JepaPlan, trained: int, whole: int) -> Table:
    rows = [(part.name, f"{part.parameters:,}", f"{part.trained:,}") for part in plan.parts]
    return Table(("part", "parameters", "of them trained"), (*rows, ("all", f"{whole:,}", f"{trained:,}")))


def _stages(plan: JepaPlan) -> Table:
    columns = (
        "stage",
        "trains",
        "steps",
        "rows × passes",
        "forward a row, GFLOP",
        "backward a row",
        "weights, GB",
        "gradients",
        "optimizer",
        "activations",
        "at most, GB",
    )
    rows = []
    for stage in plan.stages:
        cost = stage.cost
        held = (cost.weights, cost.gradients, stage.optimizer, cost.activations, stage.peak)
        rows.append(
            (
                stage.name,
                ", ".join(stage.trains),
                "not known" if stage.steps is None else f"{stage.steps:,}",
                f"{stage.rows} × {stage.passes}",
                f"{cost.forward / stage.rows / GB:,.3g}",
                f"{cost.backward / stage.rows / GB:,.3g}",
                *(gigabytes(size) for size in held),
            )
        )
    return Table(columns, tuple(rows))


def _once(plan: JepaPlan) -> Table:
    columns = ("what", "rows", "GFLOP a row", "at most, GB", "on disk, GB")
    rows = [
        (
            one.name,
            "not known" if one.count is None else f"{one.count:,}",
            f"{one.cost.flops / one.rows / GB:,.3g}",
            gigabytes(one.peak),
            "not known" if one.bytes is None else gigabytes(one.bytes),
        )
        for one in plan.once
    ]
    return Table(columns, tuple(rows))


def _need(plan: JepaPlan) -> str:
    phase = max(plan.phases, key=lambda name: plan.phases[name])
    smallest = next((gpu for gpu in GPUS if plan.fits(gpu)), None)
    which = (
        "no GPU of the table holds that"
        if smallest is None
        else f"the smallest GPU of the table that holds it is {smallest.name} ({smallest.memory_gb:g} GB)"
    )
    kept = (
        f" Pictures as squares on disk: {gigabytes(plan.pictures_bytes)} GB." if plan.pictures_bytes else ""
    )
    return (
        f"The most is held in {phase}: {plan.phases[phase] / GB:.2f} GB; with {100 * plan.settings.slack:g} % slack "
        f"and {plan.settings.reserve_gb:g} GB for driver and libraries {plan.needed:.1f} GB, and {which}.{kept}"
    )


def _times(plan: JepaPlan, gpus: Sequence[Gpu]) -> Table:
    columns = (
        "GPU",
        "GB",
        "fits",
        *(["once"] * bool(plan.once)),
        *(stage.name for stage in plan.stages),
        "all",
    )
    rows = []
    for gpu in gpus:
        once = [duration(plan.once_seconds(gpu))] if plan.once else []
        stages = [duration(plan.stage_seconds(stage, gpu)) for stage in plan.stages]
        fits = "yes" if plan.fits(gpu) else "no"
        rows.append((gpu.name, f"{gpu.memory_gb:g}", fits, *once, *stages, duration(plan.total_seconds(gpu))))
    return Table(columns, tuple(rows))


def _verdict(plan: JepaPlan, gpu: Gpu, advice: Sequence[Change]) -> list[str]:
    if not advice:
        return [
            f"It fits: {plan.needed:.1f} GB of {gpu.memory_gb:g}, {gpu.memory_gb - plan.needed:.1f} GB to spare."
        ]
    table = Table(
        ("change", "needs, GB", "fits", "note"),
        tuple((one.change, f"{one.needed_gb:.1f}", "yes" if one.fits else "no", one.note) for one in advice),
    )
    return [
        f"It does not fit: {plan.needed:.1f} GB of {gpu.memory_gb:g}. Each change by itself:",
        table.markdown(),
    ]

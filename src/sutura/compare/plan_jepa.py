"""`sutura plan` for a run of `sutura jepa`: what it needs, from its config alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sutura.compare.plan_config import PlanSettings
from sutura.compare.plan_gpus import GPUS, Gpu
from sutura.compare.plan_needs import JepaPlan
from sutura.core.config import apply_overrides
from sutura.core.errors import UserError
from sutura.core.registry import suggest


@dataclass(frozen=True)
class Change:
    """A change and what the run would need with it.

    Args:
        change: as it is written on the command line.
        note: what it costs.
    """

    change: str
    needed_gb: float
    fits: bool
    note: str


def plan_jepa(values: Mapping[str, Any], settings: PlanSettings | None = None) -> JepaPlan:
    """Compute a run's needs.

    Args:
        values: of the preset, its `form` among them.
        settings: what the plan assumes beside it.

    Raises:
        UserError: an ablation (whose runs are planned by their own preset), another form, or a shape not known here.
    """
    from sutura.compare.plan_align import plan_align
    from sutura.compare.plan_answer import plan_answer
    from sutura.compare.plan_conditioned import plan_conditioned

    forms = {"align": plan_align, "conditioned": plan_conditioned, "answer": plan_answer}
    given = dict(values)
    form = str(given.pop("form"))
    if form == "ablation":
        runs = (len(given.get("rows") or ()) + 1) * len(given.get("seeds") or (0,))
        raise UserError(
            f"An ablation is {runs} runs of {given.get('preset')}: plan that preset, with the row's own overrides."
        )
    if form not in forms:
        raise UserError(f"form={form!r} is none of VL-JEPA's. {suggest(form, forms)}")
    return forms[form](given, settings or PlanSettings())


def changes(values: Mapping[str, Any], plan: JepaPlan, gpu: Gpu) -> list[Change]:
    """Nothing where the run fits; else each change by itself, computed with it in place."""
    if plan.fits(gpu):
        return []
    found = []
    for tried, note in _tried(plan):
        other = plan_jepa(apply_overrides(dict(values), tried), plan.settings)
        found.append(Change(" ".join(tried), other.needed, other.fits(gpu), note))
    larger = next((one for one in GPUS if plan.fits(one)), None)
    if larger is not None:
        found.append(
            Change(f"--gpu {larger.key}", plan.needed, True, f"{larger.name}, {larger.memory_gb:g} GB")
        )
    else:
        found.append(Change(f"--gpu {GPUS[-1].key}", plan.needed, False, "no GPU of the table is enough"))
    return found


def _tried(plan: JepaPlan) -> Iterator[tuple[list[str], str]]:
    """Changes that a form offers."""
    rows = max(stage.rows for stage in plan.stages)
    if plan.form == "answer":
        if plan.batch >= 4:
            fewer = plan.batch // 2
            yield [f"feed.batch={fewer}", f"feed.micro_batch={fewer}"], "fewer negatives a step: another run"
        if not plan.half:
            yield ["optim.precision=bfloat16"], "half the activations; rounding"
        return
    while rows >= 4:
        rows //= 2
        if plan.batch % rows:
            continue
        if plan.form == "align":
            yield (
                [f"micro_batch={rows}", "negatives=cached"],
                "the same gradients; the towers run forward twice",
            )
        else:
            yield [f"micro_batch={rows}"], "the same gradients"
    if plan.form == "align":
        yield ["checkpointing=true"], "the same gradients; the towers' blocks run forward twice"

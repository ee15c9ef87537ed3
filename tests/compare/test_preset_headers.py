"""Time and memory in a published preset's header are those of `sutura plan`, for one A100.

A failure prints the two lines that belong there.
"""

from __future__ import annotations

import re

import pytest

from sutura.compare.config import CompareConfig
from sutura.compare.plan import GB, Plan, plan_run
from sutura.compare.plan_gpus import get_gpu
from sutura.compare.units import duration
from sutura.core.config import load_config, preset_names, preset_path

PRESETS = [name for name in preset_names() if name.startswith("stitch/")]
#: Planned in the default ring; the others take half a minute each and are marked slow.
QUICK = ("stitch/cocoqa-0.5b",)
COMPUTED = "computed, not measured: "


def header(preset: str, key: str) -> str:
    """What a header says of time or memory, on all its lines."""
    text = preset_path(preset).read_text(encoding="utf-8")
    found = re.search(rf"^# {key} +(.+(?:\n#  +.+)*)", text, re.M)
    assert found, f"{preset} has no {key!r}"
    return re.sub(r"\n# +", " ", found[1])


def figures(plan: Plan) -> dict[str, str]:
    """The beginning of both lines."""
    gpu = get_gpu("a100")
    whole = plan.total_seconds(gpu)
    training = sum((plan.seconds(row, gpu)[1] or 0.0) for row in plan.rows) * plan.cells
    assert whole is not None
    time = f"{duration(whole)} on one {gpu.name} for {plan.cells * len(plan.rows)} cells"
    memory = f"{plan.needed():.1f} GB on the GPU"
    if plan.kept:
        time += f", {duration(whole - training)} of it features"
        memory += f"; {sum(kept.size or 0 for kept in plan.kept.values()) / GB:.0f} GB of features on disk"
    return {"time": f"{COMPUTED}{time}", "memory": f"{COMPUTED}{memory}"}


@pytest.mark.parametrize(
    "preset",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in PRESETS],
)
def test_the_header_says_what_the_plan_does(preset: str) -> None:
    """Fault: figures of a header that were worked out once, by another rule, and stay when the run changes."""
    said = {key: header(preset, key) for key in ("time", "memory")}
    expected = figures(plan_run(load_config(CompareConfig, preset)))
    for key, beginning in expected.items():
        rest = said[key].removeprefix(beginning)
        assert rest != said[key], "\n".join(f"# {name:<9} {line}" for name, line in expected.items())
        assert not rest or rest[0] in ";(, ", said[key]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_header_has_figures_of_its_own(preset: str) -> None:
    """In the form that the slow test compares, never "as" another preset: that one may change alone."""
    assert re.match(rf"{COMPUTED}[\d.]+ (min|h) on one A100 80 GB for \d+ cells", header(preset, "time"))
    assert re.match(rf"{COMPUTED}[\d.]+ GB on the GPU", header(preset, "memory"))

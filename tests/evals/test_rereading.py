"""The re-reading of an earlier study: its figures are written once, its page is what the script computes."""

from __future__ import annotations

import json
import re
import runpy
from math import sqrt
from pathlib import Path

import pytest
from scipy.stats import binomtest

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "benchmarks" / "reread_published.py"))
STUDY = json.loads((ROOT / "docs" / "results" / "published_scores.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "rereading.md").read_text(encoding="utf-8")


def test_the_result_file_is_what_the_script_prints() -> None:
    assert (ROOT / "docs" / "results" / "published_reread.md").read_text(encoding="utf-8") == SCRIPT["main"]()


def test_the_figures_are_those_of_the_page_that_repeats_the_study() -> None:
    text = (ROOT / "docs" / "published.md").read_text(encoding="utf-8")
    for number, scores in enumerate(STUDY["experiments"].values()):
        for encoder, own in scores.items():
            line = f"| {encoder} | " + " | ".join(f"{own[name]:.1f}" for name in own) + " |"
            assert text.count(line) == 1, f"experiment {number + 1}: {line}"
            sets = [own[name] for name in own if name != "mean"]
            assert own["mean"] == pytest.approx(sum(sets) / len(sets), abs=0.0501)


def test_floors_are_those_of_the_benchmarks() -> None:
    from sutura.evals.benchmarks import BENCHMARKS

    for name, known in STUDY["floors"].items():
        row = BENCHMARKS.get(f"cauldron/{name.lower().replace('-', '')}")
        if row.floors:
            assert [[floor.kind, pytest.approx(100 * floor.score)] for floor in row.floors] == known


@pytest.mark.parametrize("percent", [0.0, 0.2, 20.2, 55.8])
def test_a_score_has_wilsons_interval(percent: float) -> None:
    low, high = SCRIPT["wilson"](percent, 1000)
    known = binomtest(round(percent * 10), 1000).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((100 * known.low, 100 * known.high))


def test_the_page_states_what_the_script_finds() -> None:
    found = list(SCRIPT["gaps"](STUDY))
    assert f"There are {len(found)} comparisons" in PAGE
    told = [
        SCRIPT["against_floor"](own[name], 1000, known[0][1])
        for scores in STUDY["experiments"].values()
        for name, known in STUDY["floors"].items()
        for own in scores.values()
    ]
    assert f"**{told.count('below')} of {len(told)} scores lie below" in PAGE
    gap = next(g for g in found if (g.a, g.b, g.where) == ("CLIP", "ViT", "COCO-QA"))
    assert gap.paired == pytest.approx(196 * sqrt((0.048 - 0.048**2) / 1000), rel=1e-3)
    assert gap.independent == pytest.approx(196 * sqrt((0.558 * 0.442 + 0.51 * 0.49) / 1000), rel=2e-3)
    assert f"= ± {gap.paired:.1f}." in PAGE
    assert f"= ± {gap.independent:.1f}." in PAGE
    means = [g for g in found if g.where == "mean" and g.experiment.startswith("2") and g.a == "CLIP"]
    assert f"{means[0].points:+.1f} and {means[1].points:+.1f} points on the mean" in re.sub(
        r"\s+", " ", PAGE
    )


def test_a_changed_figure_changes_the_page(tmp_path: Path) -> None:
    changed = json.loads(json.dumps(STUDY))
    changed["experiments"]["1: 0.5B, COCO-QA"]["CLIP"]["CLEVR"] = 50.0
    (tmp_path / "scores.json").write_text(json.dumps(changed))
    assert SCRIPT["main"](tmp_path / "scores.json") != SCRIPT["main"]()
    assert (
        "| CLIP | 50.0 [46.9, 53.1] | majority per type 41.8; question only 46.8 | above, above |" not in PAGE
    )


def test_holm_is_the_step_down_of_the_statistics() -> None:
    assert SCRIPT["holm"]([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])

"""What is read from learning curves, against arithmetic by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sutura.compare.curves import (
    Curve,
    Curves,
    answers_to_reach,
    area_pairs,
    area_scores,
    area_weights,
    choose_level,
    curves_table,
    levels_of,
    plot_curves,
    read_curves,
    speed,
    speed_table,
)
from sutura.compare.scores import Arm
from sutura.compare.statistics import accuracy
from sutura.core.errors import UserError

Cell = Callable[..., dict[str, Any]]
CLIP = Arm("clip")
ANSWERS = (0, 100, 200, 400)


def curve(heights: Sequence[float], arm: Arm = CLIP, seed: int = 0, items: int = 100) -> Curve:
    """A curve that has these shares of right answers, on two questions a picture."""
    right = np.array([[float(i < round(h * items)) for i in range(items)] for h in heights])
    names = tuple(f"q{i:03d}" for i in range(items))
    answers = np.array(ANSWERS[: len(heights)], dtype=np.float64)
    return Curve(arm, seed, answers, right, names, tuple(f"p{i // 2:03d}" for i in range(items)))


def of(heights: dict[str, Sequence[Sequence[float]]]) -> Curves:
    arms = {name: Arm(name) if name != "blind" else Arm("none", "blind") for name in heights}
    return Curves(
        {
            arms[name]: tuple(curve(h, arms[name], seed) for seed, h in enumerate(seeds))
            for name, seeds in heights.items()
        }
    )


def test_the_area_is_the_trapezoids() -> None:
    height = np.array([0.0, 0.5, 0.5, 1.0])
    weights = area_weights(np.array(ANSWERS, dtype=np.float64), 400)
    assert weights.sum() == pytest.approx(1)
    assert weights @ height == pytest.approx((100 * 0.25 + 100 * 0.5 + 200 * 0.75) / 400)
    cut = area_weights(np.array(ANSWERS, dtype=np.float64), 300)  # at 300 the curve is at 0.75
    assert cut.sum() == pytest.approx(1)
    assert cut @ height == pytest.approx((100 * 0.25 + 100 * 0.5 + 100 * 0.625) / 300)


def test_the_area_of_a_stitch_is_the_mean_of_its_questions_areas() -> None:
    curves = of({"clip": [(0.2, 0.4, 0.6, 0.8), (0.2, 0.4, 0.4, 0.8)]})
    estimate = accuracy(area_scores(curves), Arm("clip"))
    by_hand = [(100 * 0.3 + 100 * 0.5 + 200 * 0.7) / 400, (100 * 0.3 + 100 * 0.4 + 200 * 0.6) / 400]
    assert estimate.mean == pytest.approx(np.mean(by_hand))
    assert (estimate.n_items, estimate.n_pictures, estimate.n_seeds) == (100, 50, 2)
    assert estimate.low is not None
    assert estimate.low < estimate.mean


def test_a_level_is_reached_between_points_and_not_by_one_lucky_point() -> None:
    assert answers_to_reach(curve((0.2, 0.4, 0.6, 0.8)), 0.5) == pytest.approx(150)
    assert answers_to_reach(curve((0.2, 0.6, 0.4, 0.8)), 0.5) == pytest.approx(200 + 200 * 0.25)
    assert answers_to_reach(curve((0.2, 0.3, 0.3, 0.5)), 0.5) == 400
    assert answers_to_reach(curve((0.6, 0.7, 0.7, 0.8)), 0.5) == 0
    assert answers_to_reach(curve((0.2, 0.3, 0.3, 0.4)), 0.5) is None


def test_speed_is_paired_over_seeds_and_counts_those_that_never_get_there() -> None:
    fast = [curve((0.2, 0.6, 0.7, 0.8), seed=s) for s in range(3)]  # reaches 0.4 at 50
    slow = [curve((0.2, 0.2, 0.6, 0.8), seed=s) for s in range(2)]  # at 150
    never = curve((0.2, 0.2, 0.2, 0.2), seed=2)
    found = speed(fast, [*slow, never], 0.4)
    assert found.ratio == pytest.approx(1 / 3)
    assert (found.seeds, found.of) == (2, 3)
    assert found.low == pytest.approx(found.high) == pytest.approx(1 / 3)
    assert speed(fast[:1], slow[:1], 0.4).low is None
    assert speed([never], [never], 0.4).ratio is None
    spread = speed(fast[:2], [slow[0], curve((0.2, 0.6, 0.6, 0.8))], 0.4)
    logs = np.log([1 / 3, 1.0])
    assert spread.ratio == pytest.approx(np.exp(logs.mean()))
    assert spread.high == pytest.approx(np.exp(logs.mean() + 12.7062 * logs.std(ddof=1) / 2**0.5), rel=1e-4)


def test_tables_say_what_was_not_reached_and_by_how_many_seeds() -> None:
    rise, flat = (0.2, 0.4, 0.6, 0.8), (0.2, 0.2, 0.2, 0.3)
    curves = of({"clip": [rise, rise], "vit": [rise, flat], "blind": [flat, flat]})
    assert choose_level(curves) == 0.55
    assert levels_of(curves, (0.7,)) == (0.7,)
    table = curves_table(curves, (0.55, 0.95))
    rows = {row[0]: row for row in table.rows}
    assert list(rows) == ["clip", "vit", "blind"]
    assert rows["clip"][4:] == ("175 ± 0", "not reached")
    assert rows["vit"][4] == "175 (1 of 2 seeds)"
    assert rows["blind"][4:] == ("not reached", "not reached")
    pairs = speed_table(curves, (0.55,))
    assert pairs.rows[0][0] == "clip − vit"
    assert pairs.rows[0][3] == "1.00 (1 of 2 seeds)"
    gap = area_pairs(curves)[Arm("clip"), Arm("vit")]
    assert gap.difference == pytest.approx(((0.3 + 0.5 + 2 * 0.7) - (0.2 + 0.2 + 2 * 0.25)) / 4 / 2)


def test_a_level_is_not_chosen_where_nothing_was_learnt() -> None:
    assert choose_level(of({"clip": [(0.2, 0.2, 0.2, 0.32)], "blind": [(0.2, 0.2, 0.2, 0.3)]})) is None


def write(folder: Path, right: Sequence[str], items: Sequence[str]) -> str:
    folder.mkdir()
    rows = [{"step": k, "answers": 100 * k, "right": r, "seconds": 0.1} for k, r in enumerate(right)]
    rows[0] |= {"items": list(items), "pictures": [name[0] for name in items]}
    (folder / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "metrics.jsonl")


def test_only_what_all_have_is_compared_and_the_rest_is_said(tmp_path: Path, cell: Cell) -> None:
    cells = [
        cell("clip", 0) | {"metrics_path": write(tmp_path / "a", ("000", "011"), ("a2", "b1", "a1"))},
        cell("clip", 1) | {"metrics_path": write(tmp_path / "b", ("000", "011"), ("a2", "b1", "a1"))},
        cell("vit", 0) | {"metrics_path": write(tmp_path / "c", ("00", "10"), ("a1", "b1"))},
        cell("none", 0, "blind") | {"metrics_path": str(tmp_path / "none" / "metrics.jsonl")},
    ]
    curves = read_curves(cells)
    assert curves.seeds == (0,)
    assert [len(members) for members in curves.of.values()] == [1, 1]
    clip, vit = curves.of[Arm("clip")][0], curves.of[Arm("vit")][0]
    assert clip.items == vit.items == ("a1", "b1")
    assert clip.right[-1].tolist() == [1, 1]  # the item's own digit, whatever its place in the file
    assert vit.right[-1].tolist() == [1, 0]
    assert "1 of 3 questions" in curves.notes[0]
    assert "Seeds [1]" in curves.notes[1]
    assert not read_curves(cells[3:]).of


@pytest.mark.parametrize("right", [("00", "1"), ("0", "11"), ("0x", "11"), ("000", "111")])
def test_a_damaged_curve_is_refused(tmp_path: Path, cell: Cell, right: tuple[str, str]) -> None:
    metrics = write(tmp_path / "a", right, ("a1", "b1"))
    with pytest.raises(UserError, match=r"curve.jsonl is no learning curve"):
        read_curves([cell("clip") | {"metrics_path": metrics}])


def test_the_picture_is_the_same_for_the_same_curves(tmp_path: Path) -> None:
    curves = of({"clip": [(0.2, 0.4, 0.6, 0.8), (0.2, 0.4, 0.5, 0.7)], "blind": [(0.2, 0.2, 0.3, 0.3)] * 2})
    for name in "ab":
        plot_curves(curves, tmp_path / f"{name}.png", (0.5,))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from sutura.compare.scores import Arm
from sutura.compare.standing import Standing, stand
from sutura.compare.statistics import COVERAGE_FOUND, paired
from sutura.compare.verdict import verdict

Synthetic = Callable[..., pl.DataFrame]
BLIND, MAJORITY = Arm("none", "blind"), Arm("none", "majority")
CLIP, VIT, JEPA, RANDOM = Arm("clip"), Arm("vit"), Arm("ijepa"), Arm("random")
FACTS: dict[str, dict[str, Any]] = {"random": {"trained": False}}


def _text(standing: Standing) -> str:
    return "\n".join(verdict(standing))


def test_a_clear_winner_is_named_with_its_lead_and_interval(synthetic: Synthetic) -> None:
    frame = synthetic(
        {CLIP: 0.8, VIT: 0.65, JEPA: 0.6, BLIND: 0.4, MAJORITY: 0.3}, seeds=range(5), pictures=200
    )
    standing = stand(frame, FACTS)
    text = _text(standing)
    gap = standing.pairs[CLIP, VIT]
    assert standing.encoders == (CLIP, VIT, JEPA)
    assert "clip is best on world/test with" in text
    assert f"{100 * gap.difference:+.1f} points (95 % interval {100 * gap.low:+.1f} to" in text  # type: ignore[operator]
    assert "No difference shown" not in text
    assert text.startswith("clip is best")
    assert "The question-only floor on world/test: a blind run" in text
    assert "No encoder clears" not in text


def test_no_difference_is_said_where_none_is_shown(synthetic: Synthetic) -> None:
    frame = synthetic({CLIP: 0.6, VIT: 0.6, JEPA: 0.35, BLIND: 0.2}, seeds=range(5), pictures=150)
    text = _text(stand(frame, FACTS))
    assert "No difference shown on world/test between" in text
    assert "is best" not in text
    assert "mostly go unnoticed" in text
    assert "is above ijepa by" in text


def test_below_the_question_only_floor_is_said_first_and_nobody_is_best(synthetic: Synthetic) -> None:
    """Fault: accuracy 35 % celebrated where the question-type mode alone scores 41.8 %."""
    frame = synthetic({CLIP: 0.40, VIT: 0.25, BLIND: 0.41, MAJORITY: 0.42}, pictures=150)
    sentences = verdict(stand(frame, FACTS))
    assert sentences[0].startswith("No encoder clears the question-only floor on world/test")
    assert "the pictures were used" in sentences[0]
    assert "is best" not in "\n".join(sentences)
    assert "scored highest" in "\n".join(sentences)


def test_the_floor_is_the_best_of_blind_and_majority(synthetic: Synthetic) -> None:
    """Above the majority by far, but not above blind: not above the floor. And the other way round."""
    for low, high in ((BLIND, MAJORITY), (MAJORITY, BLIND)):
        standing = stand(synthetic({CLIP: 0.6, low: 0.2, high: 0.61}, pictures=100), FACTS)
        assert standing.floors == (high, low)
        assert standing.above_floor[CLIP].b == high
        assert not standing.clears_floor(CLIP)
        assert verdict(standing)[0].startswith("No encoder clears")


def test_the_floor_shown_is_the_near_one_and_the_p_value_that_of_the_least_certain(
    synthetic: Synthetic,
) -> None:
    """Three seeds that differ little from the blind runs and much from a fixed guess: 57 points above were shown."""
    standing = stand(synthetic({CLIP: 0.6, BLIND: 0.4, MAJORITY: 0.05}, pictures=150, seeds=range(3)), FACTS)
    gap = standing.above_floor[CLIP]
    each = [paired(standing.scores, CLIP, floor) for floor in standing.floors]
    assert gap.b == BLIND
    assert gap.difference == pytest.approx(0.2, abs=0.06)
    assert gap.p == max(one.p for one in each if one.p is not None)


def test_being_significantly_below_the_floor_does_not_clear_it(synthetic: Synthetic) -> None:
    standing = stand(synthetic({CLIP: 0.2, BLIND: 0.6}, pictures=200, seeds=range(5)), FACTS)
    assert standing.above_floor[CLIP].shown
    assert not standing.clears_floor(CLIP)


def test_one_seed_changes_the_words(synthetic: Synthetic) -> None:
    frame = synthetic({CLIP: 0.9, VIT: 0.5, BLIND: 0.3}, seeds=(0,), pictures=200)
    text = _text(stand(frame, FACTS))
    assert "clip scored highest" in text
    assert "is best" not in text
    assert "training noise is unmeasured" in text
    assert "not about their encoders" in text


@pytest.mark.parametrize("seeds", [2, 3, 4, 5])
def test_few_seeds_come_with_the_coverage_found(synthetic: Synthetic, seeds: int) -> None:
    text = _text(stand(synthetic({CLIP: 0.7, BLIND: 0.3}, seeds=range(seeds)), FACTS))
    told = COVERAGE_FOUND.get(seeds)
    assert (f"{told[0]} to {told[1]} % of cases" in text) if told else ("approximate" not in text)


def test_missing_floors_are_said(synthetic: Synthetic) -> None:
    assert (
        "how much of them the questions alone give is unknown"
        in verdict(stand(synthetic({CLIP: 0.7, VIT: 0.7}), FACTS))[0]
    )
    assert "There is no blind run" in _text(stand(synthetic({CLIP: 0.7, MAJORITY: 0.3}), FACTS))


def test_the_wrong_picture_and_the_untrained_encoder_have_their_say(synthetic: Synthetic) -> None:
    wrong = Arm("clip", "wrong-picture")
    used = _text(stand(synthetic({CLIP: 0.8, wrong: 0.4, RANDOM: 0.5, BLIND: 0.4}, pictures=150), FACTS))
    assert "With a wrong picture clip falls to" in used
    assert "random weights (random) reaches" in used
    assert "Above it, in points with 95 % intervals: clip +" in used
    unused = _text(stand(synthetic({CLIP: 0.6, wrong: 0.6, RANDOM: 0.6, BLIND: 0.3}, pictures=150), FACTS))
    assert "not shown to answer better with the right picture" in unused
    assert "Pre-training is not shown to help: clip" in unused


def test_an_untrained_encoder_is_never_the_best(synthetic: Synthetic) -> None:
    standing = stand(synthetic({CLIP: 0.5, RANDOM: 0.9, BLIND: 0.3}, pictures=100), FACTS)
    assert standing.encoders == (CLIP,)
    assert standing.untrained == (RANDOM,)
    assert (CLIP, RANDOM) not in standing.pairs


def test_the_ceiling_is_told(synthetic: Synthetic) -> None:
    text = _text(stand(synthetic({CLIP: 0.6, BLIND: 0.3, Arm("none", "text-ceiling"): 0.9}), FACTS))
    assert "Reading a description instead of the picture" in text


def test_pairs_are_corrected_for_their_number(synthetic: Synthetic) -> None:
    skills = {Arm(f"e{i}"): 0.5 + 0.03 * i for i in range(5)}
    standing = stand(synthetic(skills, pictures=80), FACTS)
    assert len(standing.pairs) == 10
    assert all(gap.p_adjusted >= gap.p for gap in standing.pairs.values())  # type: ignore[operator]
    assert max(gap.p_adjusted / gap.p for gap in standing.pairs.values() if gap.p) > 5  # type: ignore[operator]


def test_each_encoder_is_held_against_its_own_blind_run_where_it_has_one(synthetic: Synthetic) -> None:
    own = {Arm("clip", "blind"): 0.3, Arm("vit", "blind"): 0.5}
    standing = stand(synthetic({CLIP: 0.45, VIT: 0.8, **own}, pictures=200, seeds=range(5)), FACTS)
    assert standing.above_floor[CLIP].b == Arm("clip", "blind")
    assert standing.above_floor[VIT].b == Arm("vit", "blind")

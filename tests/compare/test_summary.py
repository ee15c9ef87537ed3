from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

from sutura.compare.scores import Arm
from sutura.compare.standing import stand
from sutura.compare.summary import NAMED, summary
from sutura.compare.verdict import verdict

Synthetic = Callable[..., pl.DataFrame]
BLIND = Arm("none", "blind")


def test_three_sentences_what_on_what_ground_and_how_sure(synthetic: Synthetic) -> None:
    frame = synthetic({Arm("clip"): 0.8, Arm("vit"): 0.4, BLIND: 0.4}, seeds=range(5), pictures=200)
    standing = stand(frame, {})
    first, floor, limits = summary(standing)
    assert first.startswith("clip is best on world/test")
    blind = 100 * standing.estimates[BLIND].mean
    assert floor == (
        f"The best score without seeing is {blind:.1f} % (blind); shown to be above every such floor: clip; "
        "not shown to be: vit."
    )
    assert limits.startswith("5 training seeds and 1,000 questions about 200 pictures")
    assert limits == verdict(standing)[-1]


def test_nobody_above_the_floor_comes_first(synthetic: Synthetic) -> None:
    frame = synthetic({Arm("clip"): 0.4, Arm("vit"): 0.35, BLIND: 0.5}, seeds=range(3), pictures=100)
    sentences = summary(stand(frame, {}))
    assert sentences[0].startswith("No encoder clears the question-only floor")
    assert len(sentences) == 2
    assert "is best" not in " ".join(sentences)


def test_without_a_blind_run_the_floor_is_said_to_be_low(synthetic: Synthetic) -> None:
    frame = synthetic({Arm("clip"): 0.8, Arm("vit"): 0.7, Arm("none", "majority"): 0.3}, pictures=150)
    assert "There is no blind run, so the floor may be too low." in summary(stand(frame, {}))[1]


@pytest.mark.parametrize("count", [NAMED + 3])
def test_many_names_are_counted(synthetic: Synthetic, count: int) -> None:
    skills = {Arm(f"e{k}"): 0.9 - 0.01 * k for k in range(count)}
    assert "and 3 more" in summary(stand(synthetic({**skills, BLIND: 0.3}), {}))[1]

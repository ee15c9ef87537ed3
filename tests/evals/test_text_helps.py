"""Whether the caption helps: paired by picture, and the answer may be no."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from sutura.core.errors import UserError
from sutura.evals.text_helps import exchanged, score_captions, summary, verdict
from sutura.train import conditioned
from sutura.train.conditioned import Prepared, build, prepare
from sutura.train.conditioned_data import assemble, draw_masks
from tiny_conditioned import config, furnish


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnish(tmp_path_factory.mktemp("captions"))


@pytest.fixture(scope="module")
def prepared(place: Path) -> Prepared:
    return prepare(config(place))


def frame(right: Any, shuffled: Any, none: Any) -> pl.DataFrame:
    count = len(right)
    return pl.DataFrame(
        {
            "image_id": [str(i) for i in range(count)],
            "hidden": [10] * count,
            "right": right,
            "shuffled": shuffled,
            "none": none,
            "constant": [1.0] * count,
            "better": [0.5] * count,
        }
    )


def test_the_interval_is_of_differences_picture_by_picture() -> None:
    """Pictures differ by far more than captions do; unpaired, the help would drown."""
    rng = np.random.default_rng(0)
    hard = rng.uniform(0.1, 0.9, 50)
    told = summary(frame(hard, hard + 0.01 + rng.normal(0, 0.002, 50), hard + 0.005))
    assert told["right"]["high"] - told["right"]["low"] > 0.1
    gap = told["shuffled_less_right"]
    assert 0.008 < gap["low"] < 0.01 < gap["high"] < 0.012
    assert told["explained"] == pytest.approx(1 - hard.mean())


@pytest.mark.parametrize(
    ("shift", "told"),
    [
        (0.02, "**The caption is used**"),
        (0.0, "**Not shown that the caption is used**"),
        (-0.02, "is worse than"),
    ],
)
def test_the_verdict_follows_the_interval(shift: float, told: str) -> None:
    noise = np.random.default_rng(1).normal(0, 0.01, 40)
    noise -= noise.mean()
    right = np.full(40, 0.5)
    facts = summary(frame(right, right + shift + noise, right + shift + noise))
    said = verdict(facts, knows_none=True)
    assert told in said
    helps = {0.02: "it helps", 0.0: "help is not shown", -0.02: "it hurts"}[shift]
    assert f"Against no caption {helps}" in said
    assert "overstates" not in said
    assert "overstates" in verdict(facts, knows_none=False)


def test_a_caption_that_is_as_good_as_any_other_is_no_help() -> None:
    """The model is better with some caption than with none, whatever it says."""
    noise = np.random.default_rng(1).normal(0, 0.01, 40)
    noise -= noise.mean()
    right = np.full(40, 0.5)
    said = verdict(summary(frame(right, right + noise, right + 0.1 + noise)), knows_none=True)
    assert "Not shown that the caption is used" in said
    assert "it helps" not in said
    assert "any caption does as well" in said


def test_the_exchanged_caption_is_none_of_the_pictures_own() -> None:
    captions = [("a", "b"), ("b", "c"), ("d",), ("a",), ("e", "d")]
    found = exchanged(captions)
    assert all(captions[other][0] not in own for own, other in zip(captions, found, strict=True))
    with pytest.raises(UserError, match="none to exchange"):
        exchanged([("a",), ("a", "b"), ("a",)])


def test_a_model_that_does_not_read_is_found_out(prepared: Prepared) -> None:
    """The fault: a predictor whose text goes nowhere. Its loss is the same under every condition."""
    model = build(prepared)
    for weight in (model.predictor.enter_text[1].weight, model.predictor.enter_text[1].bias):
        torch.nn.init.zeros_(weight)
    reading = summary(score_captions(build(prepared), prepared))
    assert reading["shuffled_less_right"]["mean"] != 0.0
    told = summary(score_captions(model, prepared))
    assert told["shuffled_less_right"]["mean"] == pytest.approx(0.0, abs=1e-7)
    assert "Not shown" in verdict(told, knows_none=True)


@torch.no_grad()
def test_losses_are_those_of_the_objective_and_the_same_each_time(prepared: Prepared) -> None:
    model = build(prepared).eval()
    first = score_captions(model, prepared)
    assert first.equals(score_captions(model, prepared))
    assert len(first) == 12
    from sutura.core.runtime import generator

    keep, asked = draw_masks(prepared.config.mask, prepared.grid, 12, generator(0, "held masks", 0))
    rows = [int(i) for i in prepared.held.first_caption()]
    batch = assemble(prepared.held, range(12), keep, asked, rows, prepared.colours)
    loss, _ = conditioned.objective(prepared.config)(model, batch, 0)
    assert float(first["right"].mean()) == pytest.approx(float(loss), abs=1e-5)  # type: ignore[arg-type]
    assert first["hidden"].to_list() == [10] * 12


@torch.no_grad()
def test_the_constant_guess_is_the_training_pictures_mean_target(prepared: Prepared) -> None:
    assert prepared.train.targets is not None
    model = build(prepared).eval()
    found = score_captions(model, prepared)
    ids = prepared.train.data.image_ids
    whole = prepared.train.targets.rows(ids).float()
    whole = torch.nn.functional.layer_norm(whole, whole.shape[-1:])
    guess = whole.mean(dim=0, keepdim=True)
    from sutura.core.runtime import generator

    _, asked = draw_masks(prepared.config.mask, prepared.grid, 12, generator(0, "held masks", 0))
    own = prepared.held.target_rows([0])
    assert own is not None
    own = torch.nn.functional.layer_norm(own, own.shape[-1:])
    wanted = 1 - torch.nn.functional.cosine_similarity(guess[0, asked[0]], own[0, asked[0]], dim=-1)
    assert float(found["constant"][0]) == pytest.approx(float(wanted.mean()), abs=1e-5)


def test_without_text_there_is_nothing_to_compare(place: Path) -> None:
    ready = prepare(config(place, text={"use": False}))
    told = summary(score_captions(build(ready), ready))
    assert "right" not in told
    assert "No text was used" in verdict(told, knows_none=True)

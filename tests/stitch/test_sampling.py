"""Drawn answers: which tokens may be drawn, with what probability, and the same ones again."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sutura.core.errors import UserError
from sutura.core.runtime import generator
from sutura.stitch.generate import Answer, generate
from sutura.stitch.language import LlmConfig, add_adapter
from sutura.stitch.model import StitchModel
from sutura.stitch.pack import Row
from sutura.stitch.prompt import PromptBuilder
from sutura.stitch.sampling import GREEDY, Chooser, Sampling, kept
from tiny_models import awaken, learn_rows, tiny_lm, tiny_patches, tiny_projector

LOGITS = torch.tensor([[1.0, 3.0, 0.0, 2.5, -1.0], [0.0, 0.0, 4.0, 0.0, 0.0]])


@pytest.fixture(scope="module")
def model() -> StitchModel:
    lm = awaken(add_adapter(tiny_lm(seed=1), LlmConfig(rank=4), seed=0))
    return StitchModel(lm, tiny_projector()).eval()


def answers(model: StitchModel, prompt: PromptBuilder, sampling: Sampling, rows: list[Row]) -> list[Answer]:
    visual = model.project(tiny_patches(3)).detach()
    return generate(model, prompt, rows, visual, max_new_tokens=8, sampling=sampling)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"temperature": -0.1}, "temperature=-0.1"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"temperature": math.inf}, "temperature=inf"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p=0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p=1.5"),
        ({"temperature": 1.0, "top_k": 0}, "top_k=0"),
        ({"top_p": 0.9}, "top_p=0.9 without a temperature"),
        ({"top_k": 5, "seed": 0}, "top_k=5, seed=0 without a temperature"),
        ({"seed": 3}, "seed=3 without a temperature"),
    ],
)
def test_what_contradicts_itself_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Sampling(**options)


def test_the_probabilities_are_those_of_the_definition() -> None:
    found, order = kept(LOGITS, Sampling(temperature=0.7))
    assert order[0].tolist() == [1, 3, 0, 2, 4]
    expected = (LOGITS.double() / 0.7).softmax(dim=-1)
    torch.testing.assert_close(found, expected.gather(1, order))


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"top_k": 2}, [2, 2]),
        ({"top_k": 99}, [5, 5]),
        ({"top_p": 1.0}, [5, 5]),
        ({"top_p": 0.5}, [1, 1]),  # the first has 0.55 and 0.93
        ({"top_p": 0.6}, [2, 1]),
        ({"top_p": 0.999}, [5, 5]),
        ({"top_p": 1e-9}, [1, 1]),
        ({"top_k": 2, "top_p": 0.61}, [1, 1]),  # of what is left, the first has 0.62
    ],
)
def test_top_k_and_top_p_leave_the_likeliest(options: dict[str, Any], left: list[int]) -> None:
    found, _ = kept(LOGITS, Sampling(temperature=1.0, **options))
    assert (found > 0).sum(dim=-1).tolist() == left
    assert all((line[:n] > 0).all() for line, n in zip(found, left, strict=True))


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    logits = LOGITS[:1].expand(4000, 5)
    drawn = Chooser(Sampling(1.0, top_k=4, seed=1), [(i,) for i in range(4000)]).choose(logits)
    share = torch.bincount(drawn, minlength=5) / 4000
    likely = LOGITS[0, [0, 1, 2, 3]].softmax(dim=0)
    assert share[4] == 0
    assert torch.allclose(share[:4], likely, atol=0.03)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-300, 1e-4))
def test_a_temperature_near_zero_is_greedy(seed: int, temperature: float) -> None:
    logits = torch.randn(3, 50, generator=generator(seed, "logits"))
    drawn = Chooser(Sampling(temperature, seed=seed), [(1,), (2,), (3,)]).choose(logits)
    assert torch.equal(drawn, logits.argmax(dim=-1))


def test_equal_logits_go_to_the_first_as_greedy_does() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0]])
    drawn = Chooser(Sampling(1.0, top_k=1), [(1,)]).choose(logits)
    assert drawn.item() == logits.argmax().item() == 1


def test_the_same_seed_gives_the_same_answers(model: StitchModel, prompt: PromptBuilder) -> None:
    rows = learn_rows(prompt)
    one, again = (answers(model, prompt, Sampling(1.5, seed=4), rows) for _ in range(2))
    assert one == again
    others = [answers(model, prompt, Sampling(1.5, seed=seed), rows) for seed in (5, 6)]
    assert one != others[0] != others[1]
    assert answers(model, prompt, Sampling(1.5), rows) == answers(model, prompt, Sampling(1.5, seed=0), rows)


def test_nothing_else_that_draws_reaches_an_answer(model: StitchModel, prompt: PromptBuilder) -> None:
    """Fault: draws from torch's global generator."""
    rows = learn_rows(prompt)
    one = answers(model, prompt, Sampling(1.5, seed=4), rows)
    before = torch.get_rng_state()
    torch.rand(3)
    assert answers(model, prompt, Sampling(1.5, seed=4), rows) == one
    torch.set_rng_state(before)


def test_a_drawn_answer_does_not_depend_on_the_other_questions(
    model: StitchModel, prompt: PromptBuilder
) -> None:
    """Fault: one generator for a batch, so that a question's answer changes with its neighbours."""
    rows, sampling = learn_rows(prompt), Sampling(1.5, top_p=0.9, top_k=30, seed=2)
    together = answers(model, prompt, sampling, rows)
    alone = [
        answer
        for row in rows
        for turn in row.turns
        for answer in answers(model, prompt, sampling, [Row(row.picture, (turn,))])
    ]
    assert together == alone


def test_drawing_near_zero_gives_the_greedy_answers(model: StitchModel, prompt: PromptBuilder) -> None:
    rows = learn_rows(prompt)
    assert answers(model, prompt, Sampling(1e-6, seed=9), rows) == answers(model, prompt, GREEDY, rows)


def test_greedy_is_the_default_and_draws_nothing(
    model: StitchModel, prompt: PromptBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no(*args: Any, **options: Any) -> Tensor:
        raise AssertionError("drawn")

    monkeypatch.setattr(torch, "rand", no)
    rows = learn_rows(prompt)
    visual = model.project(tiny_patches(3)).detach()
    plain = generate(model, prompt, rows, visual, max_new_tokens=8)
    assert plain == answers(model, prompt, GREEDY, rows)
    with pytest.raises(AssertionError, match="drawn"):
        answers(model, prompt, Sampling(1.0), rows)

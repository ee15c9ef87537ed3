"""Shared, batched, cached decoding against the slow way: a question at a time, all run again for a token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import Tensor

import sutura.stitch.model as stitch_model
from sutura.stitch.generate import Answer, generate, log_likelihoods
from sutura.stitch.language import LlmConfig, add_adapter
from sutura.stitch.model import StitchModel
from sutura.stitch.pack import Row, attention_mask
from sutura.stitch.prompt import PromptBuilder
from tiny_models import (
    KINDS,
    awaken,
    learn_rows,
    naive_answer,
    naive_nats,
    tiny_lm,
    tiny_patches,
    tiny_projector,
    tiny_tokenizer,
)

MOST = 9


def build(kind: str = "qwen2", attention: str = "", *, blind: bool = False) -> StitchModel:
    lm = awaken(add_adapter(tiny_lm(kind, attention=attention, seed=1), LlmConfig(rank=4), seed=0))
    return StitchModel(lm, None if blind else tiny_projector()).eval()


def asked(prompt: PromptBuilder) -> list[Row]:
    rows = learn_rows(prompt)
    rows = [rows[2], rows[0], rows[1]]
    return [replace(row, turns=tuple(replace(t, answer_ids=()) for t in row.turns)) for row in rows]


def naive(model: StitchModel, prompt: PromptBuilder, visual: Tensor | None) -> list[list[int]]:
    return [
        naive_answer(model, turn, None if visual is None else visual[row.picture], prompt.stop_ids, MOST)
        for row in asked(prompt)
        for turn in row.turns
    ]


def with_stops(model: StitchModel, visual: Tensor | None) -> PromptBuilder:
    """A builder whose stop tokens are such that answers end at different times, one of them at once.

    A random model never ends an answer by itself; three of the tokens it does say are declared to be stops.
    """
    free = naive(model, PromptBuilder(tiny_tokenizer()), visual)
    said = sorted({token for ids in free for token in ids})[:40]

    def spread(stops: Sequence[int]) -> tuple[bool, int]:
        lengths = [next((i + 1 for i, token in enumerate(ids) if token in stops), MOST) for ids in free]
        return 1 in lengths, len(set(lengths))

    return PromptBuilder(tiny_tokenizer(), extra_stop_ids=max(combinations(said, 3), key=spread))


def check(model: StitchModel, prompt: PromptBuilder, visual: Tensor | None, answers: list[Answer]) -> None:
    expected = naive(model, prompt, visual)
    assert [a.item_id for a in answers] == [turn.item_id for row in asked(prompt) for turn in row.turns]
    assert [a.tokens for a in answers] == [len(ids) for ids in expected]
    assert [a.text for a in answers] == [prompt.decode(ids) for ids in expected]
    assert [a.stopped for a in answers] == [ids[-1] in prompt.stop_ids for ids in expected]


@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize(
    ("kind", "attention"), [*((kind, "") for kind in KINDS), ("qwen2", "eager"), ("llama", "eager")]
)
def test_batched_equals_one_by_one(kind: str, attention: str, blind: bool) -> None:
    """Fault: evaluation one sample at a time; the fast way must give the very same answers."""
    model = build(kind, attention, blind=blind)
    visual = None if blind else model.project(tiny_patches(3)).detach()
    prompt = with_stops(model, visual)
    answers = generate(model, prompt, asked(prompt), visual, max_new_tokens=MOST)
    check(model, prompt, visual, answers)
    assert len({a.tokens for a in answers}) >= 3, "the answers should end at different times"
    assert any(a.tokens == 1 and a.stopped and a.text == "" for a in answers)


def _leak(query: Tensor, key: Tensor, *, past: int = 0) -> Tensor:
    return attention_mask(query.clamp(max=0), key.clamp(max=0), past=past)


def _late(query: Tensor, key: Tensor, *, past: int = 0) -> Tensor:
    """Forgets what was decoded before."""
    mask = attention_mask(query, key, past=past).clone()
    if past:
        mask[..., max(0, past - query.shape[1]) : past] = False
    return mask


@pytest.mark.parametrize("broken", [_leak, _late])
def test_a_wrong_mask_while_decoding_is_noticed(
    broken: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build()
    visual = model.project(tiny_patches(3)).detach()
    prompt = with_stops(model, visual)
    monkeypatch.setattr(stitch_model, "attention_mask", broken)
    answers = generate(model, prompt, asked(prompt), visual, max_new_tokens=MOST)
    with pytest.raises(AssertionError):
        check(model, prompt, visual, answers)


def test_the_picture_is_read_once(prompt: PromptBuilder) -> None:
    """Fault: the shared prefix run again for every question or every token."""
    model, lengths = build(), []
    original = stitch_model.StitchModel.decode

    def spy(self: StitchModel, spliced: stitch_model.Spliced, *args: object, **kwargs: object) -> Tensor:
        lengths.append(spliced.embeddings.shape[1])
        return original(self, spliced, *args, **kwargs)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stitch_model.StitchModel, "decode", spy)
        generate(model, prompt, asked(prompt), model.project(tiny_patches(3)), max_new_tokens=4)
    assert lengths[1:] == [4, 4, 4], "one new column a turn, four turns at most"


@pytest.mark.filterwarnings("error::FutureWarning")
def test_the_cache_goes_by_the_name_this_transformers_has(prompt: PromptBuilder) -> None:
    """Fault: a renamed argument that works with a warning today and fails in a later release."""
    model = build()
    assert generate(model, prompt, asked(prompt), model.project(tiny_patches(3)), max_new_tokens=2)


def test_no_minimum_length() -> None:
    """Fault: at least three new tokens forced after an empty answer."""
    model = build()
    visual = model.project(tiny_patches(3)).detach()
    first = {ids[0] for ids in naive(model, PromptBuilder(tiny_tokenizer()), visual)}
    prompt = PromptBuilder(tiny_tokenizer(), extra_stop_ids=tuple(first))
    answers = generate(model, prompt, asked(prompt), visual, max_new_tokens=MOST)
    assert {(a.text, a.tokens, a.stopped) for a in answers} == {("", 1, True)}


def test_every_stop_token_stops() -> None:
    """Fault: only one of the end-of-sequence ids known."""
    model = build()
    visual = model.project(tiny_patches(3)).detach()
    free = naive(model, PromptBuilder(tiny_tokenizer()), visual)
    for token in {ids[2] for ids in free}:
        prompt = PromptBuilder(tiny_tokenizer(), extra_stop_ids=(token,))
        answers = generate(model, prompt, asked(prompt), visual, max_new_tokens=MOST)
        for ids, answer in zip(free, answers, strict=True):
            if token in ids:
                assert (answer.tokens, answer.stopped) == (ids.index(token) + 1, True)
            else:
                assert (answer.tokens, answer.stopped) == (MOST, False)


def test_an_answer_cut_at_the_limit_says_so(prompt: PromptBuilder) -> None:
    model = build()
    answers = generate(model, prompt, asked(prompt), model.project(tiny_patches(3)), max_new_tokens=2)
    assert all(a.tokens == 2 and not a.stopped for a in answers)


def test_an_answer_left_in_the_turn_is_not_read(prompt: PromptBuilder) -> None:
    """Fault: the reference answer given to the model that is asked for it."""
    model = build()
    visual = model.project(tiny_patches(3)).detach()
    rows = learn_rows(prompt)
    without = [replace(r, turns=tuple(replace(t, answer_ids=()) for t in r.turns)) for r in rows]
    told, untold = (generate(model, prompt, r, visual, max_new_tokens=5) for r in (rows, without))
    assert told == untold


@pytest.mark.parametrize("kind", ["qwen2", "gemma2"])
@pytest.mark.parametrize("blind", [False, True])
def test_log_likelihoods_equal_the_naive_ones(kind: str, blind: bool, prompt: PromptBuilder) -> None:
    model, rows = build(kind, blind=blind), learn_rows(prompt)
    rows = [rows[2], rows[0], rows[1]]
    visual = None if blind else model.project(tiny_patches(3)).detach()
    found = log_likelihoods(model, prompt, rows, visual)
    assert [len(line) for line in found] == [4, 2, 1]
    for row, line in zip(rows, found, strict=True):
        for turn, value in zip(row.turns, line, strict=True):
            with torch.no_grad():
                alone = naive_nats(model, turn, None if visual is None else visual[row.picture])
            assert value == pytest.approx(-float(alone.sum()), rel=1e-5)

"""Which questions go into which step, and the loss of a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sutura.core.errors import UserError
from sutura.core.runtime import generator
from sutura.data.samples import SetAside
from sutura.stitch.model import StitchModel
from sutura.stitch.prompt import PromptBuilder, PromptConfig
from sutura.train.stitching import FeedConfig, StitchBatch, StitchFeed, deal, stitch_loss, to_rows
from tiny_models import (
    TinyEncoder,
    many_questions,
    see,
    tiny_data,
    tiny_feed,
    tiny_stitch,
    tiny_tokenizer,
)


@pytest.fixture(scope="module")
def prompt() -> PromptBuilder:
    return PromptBuilder(tiny_tokenizer())


def ids_of(made: StitchFeed) -> list[list[str]]:
    """Item ids of every step."""
    return [[name for b in made.micro_batches(step) for name in b.ids] for step in range(made.steps)]


# Order and units.


@settings(deadline=None)
@given(
    answers=st.lists(st.integers(1, 9), min_size=1, max_size=30),
    batch=st.integers(1, 20),
    epochs=st.floats(0.1, 3.0),
    seed=st.integers(0, 5),
)
def test_deal_counts_answers(answers: list[int], batch: int, epochs: float, seed: int) -> None:
    """Every step but the last holds its answers and no picture more; epochs pass over everything."""
    config = FeedConfig(batch=batch, epochs=epochs)
    steps = deal(answers, config, seed)
    wanted = round(epochs * sum(answers))
    dealt = [index for step in steps for index in step]
    held = sum(answers[i] for i in dealt)
    assert wanted <= held < wanted + max(answers)
    for step in steps[:-1]:
        count = sum(answers[i] for i in step)
        assert batch <= count < batch + answers[step[-1]]
    for whole in range(len(dealt) // len(answers)):
        assert sorted(dealt[whole * len(answers) : (whole + 1) * len(answers)]) == list(range(len(answers)))
    assert max(Counter(dealt).values(), default=0) - min(Counter(dealt)[i] for i in range(len(answers))) <= 1
    assert deal(answers, config, seed) == steps


def test_epochs_are_drawn_anew_and_seeds_differ() -> None:
    once = deal([1] * 50, FeedConfig(batch=50, epochs=2), seed=0)
    assert once[0] != once[1]
    assert deal([1] * 50, FeedConfig(batch=50, epochs=2), seed=1) != once


@pytest.mark.parametrize("answers", [7, 100])
def test_a_run_can_be_as_long_as_a_number_of_answers(answers: int, prompt: PromptBuilder) -> None:
    made = tiny_feed(prompt, batch=4, answers=answers)
    assert answers <= made.answers < answers + 4
    assert made.answers == sum(len(step) for step in ids_of(made))


@pytest.mark.parametrize("config", [{"batch": 0}, {"micro_batch": 0}])
def test_empty_batches_are_refused(config: dict[str, int], prompt: PromptBuilder) -> None:
    with pytest.raises(UserError, match="at least 1"):
        tiny_feed(prompt, **config)


@pytest.mark.parametrize("config", [{"epochs": 0.0}, {"answers": 0}])
def test_a_run_without_answers_is_refused(config: dict[str, Any], prompt: PromptBuilder) -> None:
    with pytest.raises(UserError, match="no answer to train on"):
        tiny_feed(prompt, **config)


def test_no_pictures_at_all_are_refused(prompt: PromptBuilder) -> None:
    with pytest.raises(UserError, match="no answer to train on"):
        StitchFeed([], FeedConfig(answers=10), prompt, seed=0)


def test_turns_of_a_picture_stay_together(prompt: PromptBuilder) -> None:
    made = tiny_feed(prompt, batch=5, micro_batch=3)
    rows = {row.image_id: [turn.item_id for turn in row.turns] for row in made.rows}
    for step in range(made.steps):
        for batch in made.micro_batches(step):
            for items in batch.packed.item_ids:
                assert list(items) == rows[items[0].partition("/")[0]]


@pytest.mark.parametrize("micro", [1, 3, 4, 100])
def test_micro_batches_hold_what_they_say(micro: int, prompt: PromptBuilder) -> None:
    made = tiny_feed(prompt, batch=11, micro_batch=micro)
    for step in range(made.steps):
        batches = made.micro_batches(step)
        for batch in batches:
            assert len(batch.ids) <= micro or len(batch.packed.item_ids) == 1
            assert batch.patches is not None
            assert len(batch.patches) == len(batch.packed.item_ids)
        assert {batch.tokens for batch in batches} == {sum(b.packed.supervised for b in batches)}


@pytest.mark.parametrize("turns", ["shared", "separate", "first"])
def test_turns_modes(turns: str, prompt: PromptBuilder) -> None:
    made = tiny_feed(prompt, turns=turns, batch=6, micro_batch=4)
    names = [name for step in ids_of(made) for name in step]
    everything = [turn.item_id for row in made.rows for turn in row.turns]
    expected = [f"{row.image_id}/q0" for row in made.rows] if turns == "first" else everything
    assert sorted(names) == sorted(expected)
    assert made.answers == len(expected)
    longest = max(
        len(items) for s in range(made.steps) for b in made.micro_batches(s) for items in b.packed.item_ids
    )
    assert longest == (4 if turns == "shared" else 1)


def test_each_row_gets_its_own_picture(prompt: PromptBuilder) -> None:
    for turns in ("shared", "separate"):
        for batch in tiny_feed(prompt, turns=turns, batch=9, micro_batch=5).micro_batches(0):
            assert batch.patches is not None
            for items, picture in zip(batch.packed.item_ids, batch.packed.pictures, strict=True):
                assert torch.equal(batch.patches[picture], see([items[0].partition("/")[0]])[0])


def test_all_encoders_see_the_same_order(prompt: PromptBuilder) -> None:
    """Fault: data order differs per encoder. Width, tokens, blindness and what was drawn do not matter."""
    first = ids_of(tiny_feed(prompt, seed=3))
    torch.manual_seed(99)
    wide = ids_of(tiny_feed(prompt, seed=3, patches=lambda names: torch.randn(len(names), 9, 30)))
    assert first == wide == ids_of(tiny_feed(prompt, seed=3, patches=None))
    assert first != ids_of(tiny_feed(prompt, seed=4))


def test_a_step_does_not_depend_on_the_steps_before(prompt: PromptBuilder) -> None:
    made, again = tiny_feed(prompt, batch=4), tiny_feed(prompt, batch=4)
    forward = ids_of(made)
    assert [
        [n for b in again.micro_batches(s) for n in b.ids] for s in reversed(range(again.steps))
    ] == forward[::-1]


# Rows.


def test_too_long_turns_are_set_aside_and_counted() -> None:
    """Fault: truncation drops the answer. Nothing is cut, and what is left out has a name."""
    short = PromptBuilder(tiny_tokenizer(), PromptConfig(max_tokens=20))
    data = tiny_data([[("How many?", "two"), ("How many? " * 9, "two")], [("colour?", "red " * 20)]])
    aside = SetAside()
    rows = to_rows(data, short, learn=True, set_aside=aside)
    assert [turn.item_id for row in rows for turn in row.turns] == ["p0/q0"]
    assert aside.items == {"longer than prompt.max_tokens": ["p0/q1", "p1/q0"]}
    for row in rows:
        for turn in row.turns:
            assert turn.answer_ids == short.answer_ids("two")


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(UserError, match="max_tokens=2"):
        to_rows(
            many_questions(),
            PromptBuilder(tiny_tokenizer(), PromptConfig(max_tokens=2)),
            learn=True,
            set_aside=SetAside(),
        )


def test_the_most_frequent_answer_is_learned(prompt: PromptBuilder) -> None:
    data = tiny_data([[("How many?", "one")]])
    sample = data.pictures[0].samples[0]
    object.__setattr__(sample, "answers", ("one", "two", "two"))
    learned, asked = (
        to_rows(data, prompt, learn=learn, set_aside=SetAside())[0].turns[0] for learn in (True, False)
    )
    assert prompt.decode(learned.answer_ids) == "two"
    assert asked.answer_ids == ()


# Loss.


def gradients(model: StitchModel, batches: Sequence[StitchBatch]) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad(set_to_none=True)
    total = 0.0
    for batch in batches:
        loss, _ = stitch_loss(model, batch, 0)
        loss.backward()
        total += float(loss.detach())
    return total, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("turns", ["shared", "separate"])
def test_the_loss_does_not_depend_on_the_micro_batch(turns: str, prompt: PromptBuilder) -> None:
    """Sum over supervised tokens divided by their number in the whole effective batch, gradients too."""
    model = tiny_stitch().eval()
    whole = gradients(model, tiny_feed(prompt, batch=20, micro_batch=100).micro_batches(0))
    for micro in (1, 3, 7):
        parts = gradients(model, tiny_feed(prompt, batch=20, micro_batch=micro, turns=turns).micro_batches(0))
        assert parts[0] == pytest.approx(whole[0], rel=1e-5)
        for name, gradient in whole[1].items():
            torch.testing.assert_close(parts[1][name], gradient, atol=1e-5, rtol=1e-3)


def test_the_loss_is_a_mean_over_tokens_not_over_answers(prompt: PromptBuilder) -> None:
    model = tiny_stitch().eval()
    made = tiny_feed(prompt, batch=20, micro_batch=100)
    (batch,) = made.micro_batches(0)
    with torch.no_grad():
        nats, _ = model(batch.packed, model.project(batch.patches))  # type: ignore[arg-type]
        loss, _ = stitch_loss(model, batch, 0)
    assert float(loss) == pytest.approx(float(nats.mean()), rel=1e-6)
    assert len({len(t.answer_ids) for row in made.rows for t in row.turns}) > 1


def test_cached_equals_live(prompt: PromptBuilder) -> None:
    """The loss on stored patches is the loss on pixels."""
    encoder = TinyEncoder()
    pixels = {f"p{i}": torch.rand(3, 8, 8, generator=generator(i, "pixels")) for i in range(12)}
    model = tiny_stitch(encoder=encoder).eval()
    rows = to_rows(many_questions(), prompt, learn=True, set_aside=SetAside())

    def patches(names: Sequence[str]) -> Tensor:
        return encoder(torch.stack([pixels[name] for name in names]))

    live = StitchFeed(
        rows, FeedConfig(), prompt, seed=0, pixels=lambda names: torch.stack([pixels[n] for n in names])
    )
    cached = StitchFeed(rows, FeedConfig(), prompt, seed=0, patches=patches)
    a, b = (gradients(model, f.micro_batches(0)) for f in (live, cached))
    assert a[0] == pytest.approx(b[0], rel=1e-6)
    assert a[1].keys() == b[1].keys()

"""Which questions go into which step, and what training a stitch moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import (
    TinyEncoder,
    awaken,
    tiny_data,
    tiny_lm,
    tiny_patches,
    tiny_projector,
    tiny_tokenizer,
)
from torch import Tensor

import sutura.stitch.model as stitch_model
from sutura.core.errors import UserError
from sutura.core.runtime import generator
from sutura.data.samples import SetAside, VqaData
from sutura.stitch.language import LlmConfig, add_adapter
from sutura.stitch.model import StitchModel
from sutura.stitch.pack import attention_mask
from sutura.stitch.prompt import PromptBuilder, PromptConfig
from sutura.train.loop import fit
from sutura.train.optim import OptimConfig
from sutura.train.stitching import FeedConfig, PictureRow, StitchBatch, StitchFeed, deal, stitch_loss, to_rows

OPTIM = OptimConfig(lr=5e-3, schedule="constant")


@pytest.fixture(scope="module")
def prompt() -> PromptBuilder:
    return PromptBuilder(tiny_tokenizer())


def build(*, blind: bool = False, dropout: float = 0.0, encoder: TinyEncoder | None = None) -> StitchModel:
    lm = awaken(add_adapter(tiny_lm(), LlmConfig(rank=4, dropout=dropout), seed=0))
    return StitchModel(lm, None if blind else tiny_projector(), encoder)


def see(names: Sequence[str]) -> Tensor:
    """What the cache would hold: patches of p0, p1, …"""
    return tiny_patches(40)[[int(name[1:]) for name in names]]


def many(pictures: int = 12) -> VqaData:
    """Pictures with one to four questions."""
    words = ("red", "green", "two", "a chair", "yes", "no")
    return tiny_data(
        [
            [(f"How many {q} in {p}?", words[(p + q) % len(words)]) for q in range(1 + (p * 7) % 4)]
            for p in range(pictures)
        ]
    )


def feed(
    prompt: PromptBuilder, *, seed: int = 0, patches: Callable[[Sequence[str]], Tensor] | None = see, **config: Any
) -> StitchFeed:
    rows = to_rows(many(), prompt, learn=True, set_aside=SetAside())
    return StitchFeed(rows, FeedConfig(**config), prompt, seed=seed, patches=patches)


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
    """Every step but the last holds its answers and no picture more than it needs; epochs pass over everything."""
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
    assert max(Counter(dealt).values(), default=0) - min((Counter(dealt)[i] for i in range(len(answers)))) <= 1
    assert deal(answers, config, seed) == steps


def test_epochs_are_drawn_anew_and_seeds_differ() -> None:
    once = deal([1] * 50, FeedConfig(batch=50, epochs=2), seed=0)
    assert once[0] != once[1]
    assert deal([1] * 50, FeedConfig(batch=50, epochs=2), seed=1) != once


@pytest.mark.parametrize("answers", [7, 100])
def test_a_run_can_be_as_long_as_a_number_of_answers(answers: int, prompt: PromptBuilder) -> None:
    made = feed(prompt, batch=4, answers=answers)
    assert answers <= made.answers < answers + 4
    assert made.answers == sum(len(step) for step in ids_of(made))


@pytest.mark.parametrize("config", [{"batch": 0}, {"micro_batch": 0}])
def test_empty_batches_are_refused(config: dict[str, int], prompt: PromptBuilder) -> None:
    with pytest.raises(UserError, match="at least 1"):
        feed(prompt, **config)


@pytest.mark.parametrize("config", [{"epochs": 0.0}, {"answers": 0}])
def test_a_run_without_answers_is_refused(config: dict[str, Any], prompt: PromptBuilder) -> None:
    with pytest.raises(UserError, match="no answer to train on"):
        feed(prompt, **config)


def test_no_pictures_at_all_are_refused(prompt: PromptBuilder) -> None:
    with pytest.raises(UserError, match="no answer to train on"):
        StitchFeed([], FeedConfig(answers=10), prompt, seed=0)


def test_turns_of_a_picture_stay_together(prompt: PromptBuilder) -> None:
    made = feed(prompt, batch=5, micro_batch=3)
    rows = {row.image_id: [turn.item_id for turn in row.turns] for row in made.rows}
    for step in range(made.steps):
        for batch in made.micro_batches(step):
            for items in batch.packed.item_ids:
                assert list(items) == rows[items[0].partition("/")[0]]


@pytest.mark.parametrize("micro", [1, 3, 4, 100])
def test_micro_batches_hold_what_they_say(micro: int, prompt: PromptBuilder) -> None:
    made = feed(prompt, batch=11, micro_batch=micro)
    for step in range(made.steps):
        batches = made.micro_batches(step)
        for batch in batches:
            assert len(batch.ids) <= micro or len(batch.packed.item_ids) == 1
            assert batch.patches is not None
            assert len(batch.patches) == len(batch.packed.item_ids)
        assert {batch.tokens for batch in batches} == {sum(b.packed.supervised for b in batches)}


@pytest.mark.parametrize("turns", ["shared", "separate", "first"])
def test_turns_modes(turns: str, prompt: PromptBuilder) -> None:
    made = feed(prompt, turns=turns, batch=6, micro_batch=4)
    names = [name for step in ids_of(made) for name in step]
    everything = [turn.item_id for row in made.rows for turn in row.turns]
    expected = [f"{row.image_id}/q0" for row in made.rows] if turns == "first" else everything
    assert sorted(names) == sorted(expected)
    assert made.answers == len(expected)
    longest = max(len(items) for s in range(made.steps) for b in made.micro_batches(s) for items in b.packed.item_ids)
    assert longest == (4 if turns == "shared" else 1)


def test_each_row_gets_its_own_picture(prompt: PromptBuilder) -> None:
    for turns in ("shared", "separate"):
        for batch in feed(prompt, turns=turns, batch=9, micro_batch=5).micro_batches(0):
            assert batch.patches is not None
            for items, picture in zip(batch.packed.item_ids, batch.packed.pictures, strict=True):
                assert torch.equal(batch.patches[picture], see([items[0].partition("/")[0]])[0])


def test_all_encoders_see_the_same_order(prompt: PromptBuilder) -> None:
    """Fault: data order differs per encoder. Width, number of tokens, blindness and what was drawn do not matter."""
    first = ids_of(feed(prompt, seed=3))
    torch.manual_seed(99)
    wide = ids_of(feed(prompt, seed=3, patches=lambda names: torch.randn(len(names), 9, 30)))
    assert first == wide == ids_of(feed(prompt, seed=3, patches=None))
    assert first != ids_of(feed(prompt, seed=4))


def test_a_step_does_not_depend_on_the_steps_before(prompt: PromptBuilder) -> None:
    made, again = feed(prompt, batch=4), feed(prompt, batch=4)
    forward = ids_of(made)
    assert [[n for b in again.micro_batches(s) for n in b.ids] for s in reversed(range(again.steps))] == forward[::-1]


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
        to_rows(many(), PromptBuilder(tiny_tokenizer(), PromptConfig(max_tokens=2)), learn=True, set_aside=SetAside())


def test_the_most_frequent_answer_is_learned(prompt: PromptBuilder) -> None:
    data = tiny_data([[("How many?", "one")]])
    sample = data.pictures[0].samples[0]
    object.__setattr__(sample, "answers", ("one", "two", "two"))
    learned, asked = (to_rows(data, prompt, learn=learn, set_aside=SetAside())[0].turns[0] for learn in (True, False))
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
    model = build().eval()
    whole = gradients(model, feed(prompt, batch=20, micro_batch=100).micro_batches(0))
    for micro in (1, 3, 7):
        parts = gradients(model, feed(prompt, batch=20, micro_batch=micro, turns=turns).micro_batches(0))
        assert parts[0] == pytest.approx(whole[0], rel=1e-5)
        for name, gradient in whole[1].items():
            torch.testing.assert_close(parts[1][name], gradient, atol=1e-5, rtol=1e-3)


def test_the_loss_is_a_mean_over_tokens_not_over_answers(prompt: PromptBuilder) -> None:
    model = build().eval()
    made = feed(prompt, batch=20, micro_batch=100)
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
    model = build(encoder=encoder).eval()
    rows = to_rows(many(), prompt, learn=True, set_aside=SetAside())

    def patches(names: Sequence[str]) -> Tensor:
        return encoder(torch.stack([pixels[name] for name in names]))

    live = StitchFeed(rows, FeedConfig(), prompt, seed=0, pixels=lambda names: torch.stack([pixels[n] for n in names]))
    cached = StitchFeed(rows, FeedConfig(), prompt, seed=0, patches=patches)
    a, b = (gradients(model, f.micro_batches(0)) for f in (live, cached))
    assert a[0] == pytest.approx(b[0], rel=1e-6)
    assert a[1].keys() == b[1].keys()


# Fitting.


def train(prompt: PromptBuilder, model: StitchModel, *, seed: int = 0, **options: Any) -> StitchModel:
    options = {"directory": None, **options}
    fit(model, stitch_loss, feed(prompt, seed=seed, batch=6, micro_batch=3), OPTIM, seed=seed, **options)
    return model


def moved(model: StitchModel) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def test_seed_repeats(prompt: PromptBuilder) -> None:
    """Fault: `seed` in the config, never read. Same seed, same bits, dropout included; another seed, others."""
    a, b, other = (moved(train(prompt, build(dropout=0.2), seed=s)) for s in (0, 0, 1))
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert any(not torch.equal(a[n], other[n]) for n in a)


def test_resume_equals_uninterrupted(prompt: PromptBuilder, tmp_path: Path) -> None:
    """Fault: a resume that skips batches and draws other dropout masks."""
    whole = moved(train(prompt, build(dropout=0.2)))

    class Killed(Exception):
        pass

    def kill(step: int, row: dict[str, Any]) -> None:
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        train(prompt, build(dropout=0.2), directory=tmp_path, checkpoint_every=2, on_step=kill)
    resumed = moved(train(prompt, build(dropout=0.2), directory=tmp_path, checkpoint_every=2, resume=True))
    assert all(torch.equal(whole[n], resumed[n]) for n in whole)


def test_frozen_stays_frozen(prompt: PromptBuilder) -> None:
    """Fault: `model.train()` on the parent wakes the frozen encoder; same bits and eval mode after N steps."""
    encoder = TinyEncoder()
    model = build(encoder=encoder, dropout=0.1)
    model.train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    trainable = set(moved(model))
    modes: list[bool] = []
    encoder.dropout.register_forward_hook(lambda module, *_: modes.append(module.training))
    pixels = {f"p{i}": torch.rand(3, 8, 8, generator=generator(i, "pixels")) for i in range(12)}
    rows = to_rows(many(), prompt, learn=True, set_aside=SetAside())
    live = StitchFeed(
        rows,
        FeedConfig(batch=6, epochs=2),
        prompt,
        seed=0,
        pixels=lambda names: torch.stack([pixels[n] for n in names]),
    )
    attentions: list[bool] = []
    for name, module in model.lm.named_modules():
        if name.endswith("self_attn"):
            module.register_forward_hook(lambda module, *_: attentions.append(module.training))
    fit(model, stitch_loss, live, OPTIM, seed=0, directory=None)
    after = model.state_dict()
    assert {n for n in before if not torch.equal(before[n], after[n])} == trainable
    assert modes
    assert not any(modes)
    assert attentions
    assert not any(attentions), "the frozen language model's own dropout"


def test_four_examples_can_be_learned(prompt: PromptBuilder) -> None:
    """Through the pictures alone: the same question has another answer for each."""
    data = tiny_data([[("What colour is the cube?", word)] for word in ("red", "green", "blue", "gray")])
    rows = to_rows(data, prompt, learn=True, set_aside=SetAside())
    made = StitchFeed(rows, FeedConfig(batch=4, epochs=80), prompt, seed=0, patches=see)
    model = build()
    result = fit(model, stitch_loss, made, OptimConfig(lr=2e-2), seed=0, directory=None, window=5)
    assert result.loss.first > 1.0
    assert result.loss.final_mean < 0.1


def _leak(query: Tensor, key: Tensor, *, past: int = 0) -> Tensor:
    return attention_mask(query.clamp(max=0), key.clamp(max=0), past=past)


@pytest.mark.parametrize("leaking", [False, True])
def test_a_blind_run_stays_at_the_question_only_floor(
    leaking: bool, prompt: PromptBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: earlier answers leak into later questions, so that a blind model scores above its floor.

    Both questions about a picture have the same answer, yes or no by the toss of a coin: blind, nobody can know
    it, and one bit is the least loss there is. Where turns leak, the second answer is a copy of the first.
    """
    coins = torch.randint(2, (32,), generator=generator(0, "coins")).tolist()
    data = tiny_data([[("Is it yellow?", w), ("Is it yellow?", w)] for w in (("no", "yes")[c] for c in coins)])
    rows = [PictureRow(f"p{i}", row.turns) for i, row in enumerate(to_rows(data, prompt, learn=True, set_aside=SetAside()))]
    if leaking:
        monkeypatch.setattr(stitch_model, "attention_mask", _leak)
    made = StitchFeed(rows, FeedConfig(batch=64, micro_batch=64, epochs=60), prompt, seed=0)
    lm = add_adapter(tiny_lm(spread=0.2), LlmConfig(train="full"), seed=0)
    model = StitchModel(lm, None)
    fit(model, stitch_loss, made, OptimConfig(lr=1e-2), seed=0, directory=None)
    with torch.no_grad():
        nats, places = model(made.micro_batches(0)[0].packed, None)
    second = float(nats[places[:, 1] == 2].sum()) / 32
    floor = 0.69 * (1 if True else 0)
    assert (second < 0.5 * floor) if leaking else (second > 0.9 * floor)

"""Batches as an earlier study made them, and dialogues among them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from sutura.compare.cell import _shared_out
from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.core.processes import Processes
from sutura.data.samples import SetAside
from sutura.stitch.prompt import PromptBuilder, PromptConfig
from sutura.train.loop import fit
from sutura.train.optim import OptimConfig
from sutura.train.stitching import FeedConfig, StitchFeed, stitch_loss, to_rows
from tiny_models import many_questions, naive_logits, see, tiny_data, tiny_feed, tiny_stitch, tiny_tokenizer


@pytest.fixture(scope="module")
def prompt() -> PromptBuilder:
    return PromptBuilder(tiny_tokenizer())


@torch.no_grad()
@pytest.mark.parametrize("average", ["step", "micro"])
def test_how_a_steps_loss_is_averaged(average: str, prompt: PromptBuilder) -> None:
    """`step` is the mean over the step's tokens, `micro` the mean of its micro-batches' means, by hand."""
    model = tiny_stitch()
    made = tiny_feed(prompt, batch=7, micro_batch=3, average=average, turns="separate")
    batches = made.micro_batches(0)
    assert len({batch.packed.supervised for batch in batches}) > 1, "even batches could not tell them apart"
    loss = float(sum(stitch_loss(model, batch, 0)[0] for batch in batches))
    nats = [model(b.packed, model.project(b.patches))[0] for b in batches if b.patches is not None]
    by_hand = torch.cat(nats).mean() if average == "step" else torch.stack([n.mean() for n in nats]).mean()
    other = torch.cat(nats).mean() if average == "micro" else torch.stack([n.mean() for n in nats]).mean()
    assert loss == pytest.approx(float(by_hand), rel=1e-5)
    assert abs(loss - float(other)) > 1e-3


def test_micro_batches_whose_means_count_keep_their_size() -> None:
    """Fault: memory, or the number of processes, decides what a step's loss is."""
    with pytest.raises(UserError, match=r"average=micro needs a micro_batch of a fixed size"):
        parse(FeedConfig, {"average": "micro", "micro_batch": "auto"})
    counted = FeedConfig(batch=16, micro_batch=16, average="micro")
    assert _shared_out(counted, Processes(0, 2)) == counted
    assert _shared_out(FeedConfig(batch=16, micro_batch=16), Processes(0, 2)).micro_batch == 8


def test_bfloat16_weights_train_and_their_moments_are_bfloat16(prompt: PromptBuilder) -> None:
    model = tiny_stitch()
    before = {n: p.detach().to(torch.bfloat16) for n, p in model.named_parameters() if p.requires_grad}
    optim = OptimConfig(lr=1e-2, schedule="constant", trained_dtype="bfloat16", decay_all=True)
    seen = {}

    def look(module: torch.nn.Module, step: int) -> None:
        seen.update({p.dtype: None for p in module.parameters() if p.requires_grad})

    result = fit(
        model,
        stitch_loss,
        tiny_feed(prompt, batch=6, micro_batch=3),
        optim,
        seed=0,
        directory=None,
        after_step=look,
    )
    assert set(seen) == {torch.bfloat16}
    assert result.bad_batches == 0
    after = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert any(not torch.equal(after[n], before[n]) for n in before)
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.float32}


def test_a_run_in_bfloat16_goes_on_to_the_same_bits(prompt: PromptBuilder, tmp_path: Path) -> None:
    optim = OptimConfig(lr=1e-2, schedule="constant", trained_dtype="bfloat16")
    feed = tiny_feed(prompt, batch=6, micro_batch=3)
    whole, stopped, resumed = tiny_stitch(), tiny_stitch(), tiny_stitch()
    fit(whole, stitch_loss, feed, optim, seed=0, directory=None)

    def stop(step: int, row: dict[str, Any]) -> None:
        if step == 3:
            raise KeyboardInterrupt

    kept: dict[str, Any] = {"seed": 0, "directory": tmp_path, "checkpoint_every": 2}
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, stitch_loss, feed, optim, on_step=stop, **kept)
    fit(resumed, stitch_loss, feed, optim, resume=True, **kept)
    ours = {n: p for n, p in whole.named_parameters() if p.requires_grad}
    theirs = dict(resumed.named_parameters())
    assert all(torch.equal(ours[n], theirs[n]) and theirs[n].dtype == torch.bfloat16 for n in ours)


@torch.no_grad()
def test_a_feed_of_dialogues_has_the_loss_of_whole_conversations(prompt: PromptBuilder) -> None:
    model = tiny_stitch().eval()
    data = tiny_data()
    rows = to_rows(data, prompt, learn=True, set_aside=SetAside(), conversation=True)
    feed = StitchFeed(
        rows, FeedConfig(batch=100, micro_batch=3, turns="conversation"), prompt, seed=0, patches=see
    )
    assert (feed.steps, feed.answers) == (1, 7)
    loss = float(sum(stitch_loss(model, batch, 0)[0] for batch in feed.micro_batches(0)))
    nats = []
    for number, picture in enumerate(data.pictures):
        turns = prompt.conversation([(s.item_id, s.question, s.answers[0]) for s in picture.samples])
        ids = [token for turn in turns for token in (*turn.prompt_ids, *turn.answer_ids)]
        supervised = torch.tensor(
            [flag for t in turns for flag in [0] * len(t.prompt_ids) + [1] * len(t.answer_ids)]
        )
        logits = naive_logits(model.lm, ids, model.project(see([f"p{number}"]))[0])
        every = F.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none")
        nats.append(every[supervised[1:].bool()])
    assert loss == pytest.approx(float(torch.cat(nats).mean()), rel=1e-5)


def test_a_sources_dialogues_are_dialogues_among_questions(prompt: PromptBuilder) -> None:
    data = many_questions()
    talking = {"p3", "p5"}
    pictures = [replace(p, conversation=p.image_id in talking) for p in data.pictures]
    rows = to_rows(replace(data, pictures=pictures), prompt, learn=True, set_aside=SetAside())
    assert {row.image_id for row in rows if row.conversation} == talking
    feed = StitchFeed(rows, FeedConfig(batch=100, turns="separate"), prompt, seed=0, patches=see)
    packed = [items for batch in feed.micro_batches(0) for items in batch.packed.item_ids]
    for items in packed:
        assert len(items) == 1 or items[0].split("/")[0] in talking
    asked = to_rows(replace(data, pictures=pictures), prompt, learn=False, set_aside=SetAside())
    assert not any(row.conversation for row in asked), "every turn of a dialogue is asked by itself"


def test_the_end_of_a_dialogue_that_is_too_long_is_set_aside() -> None:
    """The turns before it stay; nothing is cut within an answer."""
    whole = PromptBuilder(tiny_tokenizer())
    told = [("a", "What is it?", "red"), ("b", "How many?", "two"), ("c", "colour?", "a chair")]
    lengths = [len(turn) for turn in whole.conversation(told)]
    prompt = PromptBuilder(tiny_tokenizer(), PromptConfig(max_tokens=sum(lengths[:2])))
    data = tiny_data([[(question, answer) for _, question, answer in told]])
    aside = SetAside()
    (row,) = to_rows(data, prompt, learn=True, set_aside=aside, conversation=True)
    assert len(row.turns) == 2
    assert aside.items == {"longer than prompt.max_tokens, with the turns before it": ["p0/q2"]}

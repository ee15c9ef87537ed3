"""What training a stitch moves, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sutura.stitch.model as stitch_model
from sutura.core.runtime import generator
from sutura.data.samples import SetAside
from sutura.stitch.language import LlmConfig, add_adapter
from sutura.stitch.model import StitchModel
from sutura.stitch.pack import attention_mask
from sutura.stitch.prompt import PromptBuilder
from sutura.train.loop import fit
from sutura.train.optim import OptimConfig
from sutura.train.stitching import FeedConfig, PictureRow, StitchFeed, stitch_loss, to_rows
from tiny_models import (
    TinyEncoder,
    awaken,
    many_questions,
    see,
    tiny_data,
    tiny_feed,
    tiny_lm,
    tiny_projector,
    tiny_stitch,
    tiny_tokenizer,
)

OPTIM = OptimConfig(lr=5e-3, schedule="constant")


@pytest.fixture(scope="module")
def prompt() -> PromptBuilder:
    return PromptBuilder(tiny_tokenizer())


def train(prompt: PromptBuilder, model: StitchModel, *, seed: int = 0, **options: Any) -> StitchModel:
    options = {"directory": None, **options}
    fit(model, stitch_loss, tiny_feed(prompt, seed=seed, batch=6, micro_batch=3), OPTIM, seed=seed, **options)
    return model


def moved(model: StitchModel) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def test_seed_repeats(prompt: PromptBuilder) -> None:
    """Fault: `seed` in the config, never read. Same seed, same bits, dropout included."""
    a, b, other = (moved(train(prompt, tiny_stitch(dropout=0.2), seed=s)) for s in (0, 0, 1))
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert any(not torch.equal(a[n], other[n]) for n in a)


def test_resume_equals_uninterrupted(prompt: PromptBuilder, tmp_path: Path) -> None:
    """Fault: a resume that skips batches and draws other dropout masks."""
    whole = moved(train(prompt, tiny_stitch(dropout=0.2)))

    class Killed(Exception):
        pass

    def kill(step: int, row: dict[str, Any]) -> None:
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        train(prompt, tiny_stitch(dropout=0.2), directory=tmp_path, checkpoint_every=2, on_step=kill)
    resumed = moved(
        train(prompt, tiny_stitch(dropout=0.2), directory=tmp_path, checkpoint_every=2, resume=True)
    )
    assert all(torch.equal(whole[n], resumed[n]) for n in whole)


def test_frozen_stays_frozen(prompt: PromptBuilder) -> None:
    """Fault: `model.train()` on the parent wakes the frozen encoder; the bits stay, and eval mode."""
    encoder = TinyEncoder()
    model = tiny_stitch(encoder=encoder, dropout=0.1)
    model.train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    trainable = set(moved(model))
    modes: list[bool] = []
    encoder.dropout.register_forward_hook(lambda module, *_: modes.append(module.training))
    pixels = {f"p{i}": torch.rand(3, 8, 8, generator=generator(i, "pixels")) for i in range(12)}
    rows = to_rows(many_questions(), prompt, learn=True, set_aside=SetAside())
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


def test_a_bfloat16_trunk_trains_float32_masters(prompt: PromptBuilder) -> None:
    """Fault: bf16 trained weights. Steps far below bfloat16's spacing are not lost."""
    lm = awaken(add_adapter(tiny_lm().bfloat16(), LlmConfig(rank=4), seed=0))
    model = StitchModel(lm, tiny_projector())
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optim = OptimConfig(lr=1e-6, schedule="constant", weight_decay=0.0)
    fit(model, stitch_loss, tiny_feed(prompt, batch=6), optim, seed=0, directory=None)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16), name
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name


def test_four_examples_can_be_learned(prompt: PromptBuilder) -> None:
    """Through the pictures alone: the same question has another answer for each."""
    data = tiny_data([[("What colour is the cube?", word)] for word in ("red", "green", "blue", "gray")])
    rows = to_rows(data, prompt, learn=True, set_aside=SetAside())
    made = StitchFeed(rows, FeedConfig(batch=4, epochs=80), prompt, seed=0, patches=see)
    lm = add_adapter(tiny_lm(spread=0.2), LlmConfig(train="full"), seed=0)
    model = StitchModel(lm, tiny_projector())
    result = fit(model, stitch_loss, made, OptimConfig(lr=1e-2), seed=0, directory=None, window=5)
    assert result.loss.first > 1.0
    assert result.loss.final_mean < 0.1


def _leak(query: Tensor, key: Tensor, *, past: int = 0) -> Tensor:
    return attention_mask(query.clamp(max=0), key.clamp(max=0), past=past)


@pytest.mark.parametrize("leaking", [False, True])
def test_a_blind_run_stays_at_the_question_only_floor(
    leaking: bool, prompt: PromptBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: earlier answers leak into later questions, so that a blind model scores above its floor.

    Both questions about a picture have the same answer, yes or no by the toss of a coin: blind, nobody can
    know it, and one bit is the least loss there is. Where turns leak, the second answer copies the first.
    """
    coins = torch.randint(2, (32,), generator=generator(0, "coins")).tolist()
    data = tiny_data(
        [[("Is it yellow?", w), ("Is it yellow?", w)] for w in (("no", "yes")[c] for c in coins)]
    )
    rows = [
        PictureRow(f"p{i}", row.turns)
        for i, row in enumerate(to_rows(data, prompt, learn=True, set_aside=SetAside()))
    ]
    if leaking:
        monkeypatch.setattr(stitch_model, "attention_mask", _leak)
    made = StitchFeed(rows, FeedConfig(batch=64, micro_batch=64, epochs=60), prompt, seed=0)
    lm = add_adapter(tiny_lm(spread=0.2), LlmConfig(train="full"), seed=0)
    model = StitchModel(lm, None)
    fit(model, stitch_loss, made, OptimConfig(lr=1e-2), seed=0, directory=None)
    with torch.no_grad():
        nats, places = model(made.micro_batches(0)[0].packed, None)
    second = float(nats[places[:, 1] == 2].sum()) / 32
    floor = 0.69  # of a fair coin, in nats
    assert (second < 0.5 * floor) if leaking else (second > 0.9 * floor)

"""A picture's questions behind its tokens once: the losses and gradients each would have in a row of its own.

The reference knows nothing of packing: one sequence a question, no mask, no positions, full logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import sutura.stitch.model as stitch_model
from sutura.stitch.language import LlmConfig, add_adapter
from sutura.stitch.model import StitchModel
from sutura.stitch.pack import IGNORE, Packed, Row, attention_mask, pack, split_turns
from sutura.stitch.prompt import PromptBuilder
from sutura.train.modes import set_train_mode
from tiny_models import (
    awaken,
    learn_rows,
    naive_nats,
    tiny_lm,
    tiny_patches,
    tiny_projector,
)

CLOSE = 5e-5
CASES = [
    ("qwen2", "sdpa", False),
    ("qwen2", "eager", False),
    ("qwen2", "sdpa", True),
    ("qwen3", "sdpa", False),
    ("llama", "eager", True),
    ("gemma2", "eager", False),
]


def build(
    kind: str = "qwen2", attention: str = "sdpa", *, blind: bool = False, checkpointing: bool = False
) -> StitchModel:
    config = LlmConfig(rank=4, dropout=0.0, gradient_checkpointing=checkpointing)
    lm = awaken(add_adapter(tiny_lm(kind, attention=attention), config, seed=0))
    model = StitchModel(lm, None if blind else tiny_projector())
    set_train_mode(model)
    return model


def visual_of(model: StitchModel, patches: Tensor | None) -> Tensor | None:
    return None if patches is None else model.project(patches)


def packed_nats(
    model: StitchModel, rows: list[Row], patches: Tensor | None, prompt: PromptBuilder
) -> list[Tensor]:
    """Nats of every turn, in order, out of packed rows."""
    packed = pack(rows, head_ids=prompt.head_ids, pad_id=min(prompt.stop_ids))
    nats, places = model(packed, visual_of(model, patches))
    return [
        nats[(places == torch.tensor([r, t + 1])).all(dim=1)]
        for r, row in enumerate(rows)
        for t in range(len(row.turns))
    ]


def separate_nats(model: StitchModel, rows: list[Row], patches: Tensor | None) -> list[Tensor]:
    """The same, one turn a sequence, without our packing."""
    visual = visual_of(model, patches)
    return [
        naive_nats(model, turn, None if visual is None else visual[row.picture], row.prefix_ids)
        for row in rows
        for turn in row.turns
    ]


def outcome(
    model: StitchModel, nats: Callable[[Tensor | None], list[Tensor]], *, blind: bool
) -> dict[str, Tensor]:
    """Losses, and the gradients of every trainable weight and of the encoder's features."""
    model.zero_grad(set_to_none=True)
    patches = None if blind else tiny_patches(3).requires_grad_()
    per_turn = nats(patches)
    # Uneven weights: with a plain sum an error in one turn could be made up for by another.
    sum((i + 1) * n.sum() for i, n in enumerate(per_turn)).backward()  # type: ignore[union-attr]
    found = {"nats": torch.cat(per_turn).detach()}
    found |= {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    if patches is not None:
        assert patches.grad is not None
        found["features"] = patches.grad
    return found


def gap(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest difference, each tensor measured against its own size."""
    assert a.keys() == b.keys()
    return max(float((a[k] - b[k]).abs().max() / b[k].abs().max().clamp_min(1e-3)) for k in a)


@pytest.fixture
def rows(prompt: PromptBuilder) -> list[Row]:
    """Three pictures with 2, 1 and 4 turns, out of order, so that a row's number is not its picture's."""
    made = learn_rows(prompt)
    return [made[2], made[0], made[1]]


@pytest.mark.parametrize(("kind", "attention", "blind"), CASES)
def test_shared_equals_separate(
    kind: str, attention: str, blind: bool, rows: list[Row], prompt: PromptBuilder
) -> None:
    """Fault: restarted positions without a mask, a boolean mask under eager attention, a leak."""
    model = build(kind, attention, blind=blind)
    shared = outcome(model, lambda p: packed_nats(model, rows, p, prompt), blind=blind)
    alone = outcome(model, lambda p: separate_nats(model, rows, p), blind=blind)
    assert gap(shared, alone) < CLOSE
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained <= shared.keys(), "a trainable weight got no gradient"
    assert all(float(shared[n].abs().max()) > 0 for n in trained)


def test_shared_equals_separate_with_gradient_checkpointing(rows: list[Row], prompt: PromptBuilder) -> None:
    plain, again = build(), build(checkpointing=True)
    runs = _count_forwards(again.lm)
    shared = outcome(again, lambda p: packed_nats(again, rows, p, prompt), blind=False)
    assert runs["layers"] == 4, "two layers, each run forward and again backward"
    assert gap(shared, outcome(plain, lambda p: separate_nats(plain, rows, p), blind=False)) < CLOSE


def _count_forwards(lm: Any) -> dict[str, int]:
    runs = {"layers": 0}

    def count(module: Any, inputs: Any) -> None:
        runs["layers"] += 1

    for layer in lm.get_base_model().model.layers:
        layer.mlp.register_forward_pre_hook(count)
    return runs


@pytest.mark.parametrize("mode", ["shared", "separate"])
def test_our_own_separate_rows_agree_too(mode: str, rows: list[Row], prompt: PromptBuilder) -> None:
    model = build()
    split = [part for row in rows for part in split_turns(row, mode)]  # type: ignore[arg-type]
    assert len(split) == (3 if mode == "shared" else 7)
    packed = outcome(model, lambda p: packed_nats(model, split, p, prompt), blind=False)
    assert gap(packed, outcome(model, lambda p: separate_nats(model, rows, p), blind=False)) < CLOSE


def test_a_description_stands_in_the_shared_prefix(rows: list[Row], prompt: PromptBuilder) -> None:
    model = build(blind=True)
    told = [
        replace(row, prefix_ids=prompt.encode_text("a red cube." * (i + 1))) for i, row in enumerate(rows)
    ]
    shared = outcome(model, lambda p: packed_nats(model, told, p, prompt), blind=True)
    assert gap(shared, outcome(model, lambda p: separate_nats(model, told, p), blind=True)) < CLOSE
    assert gap(shared, outcome(model, lambda p: separate_nats(model, rows, p), blind=True)) > 0.01


# Planted breaks: each of them must move the result, or the tests above would prove nothing.


def leak(query: Tensor, key: Tensor, *, past: int = 0) -> Tensor:
    """Causal only: later turns see earlier ones, as in a conversation."""
    return attention_mask(query.clamp(max=0), key.clamp(max=0), past=past)


def off_by_one(query: Tensor, key: Tensor, *, past: int = 0) -> Tensor:
    """Every token sees the next one as well."""
    mask = attention_mask(query, key, past=past)
    return mask | torch.roll(mask, 1, dims=-1)


def no_prefix(query: Tensor, key: Tensor, *, past: int = 0) -> Tensor:
    """The picture is not part of what turns share."""
    mask = attention_mask(query, key, past=past)
    own = query[:, None, :, None] == key[:, None, None, :]
    return mask & own


def boolean(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What eager attention would be given if the mask were not turned into numbers."""
    return mask.to(dtype)


@pytest.fixture
def breaks(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], None]:
    return lambda name, broken: monkeypatch.setattr(stitch_model, name, broken)


@pytest.mark.parametrize(
    ("attention", "name", "broken"),
    [
        ("sdpa", "attention_mask", leak),
        ("eager", "attention_mask", leak),
        ("sdpa", "attention_mask", off_by_one),
        ("sdpa", "attention_mask", no_prefix),
        ("eager", "additive", boolean),
    ],
)
def test_a_wrong_mask_is_noticed(
    attention: str,
    name: str,
    broken: Any,
    breaks: Callable[[str, Any], None],
    rows: list[Row],
    prompt: PromptBuilder,
) -> None:
    """Fault: a boolean 4-D mask under eager attention is added as numbers."""
    model = build(attention=attention)
    alone = outcome(model, lambda p: separate_nats(model, rows, p), blind=False)
    breaks(name, broken)
    assert gap(outcome(model, lambda p: packed_nats(model, rows, p, prompt), blind=False), alone) > 0.01


def _running(packed: Packed) -> Packed:
    return replace(packed, positions=torch.arange(packed.positions.shape[1]).expand_as(packed.positions))


def _one_late(packed: Packed) -> Packed:
    return replace(packed, positions=packed.positions + (packed.segments > 0))


def _one_segment(packed: Packed) -> Packed:
    return replace(packed, segments=packed.segments.clamp(max=1))


@pytest.mark.parametrize("broken", [_running, _one_late, _one_segment])
def test_wrong_positions_or_segments_are_noticed(
    broken: Callable[[Packed], Packed], rows: list[Row], prompt: PromptBuilder
) -> None:
    """Fault: positions that go on over the turns before, without a word."""
    model, patches = build(), tiny_patches(3)
    packed = pack(rows, head_ids=prompt.head_ids, pad_id=min(prompt.stop_ids))
    right, _ = model(packed, model.project(patches))
    wrong, _ = model(broken(packed), model.project(patches))
    assert float((right - wrong).detach().abs().max()) > 0.01


# No leak.


def second_turn(model: StitchModel, rows: list[Row], patches: Tensor | None, prompt: PromptBuilder) -> Tensor:
    """Logits at the supervised positions of the second turn of the first row."""
    packed = pack(rows, head_ids=prompt.head_ids, pad_id=min(prompt.stop_ids))
    spliced = model.splice(visual_of(model, patches), packed)
    columns = ((packed.labels[0] != IGNORE) & (packed.segments[0] == 2)).nonzero()[:, 0]
    with torch.no_grad():
        return model.decode(spliced, torch.zeros_like(columns), columns - 1 + spliced.image_tokens)


@pytest.mark.parametrize("blind", [True, False])
def test_no_leak_between_turns(blind: bool, prompt: PromptBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: turns packed as a conversation, so that a blind model reads earlier answers."""
    model = build(blind=blind).eval()
    patches = None if blind else tiny_patches(1)
    asked = prompt.turn("b", "What colour?", "gray")
    rows = [
        [Row(0, (prompt.turn("a", question, answer), asked))]
        for question, answer in (
            ("What colour?", "gray"),
            ("What colour?", "purple and five"),
            ("How many", "5"),
        )
    ]
    first, *others = (second_turn(model, r, patches, prompt) for r in rows)
    for other in others:
        torch.testing.assert_close(first, other, atol=1e-5, rtol=0)

    monkeypatch.setattr(stitch_model, "attention_mask", leak)
    first, other = (second_turn(model, r, patches, prompt) for r in rows[:2])
    assert float((first - other).abs().max()) > 0.01, "this test could not see a leak"

"""The head where there is a label and nowhere else, and nothing computed for frozen weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sutura.core.errors import UserError
from sutura.stitch.language import LlmConfig, add_adapter
from sutura.stitch.model import StitchModel, describe_parts, head_at
from sutura.stitch.pack import IGNORE, Packed, Row, attention_mask, pack
from sutura.stitch.prompt import PromptBuilder
from tiny_models import (
    KINDS,
    WIDTH,
    awaken,
    learn_rows,
    tiny_lm,
    tiny_patches,
    tiny_projector,
    tiny_tokenizer,
)


def build(kind: str = "qwen2", train: str = "lora") -> StitchModel:
    lm = add_adapter(tiny_lm(kind), LlmConfig(train=train, rank=4, dropout=0.0), seed=0)  # type: ignore[arg-type]
    return StitchModel(awaken(lm), tiny_projector()).eval()


def packed_rows(prompt: PromptBuilder, rows: list[Row] | None = None) -> Packed:
    return pack(rows or learn_rows(prompt), head_ids=prompt.head_ids, pad_id=min(prompt.stop_ids))


def full_logit_nats(model: StitchModel, packed: Packed, visual: Tensor) -> Tensor:
    """The slow way: logits everywhere, labels shifted by one."""
    spliced = model.splice(visual, packed)
    mask = attention_mask(spliced.segments, spliced.segments)
    if model.eager:
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    logits = model.lm(
        inputs_embeds=spliced.embeddings, attention_mask=mask, position_ids=spliced.positions, use_cache=False
    ).logits
    labels = F.pad(packed.labels, (spliced.image_tokens, 0), value=IGNORE)
    losses = F.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), reduction="none", ignore_index=IGNORE
    )
    return losses[labels[:, 1:].flatten() != IGNORE]


def gradients(model: StitchModel, nats: Tensor) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    nats.sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("train", ["lora", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_answer_only_head_equals_full_logits(kind: str, train: str, prompt: PromptBuilder) -> None:
    """Losses and gradients; gemma2's soft cap of the logits (2 here, so that it bites) included."""
    model, packed, patches = build(kind, train), packed_rows(prompt), tiny_patches(3)
    fast, _ = model(packed, model.project(patches))
    slow = full_logit_nats(model, packed, model.project(patches))
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-5)
    ours, theirs = gradients(model, fast), gradients(model, slow)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=2e-5, rtol=1e-4, msg=name)


def test_the_soft_cap_is_kept(prompt: PromptBuilder) -> None:
    model, packed = build("gemma2"), packed_rows(prompt)
    spliced = model.splice(model.project(tiny_patches(3)), packed)
    rows, columns = (packed.labels != IGNORE).nonzero(as_tuple=True)
    logits = model.decode(spliced, rows, columns)
    assert 1.0 < float(logits.detach().abs().max()) <= 2.0


def test_the_head_runs_on_supervised_positions_only(prompt: PromptBuilder) -> None:
    """Fault: full-vocabulary logits on every position."""
    model, packed = build(), packed_rows(prompt)
    seen: list[int] = []
    head = model.lm.get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].numel() // WIDTH))
    model(packed, model.project(tiny_patches(3)))
    assert seen == [packed.supervised]
    assert packed.supervised < packed.input_ids.numel() / 4


def test_head_at_cleans_up_even_after_an_error() -> None:
    lm = tiny_lm()
    head = lm.get_output_embeddings()
    with pytest.raises(RuntimeError, match="planted"), head_at(lm, torch.tensor([0]), torch.tensor([0])):
        raise RuntimeError("planted")
    assert not head._forward_hooks
    assert not head._forward_pre_hooks
    assert lm(input_ids=torch.tensor([[5, 6, 7]])).logits.shape[:2] == (1, 3)


def leaves(nats: Tensor) -> set[int]:
    """Ids of the tensors into which a backward pass would accumulate."""
    found: set[int] = set()
    seen: set[Any] = set()
    stack = [nats.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        stack += [below for below, _ in node.next_functions]
    return found


@pytest.mark.parametrize("train", ["none", "lora", "full"])
def test_frozen_weights_get_no_gradient(train: str, prompt: PromptBuilder) -> None:
    """Neither in `.grad` nor anywhere in the graph."""
    model = build(train=train)
    nats, _ = model(packed_rows(prompt), model.project(tiny_patches(3)))
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    assert leaves(nats) == trainable
    nats.sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    if train == "none":
        assert trained == {n for n in trained if n.startswith("projector.")}
    if train == "lora":
        assert all("lora_" in n or n.startswith("projector.") for n in trained)
        assert any("lora_" in n for n in trained)
    if train == "full":
        assert trained == {n for n, _ in model.named_parameters()}


def test_describe_parts_counts_what_trains() -> None:
    model = build()
    frozen = sum(p.numel() for p in model.lm.parameters() if not p.requires_grad)
    lora = 2 * (4 * (WIDTH + WIDTH) + 4 * (WIDTH + 8))
    projector = sum(p.numel() for p in model.projector.parameters())  # type: ignore[union-attr]
    assert describe_parts(model) == [("projector", 0, projector), ("language model", frozen, lora)]


def test_a_batch_without_a_supervised_token_is_an_error(prompt: PromptBuilder) -> None:
    """Fault: the whole answer cut away, the loss silently 0 or NaN."""
    model = build()
    packed = packed_rows(prompt, [Row(0, (prompt.turn("a", "How many?"),))])
    with pytest.raises(UserError, match="no supervised token"):
        model(packed, model.project(tiny_patches(1)))


def test_places_name_row_and_segment(prompt: PromptBuilder) -> None:
    model, rows = build(), learn_rows(prompt)
    nats, places = model(packed_rows(prompt, rows), model.project(tiny_patches(3)))
    counted = {
        (r, t + 1): len(turn.answer_ids) for r, row in enumerate(rows) for t, turn in enumerate(row.turns)
    }
    assert len(nats) == sum(counted.values())
    for (row, segment), count in counted.items():
        assert int((places == torch.tensor([row, segment])).all(dim=1).sum()) == count


def test_a_blind_model_takes_no_patches() -> None:
    with pytest.raises(UserError, match="blind"):
        StitchModel(tiny_lm(), None).project(tiny_patches(1))


def test_pixels_need_an_encoder() -> None:
    with pytest.raises(UserError, match="without its encoder"):
        build().encode(torch.zeros(1, 3, 8, 8))


def test_patches_of_half_precision_are_projected_in_float32() -> None:
    assert build().project(tiny_patches(1).half()).dtype == torch.float32


def sliding(**changes: Any) -> nn.Module:
    """A Mistral whose layers see a window of 24 tokens."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "mistral",
        vocab_size=len(tiny_tokenizer()),
        hidden_size=WIDTH,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        **changes,
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


def test_rows_longer_than_a_sliding_window_are_refused(prompt: PromptBuilder) -> None:
    packed = packed_rows(prompt)
    assert packed.input_ids.shape[1] > 24
    StitchModel(sliding(sliding_window=None), None)(packed, None)
    with pytest.raises(UserError, match="sliding window of 24"):
        StitchModel(sliding(sliding_window=24), None)(packed, None)

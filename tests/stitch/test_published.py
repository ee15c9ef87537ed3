"""The switches that repeat an earlier study: its text, its minimum of new tokens, its trained weights in bfloat16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import sutura.encoders
from sutura.encoders.config import EncoderConfig
from sutura.stitch.bundle import StitchConfig, build_stitch, load_stitch
from sutura.stitch.generate import generate
from sutura.stitch.language import LlmConfig, add_adapter
from sutura.stitch.model import StitchModel
from sutura.stitch.pack import Row
from sutura.stitch.prompt import PromptBuilder, PromptConfig
from sutura.stitch.sampling import Sampling
from sutura.train.optim import trainable_parameters
from tiny_models import (
    TinyEncoder,
    awaken,
    save_language_model,
    tiny_lm,
    tiny_patches,
    tiny_projector,
    tiny_tokenizer,
)


def test_the_published_text() -> None:
    """`<image>` and the question as ordinary text, the answer right behind it, the end of sequence."""
    tokenizer = tiny_tokenizer()  # with a chat template, which is passed over
    prompt = PromptBuilder(tokenizer, PromptConfig(template="published"))
    turn = prompt.turn("a", "How many?", "two")
    assert tokenizer.decode(turn.prompt_ids) == "<image>\nHow many?"
    assert tokenizer.decode(turn.answer_ids) == "two<|end|>"
    plain = tokenizer("<image>\nHow many?", add_special_tokens=False)["input_ids"]
    assert list(turn.prompt_ids) == plain
    assert turn.answer_ids[-1] == tokenizer.eos_token_id
    assert prompt.fingerprint() != PromptBuilder(tokenizer).fingerprint()


@pytest.mark.parametrize("minimum", [0, 1, 3, 5])
def test_no_stop_before_the_minimum(minimum: int, prompt: PromptBuilder) -> None:
    """A model that would stop at once says so many tokens first, and none of them is a stop token."""
    lm = awaken(add_adapter(tiny_lm(seed=1), LlmConfig(rank=4), seed=0))
    model = StitchModel(lm, tiny_projector()).eval()
    head = model.lm.get_output_embeddings()
    stops = sorted(prompt.stop_ids)

    def insist(module: object, given: object, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill(-1, torch.tensor(stops), 1e4)

    handle = head.register_forward_hook(insist)
    rows = [Row(0, (prompt.turn("a", "How many?"), prompt.turn("b", "What?")))]
    visual = model.project(tiny_patches(1))
    found = generate(model, prompt, rows, visual, max_new_tokens=8, min_new_tokens=minimum)
    handle.remove()
    assert [answer.tokens for answer in found] == [minimum + 1] * 2
    assert all(answer.stopped for answer in found)


def test_a_minimum_beside_an_end_that_is_no_token_of_the_tokenizer() -> None:
    """Fault: a generation config names an end beyond the tokenizer's vocabulary, and decoding ends in an IndexError."""
    plain = tiny_tokenizer()
    prompt = PromptBuilder(plain, extra_stop_ids=(PromptBuilder(plain).vocabulary + 3,))
    model = StitchModel(
        awaken(add_adapter(tiny_lm(seed=1), LlmConfig(rank=4), seed=0)), tiny_projector()
    ).eval()
    rows = [Row(0, (prompt.turn("a", "How many?"),))]
    drawn = Sampling(temperature=1.0, seed=3)
    visual = model.project(tiny_patches(1))
    (found,) = generate(model, prompt, rows, visual, max_new_tokens=4, min_new_tokens=3, sampling=drawn)
    assert found.tokens >= 3


def test_weights_trained_in_bfloat16_are_brought_to_it_only_when_told() -> None:
    model = StitchModel(add_adapter(tiny_lm(), LlmConfig(rank=4), seed=0), tiny_projector())
    assert {p.dtype for p in trainable_parameters(model).values()} == {torch.float32}
    before = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = trainable_parameters(model, "bfloat16")
    assert found.keys() == before.keys()
    assert all(found[name] is before[name] for name in before)  # peft and the model hold the same weights
    assert {p.dtype for p in found.values()} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.float32}


def test_a_stitch_trained_in_bfloat16_is_loaded_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sutura.encoders, "load_encoder", lambda config: TinyEncoder(0), raising=False)
    parts = StitchConfig(
        encoder=EncoderConfig(id="tiny:0"),
        llm=LlmConfig(id=save_language_model(tmp_path / "lm"), rank=4, dtype="bfloat16"),
    )
    encoder = TinyEncoder(0)
    stitch = build_stitch(parts, encoder.facts())
    awaken(stitch.model)
    trainable_parameters(stitch.model, "bfloat16")
    stitch.attach(encoder)  # type: ignore[arg-type]
    picture = Image.frombytes("RGB", (8, 8), bytes((i * 37) % 256 for i in range(192)))
    before = stitch.ask(picture, "How many?", max_new_tokens=6)
    stitch.save(tmp_path / "stitch")
    again = load_stitch(tmp_path / "stitch", device="cpu")
    ours, theirs = stitch.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(ours[n], theirs[n]) and ours[n].dtype == theirs[n].dtype for n in ours)
    assert again.ask(picture, "How many?", max_new_tokens=6) == before

"""The last layers of a causal language model with the mask off, and texts as vectors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint_tensors
from sutura.core.runtime import generator
from sutura.stitch.bidirectional import LastLayers, load_text_vectors
from tiny_models import WIDTH, save_language_model, tiny_lm

TOKENS = torch.randn(2, 6, WIDTH, generator=generator(1, "tokens"))
REAL = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
ALL = torch.ones(2, 6, dtype=torch.bool)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
def test_a_later_token_changes_an_earlier_ones_output(kind: str) -> None:
    """Fault: the causal mask stays on, and visual tokens never see the query."""
    lm = tiny_lm(kind)
    trunk = LastLayers(lm, 2)
    later = TOKENS.clone()
    later[:, 5] += 1.0
    with torch.no_grad():
        assert not torch.allclose(trunk(TOKENS, ALL)[:, 0], trunk(later, ALL)[:, 0])
        before, after = (lm.model(inputs_embeds=x).last_hidden_state[:, 0] for x in (TOKENS, later))
    torch.testing.assert_close(before, after)  # the model it was cut from is causal


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padding_changes_nothing(kind: str, attention: str) -> None:
    trunk = LastLayers(tiny_lm(kind, attention=attention), 2)
    wild = TOKENS.clone()
    wild[1, 4:] = 7.0
    with torch.no_grad():
        first, second = trunk(TOKENS, REAL), trunk(wild, REAL)
        alone = trunk(TOKENS[1:, :4], ALL[1:, :4])
    torch.testing.assert_close(first[REAL], second[REAL])
    torch.testing.assert_close(first[1:, :4], alone)
    with torch.no_grad():  # unmasked padding would be seen
        assert not torch.allclose(trunk(TOKENS, ALL)[1, :4], trunk(wild, ALL)[1, :4])


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
def test_the_last_layers_are_those_of_the_whole_model(kind: str) -> None:
    """The whole model without its causal mask, read before its last layer, goes on as the trunk does."""
    lm = tiny_lm(kind)
    open_mask = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    with torch.no_grad():
        whole = lm.model(inputs_embeds=TOKENS, attention_mask=open_mask, output_hidden_states=True)
        ours = LastLayers(lm, 1)(whole.hidden_states[1], ALL)
    torch.testing.assert_close(ours, whole.last_hidden_state)


def test_eager_and_sdpa_agree() -> None:
    with torch.no_grad():
        found = [LastLayers(tiny_lm(attention=name), 2)(TOKENS, REAL)[REAL] for name in ("sdpa", "eager")]
    torch.testing.assert_close(found[0], found[1])


def test_the_language_model_keeps_its_layers_and_bits() -> None:
    lm = tiny_lm()
    before = fingerprint_tensors(lm.state_dict())
    trunk = LastLayers(lm, 1)
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.add_(1.0)
    assert fingerprint_tensors(lm.state_dict()) == before
    assert len(lm.model.layers) == lm.config.num_hidden_layers == 2
    assert not any(p.requires_grad for p in lm.parameters())
    assert all(p.requires_grad for p in trunk.parameters())
    assert not any("embed" in name for name, _ in trunk.named_parameters())


def test_redrawn_layers_know_nothing_of_the_model() -> None:
    trunk, again = LastLayers(tiny_lm(), 2), LastLayers(tiny_lm(seed=5), 2)
    trunk.redraw(generator(0, "trunk"))
    again.redraw(generator(0, "trunk"))
    assert fingerprint_tensors(trunk.state_dict()) == fingerprint_tensors(again.state_dict())
    assert torch.equal(trunk.base.norm.weight.detach(), torch.ones(WIDTH))


def test_what_cannot_be_a_trunk_is_refused() -> None:
    with pytest.raises(UserError, match="this one is 'gemma2'"):
        LastLayers(tiny_lm("gemma2"), 1)
    with pytest.raises(UserError, match=r"layers=3: the language model has 1 to 2 layers"):
        LastLayers(tiny_lm(), 3)


def test_texts_are_means_over_their_own_tokens(tmp_path: Path) -> None:
    vectors, tokenizer = load_text_vectors(save_language_model(tmp_path), "tiny")
    ids = torch.tensor([[7, 8, 9, 3], [4, 5, 3, 3]])
    real = torch.tensor([[True] * 4, [True, True, False, False]])
    with torch.no_grad():
        both = vectors(ids, real)
        alone = vectors(ids[1:, :2], real[1:, :2])
        by_hand = tiny_lm().model(ids[:1]).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(both[1:], alone)
    torch.testing.assert_close(both[:1], by_hand)
    assert tokenizer.pad_token_id is not None
    assert all(p.requires_grad for p in vectors.parameters())


def test_short_texts_beside_long_ones_are_what_they_are_alone(tmp_path: Path) -> None:
    """The fast path (texts of like length together) equals one text at a time, gradients too."""
    vectors, _ = load_text_vectors(save_language_model(tmp_path), "tiny")
    lengths = (1, 12, 3, 2, 9, 1, 4)
    ids = torch.arange(7 * 12).view(7, 12) % 300
    real = torch.arange(12)[None, :] < torch.tensor(lengths)[:, None]
    weight = torch.randn(7, WIDTH, generator=generator(0, "weight"))
    together = vectors(ids, real)
    alone = torch.cat([vectors(ids[i : i + 1, :n], real[i : i + 1, :n]) for i, n in enumerate(lengths)])
    torch.testing.assert_close(together, alone)
    table = vectors.model.get_input_embeddings().weight
    found = [torch.autograd.grad((x * weight).sum(), table)[0] for x in (together, alone)]
    torch.testing.assert_close(found[0], found[1])


def test_a_text_encoder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Text encoder 'mine' could not be loaded"):
        load_text_vectors(str(tmp_path), "mine")

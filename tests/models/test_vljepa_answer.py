"""The answer form's forward pass, on parts that are none of a language model's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sutura.core.runtime import seed_everything
from sutura.models.vljepa_answer import AnswerVLJEPA, mean_of_real


class Mixer(nn.Module):
    """Every token sees the mean of all real ones."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, tokens: Tensor, real: Tensor) -> Tensor:
        return torch.tanh(self.linear(tokens + mean_of_real(tokens, real)[:, None]))


class Bag(nn.Module):
    """Texts as the mean of their words."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)

    def forward(self, ids: Tensor, real: Tensor) -> Tensor:
        return mean_of_real(self.words(ids), real)


def build(*, blind: bool = False, dims: tuple[int, int] = (5, 5), **more: Any) -> AnswerVLJEPA:
    seed_everything(0, "answer model")
    heads = nn.Linear(8, dims[0]), nn.Linear(6, dims[1])
    projector = None if blind else nn.Linear(7, 8)
    return AnswerVLJEPA(projector, nn.Embedding(20, 8), Mixer(8), heads[0], Bag(20, 6), heads[1], **more)


FEATURES = torch.linspace(-1, 1, 2 * 3 * 7).view(2, 3, 7)
QUERY = torch.tensor([[3, 4, 5, 0], [6, 7, 8, 9]])
REAL = torch.tensor([[True, True, True, False], [True] * 4])


def test_it_is_the_papers_figure_written_out() -> None:
    model = build()
    predicted, out = model.predict(FEATURES, QUERY, REAL)
    for row, length in enumerate((3, 4)):
        tokens = torch.cat([model.projector(FEATURES[row]), model.query_embed(QUERY[row, :length])])[None]  # type: ignore[misc]
        hidden = model.trunk(tokens, torch.ones(1, 3 + length, dtype=torch.bool))
        torch.testing.assert_close(predicted[row], model.head(hidden.mean(dim=1))[0])
    assert out["visual"].shape == (2, 3, 8)
    assert out["hidden"].shape == (2, 7, 8)
    assert predicted.shape == (2, model.dim)


def test_padding_changes_nothing() -> None:
    model = build()
    before, _ = model.predict(FEATURES, QUERY, REAL)
    other = QUERY.clone()
    other[0, 3] = 17
    after, _ = model.predict(FEATURES, other, REAL)
    torch.testing.assert_close(before, after, rtol=0, atol=0)
    # The fault: a plain mean over the row is moved by what stands in padding.
    hidden = torch.randn(2, 4, 3)
    wild = torch.where(REAL[..., None], hidden, 1e6)
    torch.testing.assert_close(mean_of_real(hidden, REAL), mean_of_real(wild, REAL), rtol=0, atol=0)
    assert not torch.allclose(hidden.mean(dim=1), wild.mean(dim=1))
    texts = model.encode_text(QUERY, REAL)
    torch.testing.assert_close(texts[:1], model.encode_text(QUERY[:1, :3], REAL[:1, :3]))


def test_picture_and_query_both_matter() -> None:
    model = build()
    before, _ = model.predict(FEATURES, QUERY, REAL)
    assert not torch.allclose(before, model.predict(FEATURES.flip(0), QUERY, REAL)[0])
    assert not torch.allclose(before, model.predict(FEATURES, QUERY.flip(0), REAL)[0])


def test_a_blind_model_takes_no_features() -> None:
    blind = build(blind=True)
    assert blind.predict(None, QUERY, REAL)[0].shape == (2, 5)
    with pytest.raises(ValueError, match="takes no features"):
        blind.predict(FEATURES, QUERY, REAL)
    with pytest.raises(ValueError, match="needs the picture's features"):
        build().predict(None, QUERY, REAL)


def test_heads_that_end_in_different_spaces_are_refused() -> None:
    with pytest.raises(ValueError, match="ends in 5 channels and the text's in 4"):
        build(dims=(5, 4))


def test_the_scale_is_held() -> None:
    model = build(log_scale=math.log(1000.0))
    model.clamp_log_scale()
    assert model.log_scale.exp().item() == pytest.approx(100.0)
    assert model.bias is None
    assert build(bias=-10.0).bias is not None

"""The conditioned predictor: places, captions, and what is not to be seen."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sutura.core.runtime import generator
from sutura.models.vit import ViT
from sutura.models.vljepa_conditioned import TextConditionedPredictor, VLJEPAConditioned, last_blocks
from sutura.nn.block import initialise

GRID, PATCH, TEXT, TARGET = (4, 4), 12, 10, 14


def predictor(seed: int = 0) -> TextConditionedPredictor:
    made = TextConditionedPredictor(GRID, PATCH, TEXT, TARGET, width=16, depth=2, heads=2)
    initialise(made, generator(seed, "predictor"))
    return made.eval()


def vit(prefix: bool = True) -> ViT:
    made = ViT(32, 8, PATCH, depth=3, heads=2, cls=prefix)
    initialise(made, generator(1, "vit"))
    return made


def given(batch: int = 2, length: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Seen patches, their places, the places asked for, a caption's tokens, and where they are padding."""
    draw = generator(2, "given")
    order = torch.stack([torch.randperm(16, generator=draw) for _ in range(batch)])
    text = torch.randn(batch, length, TEXT, generator=draw)
    padding = torch.zeros(batch, length, dtype=torch.bool)
    padding[0, 3:] = True
    return torch.randn(batch, 6, PATCH, generator=draw), order[:, :6], order[:, 6:], text, padding


@torch.no_grad()
def test_predictions_at_two_places_differ_and_positions_are_why() -> None:
    model, (seen, keep, asked, text, padding) = predictor(), given()
    told = model(seen, keep, asked, text, padding)
    assert told.shape == (2, 10, TARGET)
    assert torch.pdist(told[0]).min() > 1e-3
    model.positions.zero_()  # the fault: mask tokens without positions
    told = model(seen, keep, asked, text, padding)
    assert torch.pdist(told[0]).max() < 1e-5


@torch.no_grad()
def test_permuting_the_places_asked_for_permutes_the_predictions() -> None:
    model, (seen, keep, asked, text, padding) = predictor(), given()
    order = torch.randperm(10, generator=generator(3, "order"))
    told = model(seen, keep, asked, text, padding)
    assert torch.allclose(model(seen, keep, asked[:, order], text, padding), told[:, order], atol=1e-5)


@torch.no_grad()
def test_a_seen_patch_counts_with_its_place_not_with_its_order() -> None:
    model, (seen, keep, asked, text, padding) = predictor(), given()
    told = model(seen, keep, asked, text, padding)
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    assert torch.allclose(model(seen[:, order], keep[:, order], asked, text, padding), told, atol=1e-5)
    assert not torch.allclose(model(seen[:, order], keep, asked, text, padding), told, atol=1e-3)


@torch.no_grad()
def test_every_token_of_the_caption_counts_and_padding_does_not() -> None:
    model, (seen, keep, asked, text, padding) = predictor(), given()
    told = model(seen, keep, asked, text, padding)
    for token in range(5):
        changed = text.clone()
        changed[:, token] = -changed[:, token].flip(-1)
        new = model(seen, keep, asked, changed, padding)
        moved = (new - told).abs().amax(dim=(1, 2)) > 1e-6
        assert moved.tolist() == [token < 3, True]


@torch.no_grad()
def test_no_caption_is_the_same_as_padding_only() -> None:
    model, (seen, keep, asked, text, _) = predictor(), given()
    everything = torch.ones(2, 5, dtype=torch.bool)
    bare = model(seen, keep, asked)
    assert torch.allclose(model(seen, keep, asked, text, everything), bare, atol=1e-5)
    assert torch.allclose(model(seen, keep, asked, text[:, :0], everything[:, :0]), bare, atol=1e-5)
    assert not torch.allclose(model(seen, keep, asked, text, ~everything), bare, atol=1e-3)


def test_text_without_its_padding_is_refused() -> None:
    seen, keep, asked, text, _ = given()
    with pytest.raises(ValueError, match="padding"):
        predictor()(seen, keep, asked, text)


@torch.no_grad()
def test_hidden_patches_are_not_seen() -> None:
    _, keep, asked, text, padding = given()
    model = VLJEPAConditioned(vit().requires_grad_(False), predictor()).eval()
    pixels = torch.randn(2, 3, 32, 32, generator=generator(4, "pixels"))
    told = model(pixels, keep, asked, text, padding)
    other = pixels.clone()
    for row in range(2):
        for patch in asked[row].tolist():
            y, x = divmod(patch, 4)
            other[row, :, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = 7.0
    assert torch.equal(model(other, keep, asked, text, padding), told)
    assert not torch.equal(model(other.flip(0), keep, asked, text, padding), told)


def test_a_frozen_encoder_gets_no_gradient_and_its_moving_average_is_refused() -> None:
    _, keep, asked, text, padding = given()
    model = VLJEPAConditioned(vit().requires_grad_(False), predictor())
    model(torch.randn(2, 3, 32, 32), keep, asked, text, padding).square().mean().backward()
    assert all(p.grad is None for p in model.online.parameters())
    assert all(p.grad is not None for p in model.predictor.parameters())
    with pytest.raises(ValueError, match="frozen encoder is that encoder for ever"):
        VLJEPAConditioned(vit().requires_grad_(False), predictor(), moving=True)


def test_a_moving_target_has_no_gradient_and_begins_as_the_online_encoder() -> None:
    _, keep, asked, text, padding = given()
    model = VLJEPAConditioned(vit(), predictor(), moving=True)
    pixels = torch.randn(2, 3, 32, 32)
    wanted = model.targets(pixels)
    assert not wanted.requires_grad
    assert torch.equal(wanted, model.online(pixels)[1]["normed"])
    (model(pixels, keep, asked, text, padding).mean() + wanted.mean()).backward()
    assert model.target is not None
    assert all(p.grad is None and not p.requires_grad for p in model.target.parameters())
    assert all(p.grad is not None for p in model.online.parameters())


@torch.no_grad()
def test_the_last_blocks_are_normalised_before_they_are_averaged() -> None:
    encoder, pixels = vit(), torch.randn(2, 3, 32, 32)
    out = encoder(pixels)[1]
    assert torch.equal(last_blocks(encoder, pixels, 1), out["normed"])
    patches = [F.layer_norm(out[f"block_{i}"][:, 1:], (PATCH,)) for i in (1, 2)]
    assert torch.allclose(last_blocks(encoder, pixels, 2), (patches[0] + patches[1]) / 2, atol=1e-6)
    with pytest.raises(ValueError, match="1 to 3"):
        last_blocks(encoder, pixels, 4)

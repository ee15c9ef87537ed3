"""Projectors that hand on fewer tokens: their shapes, their gradients, and a stitch with them saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import sutura.encoders
from sutura.core.errors import UserError
from sutura.encoders.config import EncoderConfig
from sutura.stitch.bundle import StitchConfig, build_stitch, load_stitch
from sutura.stitch.compress import space_to_depth
from sutura.stitch.language import LlmConfig
from sutura.stitch.projector import ProjectorConfig, build_projector
from tiny_models import TinyEncoder, awaken, save_language_model

CASES = [
    ({"kind": "pixel-shuffle", "factor": 2}, 36, 9),
    ({"kind": "pixel-shuffle", "factor": 3}, 36, 4),
    ({"kind": "pixel-shuffle", "factor": 1}, 4, 4),
    ({"kind": "resampler", "queries": 5, "heads": 2}, 36, 5),
    ({"kind": "resampler", "queries": 7, "heads": 4}, 6, 7),
]


@pytest.mark.parametrize(("config", "patches", "tokens"), CASES)
def test_shapes_and_gradients(config: dict[str, Any], patches: int, tokens: int) -> None:
    """As many tokens as the config says, and every weight and every patch has a part in them."""
    settings = ProjectorConfig(**config)
    projector = build_projector(settings, 12, 16, seed=0)
    given = torch.randn(3, patches, 12, requires_grad=True)
    made = projector(given)
    assert made.shape == (3, tokens, 16)
    assert settings.tokens(patches) == tokens
    (made * torch.randn(made.shape)).sum().backward()
    assert given.grad is not None
    assert bool((given.grad.abs().sum(dim=2) > 0).all())
    for name, parameter in projector.named_parameters():
        assert parameter.dtype == torch.float32
        if name != "key.bias":  # adds the same to every score of a query, which a softmax takes away
            assert parameter.grad is not None
            assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize(("config", "patches", "tokens"), CASES)
def test_first_weights_depend_on_the_seed_alone(config: dict[str, Any], patches: int, tokens: int) -> None:
    torch.manual_seed(1)
    a = build_projector(ProjectorConfig(**config), 12, 16, seed=3).state_dict()
    torch.manual_seed(2)
    b, other = (build_projector(ProjectorConfig(**config), 12, 16, seed=s).state_dict() for s in (3, 4))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], other[name]) for name in a)


def test_neighbours_become_one_token() -> None:
    """A 4 × 4 grid whose patches are their own numbers: each token holds a 2 × 2 square, row by row."""
    grid = torch.arange(16.0).reshape(1, 16, 1)
    assert space_to_depth(grid, 2)[0].tolist() == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
        [8, 9, 12, 13],
        [10, 11, 14, 15],
    ]
    shuffled = torch.nn.functional.pixel_unshuffle(grid.reshape(1, 1, 4, 4), 2)  # 1 4 2 2
    assert torch.equal(space_to_depth(grid, 2)[0], shuffled.flatten(2)[0].T)


def test_a_query_knows_where_a_patch_stands() -> None:
    """Without positions cross-attention could not tell a picture from its mirror."""
    projector = build_projector(ProjectorConfig(kind="resampler", queries=3, heads=2), 12, 16, seed=0)
    patches = torch.randn(1, 16, 12)
    assert float((projector(patches) - projector(patches.flip(1))).detach().abs().max()) > 1e-4


def test_what_does_not_fit_is_told() -> None:
    shuffle = build_projector(ProjectorConfig(kind="pixel-shuffle", factor=2), 12, 16, seed=0)
    with pytest.raises(UserError, match=r"factor=2 .*25 patches are 5 × 5.*for example 16"):
        shuffle(torch.randn(1, 25, 12))
    with pytest.raises(UserError, match="12 patches are no square"):
        shuffle(torch.randn(1, 12, 12))
    with pytest.raises(UserError, match=r"heads=5 must divide the language model's width, 16"):
        build_projector(ProjectorConfig(kind="resampler", heads=5), 12, 16, seed=0)


@pytest.mark.parametrize(
    "config", [{"kind": "pixel-shuffle", "factor": 2}, {"kind": "resampler", "queries": 3, "heads": 2}]
)
def test_a_stitch_is_saved_and_loaded(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sutura.encoders, "load_encoder", lambda config: TinyEncoder(0), raising=False)
    encoder = TinyEncoder(0)
    parts = StitchConfig(
        encoder=EncoderConfig(id="tiny:0"),
        llm=LlmConfig(id=save_language_model(tmp_path / "lm"), rank=4),
        projector=ProjectorConfig(**config),
    )
    stitch = build_stitch(parts, encoder.facts())
    awaken(stitch.model)
    stitch.attach(encoder)  # type: ignore[arg-type]
    picture = Image.frombytes("RGB", (8, 8), bytes((i * 37) % 256 for i in range(192)))
    asked = [(picture, ["What colour is the cube?", "How many?"])]
    before = [answer.text for answer in stitch.ask_all(asked, max_new_tokens=6)]
    stitch.save(tmp_path / "stitch")
    again = load_stitch(tmp_path / "stitch", device="cpu")
    ours, theirs = stitch.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [answer.text for answer in again.ask_all(asked, max_new_tokens=6)] == before

"""Other people's ViTs in ours: equal to the library's, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sutura.core.errors import UserError
from sutura.encoders import load_encoder
from sutura.encoders.own_vit import AveragedTrunk, colours_of, own_vit, own_vit_outline
from tiny_encoders import MEAN, STD, build, save_timm, write_processor

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("kind", ["vit", "ijepa"])
@torch.no_grad()
def test_a_transformers_vit_gives_the_same_patches(
    kind: str, norm: bool, checkpoint: Callable[[str], Path], pixels: Tensor
) -> None:
    encoder = load_encoder(str(checkpoint(kind)), final_norm=norm)
    out = own_vit(encoder)(pixels)[1]["normed" if norm else "patches"]
    assert torch.allclose(out, encoder(pixels), atol=1e-4)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_base_patch14_reg4_dinov2"])
@torch.no_grad()
def test_a_timm_vit_gives_the_same_patches_or_is_refused(name: str, tmp_path: Path, pixels: Tensor) -> None:
    save_timm(tmp_path, name, **VIT)
    encoder = load_encoder(str(tmp_path), final_norm=True)
    if "dinov2" in name:  # its blocks have layer scales, which ours lack
        with pytest.raises(UserError, match="cannot leave patches out"):
            own_vit(encoder)
        return
    assert torch.allclose(own_vit(encoder)(pixels)[1]["normed"], encoder(pixels), atol=1e-4)


@torch.no_grad()
def test_patches_are_left_out_before_the_first_block(
    checkpoint: Callable[[str], Path], pixels: Tensor
) -> None:
    vit = own_vit(load_encoder(str(checkpoint("vit"))))
    seen: list[int] = []
    vit.blocks[0].register_forward_hook(lambda module, args, out: seen.append(args[0].shape[1]))
    vit(pixels, keep=torch.tensor([[0, 3, 5], [1, 2, 9]]))
    assert seen == [1 + 3]


def test_another_architecture_is_refused(checkpoint: Callable[[str], Path]) -> None:
    for kind in ("dinov2", "clip"):
        with pytest.raises(UserError, match="cannot leave patches out"):
            own_vit(load_encoder(str(checkpoint(kind))))


def test_a_wrong_activation_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault: weights that fit, in an architecture that computes something else."""
    build("vit").save_pretrained(tmp_path)
    write_processor(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_act": "quick_gelu"}))
    encoder = load_encoder(str(tmp_path))
    own_vit(encoder)
    encoder.trunk.model.config.hidden_act = "gelu"  # pyright: ignore
    with pytest.raises(UserError, match="other features than in its library"):
        own_vit(encoder)


def test_colours_are_the_transforms(checkpoint: Callable[[str], Path]) -> None:
    found = colours_of(load_encoder(str(checkpoint("vit"))))
    assert found.mean == pytest.approx(MEAN, abs=1e-5)
    assert found.std == pytest.approx(STD, abs=1e-5)


@torch.no_grad()
def test_averaged_blocks_come_as_a_map(checkpoint: Callable[[str], Path], pixels: Tensor) -> None:
    from sutura.models.vljepa_conditioned import last_blocks

    vit = own_vit(load_encoder(str(checkpoint("vit"))))
    told = AveragedTrunk(vit, 2, {"of": "x"})(pixels)
    assert told.shape == (2, 32, 4, 4)
    assert torch.equal(told.flatten(2).transpose(1, 2), last_blocks(vit, pixels, 2))


def test_an_activation_that_is_not_here_is_refused_in_a_sentence(checkpoint: Callable[[str], Path]) -> None:
    encoder = load_encoder(str(checkpoint("vit")))
    config = encoder.trunk.model.config  # pyright: ignore
    config.hidden_act = "gelu_pytorch_tanh"
    assert own_vit_outline(encoder).activation == "gelu_tanh"
    config.hidden_act = "silu"
    with pytest.raises(UserError, match="activation 'silu'"):
        own_vit_outline(encoder)


def test_timms_tanh_is_not_taken_for_the_exact_one(tmp_path: Path) -> None:
    """The difference is within what counts as rounding, so the comparison does not show it."""
    save_timm(tmp_path, "vit_tiny_patch16_224", act_layer="gelu_tanh", **VIT)
    assert own_vit(load_encoder(str(tmp_path), final_norm=True)).activation == "gelu_tanh"

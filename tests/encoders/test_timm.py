"""timm models against timm's own features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from sutura.core.errors import UserError
from sutura.encoders import load_encoder
from tiny_encoders import save_timm

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
#: architecture, arguments, prefix tokens
CASES = [
    ("vit_tiny_patch16_224", VIT, 1),
    ("vit_base_patch14_reg4_dinov2", {**VIT, "img_size": 32, "patch_size": 8}, 5),
    ("vit_base_patch16_siglip_224", VIT, 0),
    ("eva02_tiny_patch14_224", {**VIT, "embed_dim": 48, "num_heads": 3}, 1),
]


@pytest.mark.parametrize(("name", "arguments", "prefix"), CASES)
@torch.no_grad()
def test_patches_equal_a_block_run_by_hand(
    name: str, arguments: dict[str, Any], prefix: int, tmp_path: Path, pixels: torch.Tensor
) -> None:
    """The reference is a hook on timm's block, which knows nothing of forward_intermediates."""
    model = save_timm(tmp_path, name, **arguments)
    kept: dict[int, torch.Tensor] = {}
    for i, block in enumerate(model.blocks):
        block.register_forward_hook(lambda module, given, output, i=i: kept.update({i: output}))
    model(pixels)
    for layer in (-1, -2, 0):
        encoder = load_encoder(str(tmp_path), layer=layer)
        assert encoder.num_prefix_tokens == prefix
        torch.testing.assert_close(encoder(pixels), kept[layer % 3][:, prefix:], atol=1e-5, rtol=1e-5)
    if isinstance(model.norm, torch.nn.Identity):  # pools first and normalises the mean
        with pytest.raises(UserError, match="no norm over its patches"):
            load_encoder(str(tmp_path), final_norm=True)
    else:
        normed = load_encoder(str(tmp_path), final_norm=True)(pixels)
        torch.testing.assert_close(normed, model.norm(kept[2])[:, prefix:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_conv_net_is_a_grid(tmp_path: Path, pixels: torch.Tensor) -> None:
    model = save_timm(tmp_path, "resnet10t")
    expected = model.forward_features(pixels)
    encoder = load_encoder(str(tmp_path))
    assert (encoder.grid, encoder.width) == (tuple(expected.shape[2:]), expected.shape[1])
    torch.testing.assert_close(encoder(pixels), expected.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)
    earlier = load_encoder(str(tmp_path), layer=-2, tokens=1)
    assert earlier.grid == (2, 2)
    assert earlier(pixels).shape == (2, 1, earlier.width)


@torch.no_grad()
def test_higher_resolution_by_timms_own_interpolation(tmp_path: Path) -> None:
    name, arguments, _ = CASES[0]
    model = save_timm(tmp_path, name, **arguments)
    pixels = torch.randn(1, 3, 48, 48)
    model.set_input_size(img_size=(48, 48))
    expected = model.forward_intermediates(pixels, indices=[2], output_fmt="NLC", intermediates_only=True)[0]
    encoder = load_encoder(str(tmp_path), image_size=48)
    assert encoder.grid == (6, 6)
    torch.testing.assert_close(encoder(pixels), expected, atol=1e-5, rtol=1e-5)


def test_the_transform_is_timms_own(tmp_path: Path, picture: Any) -> None:
    from timm.data import create_transform

    save_timm(tmp_path, CASES[0][0], **CASES[0][1])
    cfg = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    expected = create_transform(
        (3, 32, 32),
        mean=cfg["mean"],
        std=cfg["std"],
        interpolation="bicubic",
        crop_pct=1.0,
        crop_mode="center",
    )(picture)
    torch.testing.assert_close(load_encoder(str(tmp_path)).transform(picture), expected)


def test_constants_that_are_not_written_down_are_asked_for(tmp_path: Path) -> None:
    """Fault: wrong normalisation constants for an encoder. timm would take ImageNet's without a word."""
    save_timm(tmp_path, CASES[0][0], pretrained_cfg={"input_size": [3, 32, 32]}, **CASES[0][1])
    with pytest.raises(UserError, match="names no mean, std"):
        load_encoder(str(tmp_path))


def test_weights_that_do_not_fit_stop_the_program(tmp_path: Path) -> None:
    save_timm(tmp_path, CASES[0][0], **CASES[0][1])
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop("blocks.1.mlp.fc1.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="do not fit"):
        load_encoder(str(tmp_path))


def test_an_architecture_timm_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_tiny_patch16_225"}))
    with pytest.raises(UserError, match="vit_tiny_patch16_224"):
        load_encoder(str(tmp_path))


def test_save_for_hf_makes_a_folder_that_loads(tmp_path: Path, pixels: torch.Tensor) -> None:
    """timm's own way of saving, not our imitation of it."""
    from timm.models._hub import save_for_hf

    arguments = {**VIT, "num_classes": 0}
    model = timm.create_model("vit_tiny_patch16_224", **arguments).eval()
    save_for_hf(
        model,
        str(tmp_path),
        model_args={key: value for key, value in arguments.items() if key != "num_classes"},
        safe_serialization=True,
        data_config={
            "input_size": (3, 32, 32),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
        },
    )
    encoder = load_encoder(str(tmp_path))
    expected = model.forward_intermediates(pixels, indices=[2], output_fmt="NLC", intermediates_only=True)[0]
    torch.testing.assert_close(encoder(pixels), expected, atol=1e-5, rtol=1e-5)

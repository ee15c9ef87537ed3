"""open_clip's visual towers against open_clip's own models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sutura.core.errors import UserError
from sutura.encoders import load_encoder
from tiny_encoders import MEAN, STD, scramble

NATIVE = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 3, "head_width": 8}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8, "patch_size": None}
TIMM = {"image_size": 32, "timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "linear"}
TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}


def save(folder: Path, vision: dict[str, Any], **extra: Any) -> Any:
    """A whole CLIP in open_clip's folder format."""
    import open_clip

    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT, **extra}
    torch.manual_seed(0)
    model = open_clip.model.CLIP(**json.loads(json.dumps(config))).eval()
    scramble(model)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    written = {"model_cfg": config, "preprocess_cfg": {"mean": MEAN, "std": STD, "resize_mode": "squash"}}
    (folder / "open_clip_config.json").write_text(json.dumps(written))
    return model


@pytest.mark.parametrize("vision", [NATIVE, RESNET, TIMM], ids=["native", "resnet", "timm"])
@torch.no_grad()
def test_patches_equal_the_towers_own(vision: dict[str, Any], tmp_path: Path, pixels: torch.Tensor) -> None:
    model = save(tmp_path, vision)
    encoder = load_encoder(str(tmp_path))
    if vision is NATIVE:
        kept: list[torch.Tensor] = []
        model.visual.transformer.resblocks[-1].register_forward_hook(lambda m, a, out: kept.append(out))
        model.encode_image(pixels)
        expected = kept[0][:, 1:]
        assert encoder.num_prefix_tokens == 1
        normed = load_encoder(str(tmp_path), final_norm=True)(pixels)
        torch.testing.assert_close(normed, model.visual.ln_post(kept[0])[:, 1:], atol=1e-5, rtol=1e-5)
    else:
        kept = []
        last = model.visual.layer4 if vision is RESNET else model.visual.trunk.layer4
        last.register_forward_hook(lambda m, a, out: kept.append(out))
        model.encode_image(pixels)
        expected = kept[0].flatten(2).transpose(1, 2)
        assert encoder.num_prefix_tokens == 0
    torch.testing.assert_close(encoder(pixels), expected, atol=1e-4, rtol=1e-4)
    left_out = encoder.facts()["left_out"]
    assert left_out["text tower"] > 0
    count = sum(left_out.values()) + len(encoder.trunk.state_dict())
    assert count == len(load_file(tmp_path / "open_clip_model.safetensors"))


@torch.no_grad()
def test_quick_gelu_is_in_the_checkpoints_config(tmp_path: Path, pixels: torch.Tensor) -> None:
    """Fault: OpenAI's CLIP weights run with plain GELU where they were trained with QuickGELU."""
    model = save(tmp_path / "quick", NATIVE, quick_gelu=True)
    save(tmp_path / "plain", NATIVE)
    quick, plain = load_encoder(str(tmp_path / "quick")), load_encoder(str(tmp_path / "plain"))
    expected = model.visual.forward_intermediates(pixels, indices=[2], output_fmt="NLC")[
        "image_intermediates"
    ][0]
    torch.testing.assert_close(quick(pixels), expected, atol=1e-5, rtol=1e-5)
    assert (quick(pixels) - plain(pixels)).abs().max() > 1e-3
    assert quick.fingerprint != plain.fingerprint


@torch.no_grad()
def test_higher_resolution_by_open_clips_own_interpolation(tmp_path: Path) -> None:
    import open_clip

    model = save(tmp_path, NATIVE)
    larger = open_clip.model.CLIP(16, {**NATIVE, "image_size": 48}, TEXT).eval()
    tensors = model.state_dict()
    open_clip.model.resize_pos_embed(tensors, larger)
    larger.load_state_dict(tensors)
    pixels = torch.randn(1, 3, 48, 48)
    expected = larger.visual.forward_intermediates(pixels, indices=[2], output_fmt="NLC")[
        "image_intermediates"
    ][0]
    encoder = load_encoder(str(tmp_path), image_size=48)
    assert encoder.grid == (6, 6)
    torch.testing.assert_close(encoder(pixels), expected, atol=1e-5, rtol=1e-5)


def test_what_has_no_constants_or_no_weights_is_refused(tmp_path: Path) -> None:
    save(tmp_path, NATIVE)
    written = json.loads((tmp_path / "open_clip_config.json").read_text())
    (tmp_path / "open_clip_config.json").write_text(json.dumps({**written, "preprocess_cfg": {}}))
    with pytest.raises(UserError, match="no mean and std"):
        load_encoder(str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text(json.dumps(written))
    tensors = load_file(tmp_path / "open_clip_model.safetensors")
    tensors.pop("visual.conv1.weight")
    save_file(tensors, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(UserError, match="do not fit"):
        load_encoder(str(tmp_path))

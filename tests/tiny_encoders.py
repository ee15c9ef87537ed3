"""Tiny encoder checkpoints in every format, made with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 8,
    "projection_dim": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VIDEO = {
    "patch_size": 8,
    "crop_size": 32,
    "frames_per_clip": 4,
    "tubelet_size": 2,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "pred_hidden_size": 16,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
    "pred_num_mask_tokens": 2,
}

#: kind → (config class, model class, config, prefix tokens).
FAMILIES: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "clip": ("CLIPVisionConfig", "CLIPVisionModel", TINY, 1),
    "vit": ("ViTConfig", "ViTModel", TINY, 1),
    "deit": ("DeiTConfig", "DeiTModel", TINY, 2),
    "ijepa": ("IJepaConfig", "IJepaModel", TINY, 0),
    "siglip": ("SiglipVisionConfig", "SiglipVisionModel", TINY, 0),
    "siglip2-naflex": ("Siglip2VisionConfig", "Siglip2VisionModel", {**TINY, "num_patches": 16}, 0),
    "dinov2": ("Dinov2Config", "Dinov2Model", TINY, 1),
    "dinov2-registers": (
        "Dinov2WithRegistersConfig",
        "Dinov2WithRegistersModel",
        {**TINY, "num_register_tokens": 3},
        4,
    ),
    "dinov3": ("DINOv3ViTConfig", "DINOv3ViTModel", {**TINY, "num_register_tokens": 2}, 3),
    "vjepa2": ("VJEPA2Config", "VJEPA2Model", VIDEO, 0),
}


def build(kind: str, seed: int = 0) -> Any:
    """A tiny model of a family; every weight is random, so that nothing agrees by being zero or one."""
    import transformers

    config_name, model_name, values, _ = FAMILIES[kind]
    torch.manual_seed(seed)
    model = getattr(transformers, model_name)(getattr(transformers, config_name)(**values)).eval()
    return scramble(model, seed)


def scramble(model: Any, seed: int = 0) -> Any:
    """Random values in every weight."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def write_processor(
    folder: Path, *, size: int = 32, mean: Any = MEAN, std: Any = STD, crop: bool = False
) -> None:
    """Preprocessing beside the weights: squash for a ViT's processor, crop for CLIP's."""
    values: dict[str, Any] = {
        "image_processor_type": "CLIPImageProcessor" if crop else "ViTImageProcessor",
        "size": {"shortest_edge": size} if crop else {"height": size, "width": size},
        "image_mean": mean,
        "image_std": std,
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "resample": 3,
        "do_center_crop": crop,
        **({"crop_size": {"height": size, "width": size}} if crop else {}),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(values))


def save_timm(folder: Path, name: str, *, seed: int = 0, pretrained_cfg: Any = None, **arguments: Any) -> Any:
    """A timm model with random weights in timm's own folder format."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    model = timm.create_model(name, pretrained=False, num_classes=5, **arguments).eval()
    scramble(model, seed)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    cfg = {
        "input_size": [3, 32, 32],
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "fixed_input_size": True,
    }
    written = {
        "architecture": name,
        "num_classes": 5,
        "model_args": arguments,
        "pretrained_cfg": cfg if pretrained_cfg is None else pretrained_cfg,
    }
    (folder / "config.json").write_text(json.dumps(written))
    return model

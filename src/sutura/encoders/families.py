"""The vision architectures of transformers whose prefix tokens and final norm are known here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Family:
    """Where things are in one architecture.

    Args:
        model: class in transformers.
        norm: name of the final norm, left out by default.
        prefix: number of tokens before the patches, from the config.
        inputs: the call's arguments, from pixels.
        arguments: of the class, beside the config.
        size: name of the config's picture size.
        trunk: path of the part to keep; the rest is dropped.
        resized: whether another picture size is written into the config, and not left to the forward pass.
        settings: values written into the config, for what a model does by default and a frozen encoder must not.
    """

    model: str
    norm: str
    prefix: Callable[[Any], int]
    inputs: Callable[[Tensor, Any], dict[str, Any]]
    arguments: tuple[tuple[str, Any], ...] = ()
    size: str = "image_size"
    trunk: str = ""
    resized: bool = False
    settings: tuple[tuple[str, Any], ...] = ()


def no_prefix(config: Any) -> int:
    """Patches only."""
    return 0


def cls_only(config: Any) -> int:
    """One CLS token."""
    return 1


def cls_and_distillation(config: Any) -> int:
    """CLS and a distillation token."""
    return 2


def cls_and_registers(config: Any) -> int:
    """One CLS token and the registers that the config names."""
    return 1 + config.num_register_tokens


def plain(pixels: Float[Tensor, "batch 3 height_px width_px"], config: Any) -> dict[str, Any]:
    """Models that take any size themselves."""
    return {"pixel_values": pixels}


def interpolating(pixels: Float[Tensor, "batch 3 height_px width_px"], config: Any) -> dict[str, Any]:
    """Models that interpolate positions when told so; they are told so when the size is not their own."""
    own = config.image_size
    own = tuple(own) if isinstance(own, (list, tuple)) else (own, own)
    return {"pixel_values": pixels, "interpolate_pos_encoding": tuple(pixels.shape[2:]) != own}


def unmasked(pixels: Float[Tensor, "batch 3 height_px width_px"], config: Any) -> dict[str, Any]:
    """Every patch in its place, for a model that shuffles and hides patches at random, in eval mode too.

    It keeps patches in the order of the noise it is given, so noise that rises along the grid moves none; its
    config's `mask_ratio` has to be 0 beside.
    """
    patches = (pixels.shape[2] // config.patch_size) * (pixels.shape[3] // config.patch_size)
    noise = torch.arange(patches, dtype=torch.float32, device=pixels.device).expand(len(pixels), -1)
    return {**interpolating(pixels, config), "noise": noise}


def as_frames(pixels: Float[Tensor, "batch 3 height_px width_px"], config: Any) -> dict[str, Any]:
    """A still picture repeated as the fewest frames that make one slot in time, so that N is one grid."""
    return {"pixel_values_videos": pixels.unsqueeze(1).expand(-1, config.tubelet_size, -1, -1, -1)}


def as_packed_patches(pixels: Float[Tensor, "batch 3 height_px width_px"], config: Any) -> dict[str, Any]:
    """A square picture as the flat patches that SigLIP 2's NaFlex form takes, none of them padding."""
    batch, _, height, width = pixels.shape
    p = config.patch_size
    rows, columns = height // p, width // p
    patches = pixels.unflatten(2, (rows, p)).unflatten(4, (columns, p))  # B 3 rows p columns p
    patches = patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1)  # B N p·p·3
    return {
        "pixel_values": patches,
        "pixel_attention_mask": torch.ones(patches.shape[:2], dtype=torch.long, device=pixels.device),
        "spatial_shapes": torch.tensor([[rows, columns]] * batch, device=pixels.device),
    }


#: By the vision config's model_type.
FAMILIES: dict[str, Family] = {
    "clip_vision_model": Family("CLIPVisionModel", "post_layernorm", cls_only, interpolating),
    "siglip_vision_model": Family("SiglipVisionModel", "post_layernorm", no_prefix, interpolating),
    "siglip2_vision_model": Family("Siglip2VisionModel", "post_layernorm", no_prefix, as_packed_patches),
    "vit": Family("ViTModel", "layernorm", cls_only, interpolating, (("add_pooling_layer", False),)),
    "vit_mae": Family("ViTMAEModel", "layernorm", cls_only, unmasked, settings=(("mask_ratio", 0.0),)),
    "deit": Family(
        "DeiTModel",
        "layernorm",
        cls_and_distillation,
        interpolating,
        (("add_pooling_layer", False),),
    ),
    "ijepa": Family("IJepaModel", "layernorm", no_prefix, interpolating),
    "dinov2": Family("Dinov2Model", "layernorm", cls_only, plain),
    "dinov2_with_registers": Family("Dinov2WithRegistersModel", "layernorm", cls_and_registers, plain),
    "dinov3_vit": Family("DINOv3ViTModel", "norm", cls_and_registers, plain),
    "vjepa2": Family(
        "VJEPA2Model",
        "layernorm",
        no_prefix,
        as_frames,
        size="crop_size",
        trunk="encoder",
        resized=True,
    ),
}

"""Other people's ViTs as our own, which can leave patches out before its first block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from sutura.core.checkpoint import load_strict
from sutura.core.errors import UserError
from sutura.core.runtime import generator
from sutura.encoders.align_towers import activation_of, named_activation
from sutura.encoders.base import Trunk, VisionEncoder
from sutura.models.vit import ViT
from sutura.models.vljepa_conditioned import last_blocks
from sutura.models.weights import timm_vit, transformers_vit

#: The largest difference of features, relative to their size, at which ours still counts as the library's model.
TOLERANCE = 1e-3


class Colours(NamedTuple):
    """How an encoder scales 8-bit colours: (colour / 255 - mean) / std."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def own_vit(encoder: VisionEncoder) -> ViT:
    """The encoder's weights in our ViT, whose output was compared with the encoder's.

    Args:
        encoder: of the zoo, or a plain ViT of transformers (ViT, I-JEPA) or timm.

    Returns:
        Frozen, in eval mode; `normed` in its output is the last block after the final norm.

    Raises:
        UserError: another architecture, a block before the last, or features that differ.
    """
    vit = own_vit_outline(encoder)
    if vit is not getattr(encoder.trunk, "vit", None):
        _compare(vit, encoder)
    return vit


def own_vit_outline(encoder: VisionEncoder) -> ViT:
    """The same without the comparison, which an encoder on the meta device has no values for.

    Raises:
        UserError: as `own_vit`, but for the features.
    """
    trunk: Any = encoder.trunk
    if trunk.layer != trunk.depth - 1:
        raise UserError(
            f"Encoder {encoder.name!r} is read at block {trunk.layer}; patches are left out of a whole ViT only, so "
            "leave `layer` at -1."
        )
    own = isinstance(getattr(trunk, "vit", None), ViT)
    with next(encoder.parameters()).device:
        vit = trunk.vit if own else _converted(encoder)
    return vit.requires_grad_(False).eval()


def _converted(encoder: VisionEncoder) -> ViT:
    trunk: Any = encoder.trunk
    model: Any = trunk.model
    kind = getattr(getattr(model, "config", None), "model_type", "")
    try:
        if kind in ("vit", "ijepa"):
            vit, map_ = _from_transformers(model.config, encoder.image_size, cls=kind == "vit")
        elif type(model).__name__ == "VisionTransformer" and hasattr(model, "patch_embed"):
            vit, map_ = _from_timm(model, encoder.image_size)
        else:
            raise ValueError(f"its architecture is {kind or type(model).__name__}")
        load_strict(vit, map_.ours(model.state_dict()), f"{encoder.name} as our own ViT")
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"Encoder {encoder.id!r} cannot leave patches out ({error}). Its patches can be dropped before the trunk "
            "where it is the zoo's, transformers' ViT or I-JEPA, or timm's plain VisionTransformer."
        ) from None
    return vit


def _from_transformers(config: Any, image_size: int, *, cls: bool) -> tuple[ViT, Any]:
    if config.image_size != image_size:
        raise ValueError(f"its positions are for {config.image_size} pixels, asked for are {image_size}")
    vit = ViT(
        image_size,
        config.patch_size,
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        mlp_ratio=config.intermediate_size / config.hidden_size,
        cls=cls,
        activation=named_activation(config.hidden_act, "this encoder"),
        norm_eps=config.layer_norm_eps,
    )
    return vit, transformers_vit(config.num_hidden_layers, config.patch_size, cls)


def _from_timm(model: Any, image_size: int) -> tuple[ViT, Any]:
    first, patch = model.blocks[0], model.patch_embed.patch_size[0]
    cls, registers = model.cls_token is not None, getattr(model, "num_reg_tokens", 0)
    pre_norm = not isinstance(model.norm_pre, nn.Identity)
    if pre_norm:
        raise ValueError("it normalises before its first block")
    vit = ViT(
        image_size,
        patch,
        model.embed_dim,
        len(model.blocks),
        first.attn.num_heads,
        mlp_ratio=first.mlp.fc1.out_features / model.embed_dim,
        cls=cls,
        registers=registers,
        activation=activation_of(first.mlp.act, "this encoder"),
        norm_eps=first.norm1.eps,
    )
    placed = not getattr(model, "no_embed_class", False)
    return vit, timm_vit(len(model.blocks), patch, cls, registers, placed)


@torch.no_grad()
def _compare(vit: ViT, encoder: VisionEncoder) -> None:
    """Both on one noisy picture: a weight, a norm or an activation that is not the library's shows here."""
    side = encoder.image_size
    pixels = torch.randn(1, 3, side, side, generator=generator(0, "own-vit"))
    wanted = encoder.trunk(pixels).flatten(2).transpose(1, 2)
    found = vit.eval()(pixels)[1]["normed" if encoder.config.final_norm else "patches"]
    far = float((found - wanted).abs().max() / wanted.abs().max())
    if far > TOLERANCE:
        raise UserError(
            f"Encoder {encoder.name!r} in our ViT gives other features than in its library (largest difference "
            f"{far:.2g} of the largest value): its architecture has something that ours lacks."
        )


def colours_of(encoder: VisionEncoder) -> Colours:
    """Mean and std by which the encoder's transform scales colours, measured on pictures of its own size.

    Raises:
        UserError: the transform does something else to a picture of that size.
    """
    side = encoder.image_size
    black, white = (
        encoder.transform(Image.new("RGB", (side, side), (value,) * 3))[:, 0, 0] for value in (0, 255)
    )
    std = 1 / (white - black)
    mean = -black * std
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    wanted = encoder.transform(Image.fromarray(noise))
    found = (torch.from_numpy(noise).permute(2, 0, 1) / 255 - mean[:, None, None]) / std[:, None, None]
    if wanted.shape != found.shape or float((wanted - found).abs().max()) > 0.02 / float(std.min()):
        raise UserError(
            f"The transform of {encoder.name!r} does more to a picture of its own size than to scale its colours."
        )
    return Colours((*mean.tolist(),), (*std.tolist(),))


class AveragedTrunk(Trunk):
    """The last blocks of a ViT, each layer-normalised, averaged: targets as data2vec makes them.

    Args:
        vit: the model.
        blocks: how many.
        architecture: of the model, JSON-able.
    """

    def __init__(self, vit: ViT, blocks: int, architecture: Mapping[str, Any]) -> None:
        super().__init__()
        self.vit, self.count = vit, blocks
        self.depth, self.patch_size, self.num_prefix_tokens = vit.depth, vit.patch_size, vit.num_prefix_tokens
        self.layer = vit.depth - 1
        self.architecture = {**architecture, "averaged": blocks}

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.vit.blocks)

    def forward(
        self, pixels: Float[Tensor, "batch 3 height_px width_px"]
    ) -> Float[Tensor, "batch width rows columns"]:
        patches = last_blocks(self.vit, pixels, self.count)
        return patches.transpose(1, 2).unflatten(2, (pixels.shape[2] // self.vit.patch_size, -1))

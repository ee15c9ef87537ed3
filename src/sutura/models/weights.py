"""Weights of other libraries under our names, and ours under theirs: every key accounted for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

#: One part of a transformer block: our name -> transformers' name in ViT and I-JEPA, in CLIP.
_VIT_BLOCK = {
    "norm_attention": "layernorm_before",
    "attention.out": "attention.o_proj",
    "norm_mlp": "layernorm_after",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
}
_CLIP_BLOCK = {
    "norm_attention": "layer_norm1",
    "attention.out": "self_attn.out_proj",
    "norm_mlp": "layer_norm2",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
}


def vit_from_transformers(theirs: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """A `ViTModel`'s or `IJepaModel`'s state dict for our `ViT`.

    Args:
        theirs: `state_dict()` of the module; a pooler's two tensors are left out, ours has none.
        depth: blocks.

    Raises:
        ValueError: a key is missing, or one is left over.
    """
    rest = {name: tensor for name, tensor in theirs.items() if not name.startswith("pooler.")}
    positions = _take(rest, "embeddings.position_embeddings")
    ours = _patch_from_convolution(rest, "embeddings.patch_embeddings.projection", bias=True)
    if "embeddings.cls_token" in rest:
        ours["prefix"] = _take(rest, "embeddings.cls_token") + positions[:, :1]
        positions = positions[:, 1:]
    ours["positions"] = positions
    _norm(ours, "norm", rest, "layernorm")
    for i in range(depth):
        _block(ours, f"blocks.{i}", rest, f"layers.{i}", _VIT_BLOCK, "attention")
    return _all_taken(ours, rest)


def vit_to_transformers(ours: Mapping[str, Tensor], depth: int, patch_size: int) -> dict[str, Tensor]:
    """The inverse: our `ViT` (no registers) for a `ViTModel` without pooler, or an `IJepaModel`.

    The CLS token's position becomes zero, as it is part of the token here.
    """
    rest = dict(ours)
    weight = _take(rest, "embed.project.weight")
    theirs = {
        "embeddings.patch_embeddings.projection.weight": weight.view(len(weight), -1, patch_size, patch_size),
        "embeddings.patch_embeddings.projection.bias": _take(rest, "embed.project.bias"),
    }
    positions = _take(rest, "positions")
    if "prefix" in rest:
        prefix = _take(rest, "prefix")
        if prefix.shape[1] != 1:
            raise ValueError(f"{prefix.shape[1]} prefix tokens; transformers' ViTModel has CLS only.")
        theirs["embeddings.cls_token"] = prefix
        positions = torch.cat([torch.zeros_like(prefix), positions], dim=1)
    theirs["embeddings.position_embeddings"] = positions
    _norm(theirs, "layernorm", rest, "norm")
    for i in range(depth):
        for mine, other in _VIT_BLOCK.items():
            _norm(theirs, f"layers.{i}.{other}", rest, f"blocks.{i}.{mine}")
        for kind in ("weight", "bias"):
            parts = _take(rest, f"blocks.{i}.attention.qkv.{kind}").chunk(3)
            for name, part in zip("qkv", parts, strict=True):
                theirs[f"layers.{i}.attention.{name}_proj.{kind}"] = part.clone()
    return _all_taken(theirs, rest)


def clip_from_transformers(theirs: Mapping[str, Tensor], depth: int, text_depth: int) -> dict[str, Tensor]:
    """A `CLIPModel`'s state dict for our `CLIP` of `ViT(pre_norm=True, patch_bias=False, cls=True)`.

    Raises:
        ValueError: a key is missing, or one is left over.
    """
    rest = {name: tensor for name, tensor in theirs.items() if not name.endswith(".position_ids")}
    vision = _patch_from_convolution(rest, "vision_model.embeddings.patch_embedding", bias=False)
    positions = _take(rest, "vision_model.embeddings.position_embedding.weight")[None]
    vision["prefix"] = _take(rest, "vision_model.embeddings.class_embedding")[None, None] + positions[:, :1]
    vision["positions"] = positions[:, 1:]
    _norm(vision, "pre_norm", rest, "vision_model.pre_layrnorm")
    _norm(vision, "norm", rest, "vision_model.post_layernorm")
    text = {
        "words.weight": _take(rest, "text_model.embeddings.token_embedding.weight"),
        "positions": _take(rest, "text_model.embeddings.position_embedding.weight"),
    }
    _norm(text, "norm", rest, "text_model.final_layer_norm")
    for tower, name, blocks in ((vision, "vision_model", depth), (text, "text_model", text_depth)):
        for i in range(blocks):
            _block(tower, f"blocks.{i}", rest, f"{name}.encoder.layers.{i}", _CLIP_BLOCK, "self_attn")
    ours = {
        "image_projection.weight": _take(rest, "visual_projection.weight"),
        "text_projection.weight": _take(rest, "text_projection.weight"),
        "log_scale": _take(rest, "logit_scale"),
    }
    ours |= {f"vision.{key}": value for key, value in vision.items()}
    ours |= {f"text.{key}": value for key, value in text.items()}
    return _all_taken(ours, rest)


def _take(rest: dict[str, Tensor], name: str) -> Tensor:
    if name not in rest:
        raise ValueError(f"{name!r} is missing from the weights ({len(rest)} keys left).")
    return rest.pop(name)


def _patch_from_convolution(rest: dict[str, Tensor], name: str, bias: bool) -> dict[str, Tensor]:
    ours = {"embed.project.weight": _take(rest, f"{name}.weight").flatten(1)}
    if bias:
        ours["embed.project.bias"] = _take(rest, f"{name}.bias")
    return ours


def _norm(to: dict[str, Tensor], name: str, rest: dict[str, Tensor], source: str) -> None:
    """Move a weight and its bias."""
    for kind in ("weight", "bias"):
        to[f"{name}.{kind}"] = _take(rest, f"{source}.{kind}")


def _block(
    ours: dict[str, Tensor],
    name: str,
    rest: dict[str, Tensor],
    source: str,
    names: Mapping[str, str],
    attention: str,
) -> None:
    """Move one block; three projections become one."""
    for mine, other in names.items():
        _norm(ours, f"{name}.{mine}", rest, f"{source}.{other}")
    for kind in ("weight", "bias"):
        parts = [_take(rest, f"{source}.{attention}.{which}_proj.{kind}") for which in "qkv"]
        ours[f"{name}.attention.qkv.{kind}"] = torch.cat(parts)


def _all_taken(done: dict[str, Tensor], rest: dict[str, Tensor]) -> dict[str, Tensor]:
    if rest:
        raise ValueError(f"{len(rest)} weights have no place here: {', '.join(sorted(rest)[:4])} …")
    return done

"""Which of our weights are which of timm's, transformers' and open_clip's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sutura.models.keymap import (
    KeyMap,
    Move,
    convolution,
    fixed_table,
    fused,
    layer,
    prefix_and_positions,
    same,
    scalar,
    transposed,
)
from sutura.nn.position import sincos_positions

#: The parts of a transformer block but for queries, keys and values: our name -> theirs.
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
_DISTILBERT_BLOCK = {
    "norm_attention": "sa_layer_norm",
    "attention.out": "attention.out_lin",
    "norm_mlp": "output_layer_norm",
    "mlp.up": "ffn.lin1",
    "mlp.down": "ffn.lin2",
}
_TIMM_BLOCK = {
    "norm_attention": "norm1",
    "attention.qkv": "attn.qkv",
    "attention.out": "attn.proj",
    "norm_mlp": "norm2",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
}
_OPEN_CLIP_BLOCK = {
    "norm_attention": "ln_1",
    "attention.out": "attn.out_proj",
    "norm_mlp": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}


def transformers_vit(depth: int, patch_size: int, cls: bool) -> KeyMap:
    """Our `ViT` and transformers' `ViTModel` (`cls=True`) or `IJepaModel`; a pooler is left out."""
    tokens = ["embeddings.cls_token"] if cls else []
    return KeyMap(
        [
            prefix_and_positions(tokens, "embeddings.position_embeddings", [1] * cls),
            *convolution("embed.project", "embeddings.patch_embeddings.projection", patch_size, bias=True),
            *layer("norm", "layernorm"),
            *_blocks("blocks", "layers", depth, _VIT_BLOCK, "attention"),
        ],
        left_out=["pooler."],
    )


def timm_vit(
    depth: int,
    patch_size: int,
    cls: bool = True,
    registers: int = 0,
    placed: bool = True,
    pre_norm: bool = False,
    patch_bias: bool = True,
) -> KeyMap:
    """Our `ViT` and timm's `VisionTransformer`; a classification head is left out.

    Args:
        depth: blocks.
        patch_size: side of a patch.
        cls: timm's `class_token`.
        registers: timm's `reg_tokens`.
        placed: False for timm's `no_embed_class`, where prefix tokens have no positions.
        pre_norm: timm's `pre_norm`, as in its CLIP towers.
        patch_bias: whether the patch projection has one; CLIP's has none.
    """
    tokens = ["cls_token"] * cls + ["reg_token"] * bool(registers)
    counts = [1] * cls + [registers] * bool(registers)
    blocks = [
        move
        for i in range(depth)
        for mine, other in _TIMM_BLOCK.items()
        for move in layer(f"blocks.{i}.{mine}", f"blocks.{i}.{other}")
    ]
    return KeyMap(
        [
            prefix_and_positions(tokens, "pos_embed", counts, placed),
            *convolution("embed.project", "patch_embed.proj", patch_size, bias=patch_bias),
            *(layer("pre_norm", "norm_pre") if pre_norm else ()),
            *layer("norm", "norm"),
            *blocks,
        ],
        left_out=["head."],
    )


def transformers_clip(depth: int, text_depth: int, patch_size: int) -> KeyMap:
    """Our `CLIP` of `ViT(cls=True, pre_norm=True, patch_bias=False)` and transformers' `CLIPModel`."""
    vision = KeyMap(
        [
            prefix_and_positions(
                ["embeddings.class_embedding"], "embeddings.position_embedding.weight", [1], flat=True
            ),
            *convolution("embed.project", "embeddings.patch_embedding", patch_size, bias=False),
            *layer("pre_norm", "pre_layrnorm"),
            *layer("norm", "post_layernorm"),
            *_blocks("blocks", "encoder.layers", depth, _CLIP_BLOCK, "self_attn"),
        ]
    )
    return KeyMap(
        [
            *vision.under("vision.", "vision_model."),
            *_transformers_text(text_depth).under("text.", "text_model."),
            *same("image_projection", "visual_projection", "weight"),
            *same("text_projection", "text_projection", "weight"),
            *same("log_scale", "logit_scale"),
        ],
        left_out=[".position_ids"],
    )


def transformers_distilbert(depth: int) -> KeyMap:
    """Our `TextEncoder` and transformers' `DistilBertModel`."""
    blocks: list[Move] = []
    for i in range(depth):
        for mine, other in _DISTILBERT_BLOCK.items():
            blocks += layer(f"blocks.{i}.{mine}", f"transformer.layer.{i}.{other}")
        names = [f"transformer.layer.{i}.attention.{n}_lin" for n in "qkv"]
        blocks += fused(f"blocks.{i}.attention.qkv", names)
    return KeyMap(
        [
            *same("words", "embeddings.word_embeddings", "weight"),
            *same("positions", "embeddings.position_embeddings.weight"),
            *layer("norm", "embeddings.LayerNorm"),
            *blocks,
        ]
    )


def transformers_siglip(depth: int, text_depth: int, patch_size: int) -> KeyMap:
    """Our `SigLIP(pooling="attention", project_image=False)` and transformers' `SiglipModel`."""
    vision = KeyMap(
        [
            prefix_and_positions([], "embeddings.position_embedding.weight", [], flat=True),
            *convolution("embed.project", "embeddings.patch_embedding", patch_size, bias=True),
            *layer("norm", "post_layernorm"),
            *_blocks("blocks", "encoder.layers", depth, _CLIP_BLOCK, "self_attn"),
        ]
    )
    asked = [
        Move(
            (f"query.{kind}", f"key_value.{kind}"),
            (f"attention.in_proj_{kind}",),
            lambda whole: (whole[: len(whole) // 3], whole[len(whole) // 3 :]),
            _stacked,
        )
        for kind in ("weight", "bias")
    ]
    pool = KeyMap(
        [
            *same("probe", "probe"),
            *asked,
            *layer("out", "attention.out_proj"),
            *layer("norm", "layernorm"),
            *layer("mlp.up", "mlp.fc1"),
            *layer("mlp.down", "mlp.fc2"),
        ]
    )
    return KeyMap(
        [
            *vision.under("vision.", "vision_model."),
            *pool.under("pool.", "vision_model.head."),
            *_transformers_text(text_depth).under("text.", "text_model."),
            *layer("text_projection", "text_model.head"),
            scalar("log_scale", "logit_scale"),
            scalar("bias", "logit_bias"),
        ],
        left_out=[".position_ids"],
    )


def open_clip_clip(depth: int, text_depth: int, patch_size: int) -> KeyMap:
    """Our `CLIP` of `ViT(cls=True, pre_norm=True, patch_bias=False)` and open_clip's `CLIP`."""
    vision = KeyMap(
        [
            prefix_and_positions(["class_embedding"], "positional_embedding", [1], flat=True),
            *convolution("embed.project", "conv1", patch_size, bias=False),
            *layer("pre_norm", "ln_pre"),
            *layer("norm", "ln_post"),
            *_open_clip_blocks(depth),
        ]
    )
    text = KeyMap(
        [
            *same("words", "token_embedding", "weight"),
            *same("positions", "positional_embedding"),
            *layer("norm", "ln_final"),
            *_open_clip_blocks(text_depth),
        ]
    )
    return KeyMap(
        [
            *vision.under("vision.", "visual."),
            *text.under("text.", ""),
            transposed("image_projection.weight", "visual.proj"),
            transposed("text_projection.weight", "text_projection"),
            *same("log_scale", "logit_scale"),
        ]
    )


def transformers_mae(
    depth: int, decoder_depth: int, patch_size: int, grid: tuple[int, int], width: int, decoder_width: int
) -> KeyMap:
    """Our `MAE` around `ViT(cls=True, positions="sincos")` and transformers' `ViTMAEForPreTraining`.

    Their positions must be the fixed tables, as in all published weights.
    """
    encoder = KeyMap(
        [
            *same("prefix", "embeddings.cls_token"),
            fixed_table("embeddings.position_embeddings", sincos_positions(grid, width), prefix=1),
            *convolution("embed.project", "embeddings.patch_embeddings.projection", patch_size, bias=True),
            *layer("norm", "layernorm"),
            *_blocks("blocks", "layers", depth, _VIT_BLOCK, "attention"),
        ]
    )
    decoder = KeyMap(
        [
            *same("mask_token", "mask_token"),
            fixed_table("decoder_pos_embed", sincos_positions(grid, decoder_width), prefix=1),
            *layer("enter", "decoder_embed"),
            *layer("norm", "decoder_norm"),
            *(_pixels_last(kind, patch_size) for kind in ("weight", "bias")),
            *_blocks("blocks", "decoder_layers", decoder_depth, _VIT_BLOCK, "attention"),
        ]
    )
    return KeyMap([*encoder.under("encoder.", "vit."), *decoder.under("", "decoder.")])


def _transformers_text(depth: int) -> KeyMap:
    return KeyMap(
        [
            *same("words", "embeddings.token_embedding", "weight"),
            *same("positions", "embeddings.position_embedding.weight"),
            *layer("norm", "final_layer_norm"),
            *_blocks("blocks", "encoder.layers", depth, _CLIP_BLOCK, "self_attn"),
        ]
    )


def _blocks(ours: str, theirs: str, depth: int, names: Mapping[str, str], attention: str) -> list[Move]:
    """Blocks whose queries, keys and values have a projection each."""
    moves: list[Move] = []
    for i in range(depth):
        for mine, other in names.items():
            moves += layer(f"{ours}.{i}.{mine}", f"{theirs}.{i}.{other}")
        moves += fused(f"{ours}.{i}.attention.qkv", [f"{theirs}.{i}.{attention}.{n}_proj" for n in "qkv"])
    return moves


def _open_clip_blocks(depth: int) -> list[Move]:
    moves: list[Move] = []
    for i in range(depth):
        block = f"transformer.resblocks.{i}"
        for mine, other in _OPEN_CLIP_BLOCK.items():
            moves += layer(f"blocks.{i}.{mine}", f"{block}.{other}")
        for kind in ("weight", "bias"):
            moves += same(f"blocks.{i}.attention.qkv.{kind}", f"{block}.attn.in_proj_{kind}")
    return moves


def _stacked(*parts: Tensor) -> list[Tensor]:
    return [torch.cat(parts)]


def _pixels_last(kind: str, patch_size: int) -> Move:
    """The decoder's last map, whose outputs run channel, row, column here and row, column, channel there."""
    sides = (patch_size, patch_size)
    return Move(
        (f"leave.{kind}",),
        (f"decoder_pred.{kind}",),
        lambda t: (t.unflatten(0, (*sides, -1)).movedim(2, 0).flatten(0, 2),),
        lambda t: (t.unflatten(0, (-1, *sides)).movedim(0, 2).flatten(0, 2),),
    )

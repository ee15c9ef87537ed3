"""Towers of open_clip, transformers and timm as ours, each compared with the library's before that one is let go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sutura.core.checkpoint import load_strict
from sutura.core.errors import UserError
from sutura.models.clip import CLIP, TextTransformer
from sutura.models.keymap import KeyMap
from sutura.models.text_encoder import TextEncoder
from sutura.models.vit import ViT
from sutura.models.weights import open_clip_clip, timm_vit, transformers_clip, transformers_distilbert
from sutura.nn.position import resample_positions, sincos_positions

#: The largest difference of outputs, as a share of the largest output, that is taken for rounding.
ROUNDING = 2e-4
_ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}
Args = dict[str, Any]


def from_open_clip(model: Any, end_id: int, what: str) -> tuple[CLIP, Args, Args]:
    """open_clip's CLIP as ours, with the arguments of its two towers.

    Raises:
        UserError: a picture tower that is not open_clip's own ViT, or an option that has no place here.
    """
    visual, text = model.visual, getattr(model, "text", model)
    if not hasattr(visual, "conv1") or not hasattr(getattr(visual, "transformer", None), "resblocks"):
        raise UserError(
            f"The picture tower of {what} is a {type(visual).__name__}; a start needs open_clip's own ViT. timm's are "
            "given as timm:NAME with a text tower beside."
        )
    if not hasattr(text, "token_embedding"):
        raise UserError(
            f"The text tower of {what} is a {type(text).__name__}; a start needs open_clip's own."
        )
    blocks, text_blocks = visual.transformer.resblocks, text.transformer.resblocks
    width = visual.conv1.out_channels
    args = {
        "image_size": visual.image_size[0],
        "patch_size": visual.conv1.kernel_size[0],
        **_open_clip_sizes(blocks, width),
        **_CLIP_VISION,
        "norm_eps": visual.ln_post.eps,
    }
    text_args = {
        "vocabulary": text.token_embedding.num_embeddings,
        "length": len(text.positional_embedding),
        **_open_clip_sizes(text_blocks, text.token_embedding.embedding_dim),
        "end_id": end_id,
        "norm_eps": text.ln_final.eps,
    }
    tensors = {
        name.removeprefix("text."): t for name, t in model.state_dict().items() if name != "logit_bias"
    }
    tensors["logit_scale"] = tensors["logit_scale"].reshape(())
    keys = open_clip_clip(len(blocks), len(text_blocks), args["patch_size"])
    dim = tensors["text_projection"].shape[1] if "text_projection" in tensors else 0
    return _clip(args, text_args, dim, keys, tensors, what), args, text_args


def from_transformers(model: Any, end_id: int, what: str) -> tuple[CLIP, Args, Args]:
    """transformers' CLIPModel as ours, with the arguments of its two towers. Raises UserError as `from_open_clip`."""
    vision, text = model.config.vision_config, model.config.text_config
    args = {
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        **_transformers_sizes(vision, what),
        **_CLIP_VISION,
    }
    text_args = {
        "vocabulary": text.vocab_size,
        "length": text.max_position_embeddings,
        **_transformers_sizes(text, what),
        "end_id": end_id,
    }
    keys = transformers_clip(vision.num_hidden_layers, text.num_hidden_layers, vision.patch_size)
    return (
        _clip(args, text_args, model.config.projection_dim, keys, model.state_dict(), what),
        args,
        text_args,
    )


def from_timm(model: Any, what: str) -> tuple[ViT, Args]:
    """timm's VisionTransformer as ours, with its arguments; a classification head is left out.

    Raises:
        UserError: another kind of model, or an option that has no place here.
    """
    from timm.models.vision_transformer import VisionTransformer

    if type(model) is not VisionTransformer:
        raise UserError(f"{what} is timm's {type(model).__name__}; a start needs its VisionTransformer.")
    if model.pos_embed is None or model.global_pool not in ("token", "avg"):
        raise UserError(
            f"{what} pools by {model.global_pool!r}; a start pools by its CLS token or the mean of its patches."
        )
    block: Any = model.blocks[0]
    embed = model.patch_embed
    pre_norm = not isinstance(model.norm_pre, nn.Identity)
    args = {
        "image_size": embed.img_size[0],
        "patch_size": embed.patch_size[0],
        "width": model.embed_dim,
        "depth": len(model.blocks),
        "heads": block.attn.num_heads,
        "mlp_ratio": block.mlp.fc1.out_features / model.embed_dim,
        "cls": model.has_class_token,
        "registers": model.num_reg_tokens,
        "pooling": "cls" if model.global_pool == "token" else "mean",
        "activation": activation_of(block.mlp.act, what),
        "norm_eps": block.norm1.eps,
        "pre_norm": pre_norm,
        "patch_bias": embed.proj.bias is not None,
    }
    keys = timm_vit(
        args["depth"],
        args["patch_size"],
        args["cls"],
        args["registers"],
        placed=not model.no_embed_class,
        pre_norm=pre_norm,
        patch_bias=args["patch_bias"],
    )
    vit = ViT(**args)
    land(vit, keys, model.state_dict(), what)
    return vit, args


def from_distilbert(model: Any, what: str) -> tuple[TextEncoder, Args]:
    """transformers' DistilBertModel as ours, with its arguments. Raises UserError for an option with no place here."""
    config = model.config
    args = {
        "vocabulary": config.vocab_size,
        "length": config.max_position_embeddings,
        "width": config.dim,
        "depth": config.n_layers,
        "heads": config.n_heads,
        "pad_id": config.pad_token_id,
        "mlp_ratio": config.hidden_dim / config.dim,
        "activation": named_activation(config.activation, what),
    }
    tower = TextEncoder(**args)
    land(tower, transformers_distilbert(config.n_layers), model.state_dict(), what)
    return tower, args


_CLIP_VISION: Args = {"cls": True, "pooling": "cls", "pre_norm": True, "patch_bias": False}


def _clip(
    args: Args, text_args: Args, dim: int, keys: KeyMap, tensors: Mapping[str, Tensor], what: str
) -> CLIP:
    try:
        model = CLIP(ViT(**args), TextTransformer(**text_args), dim)
    except ValueError as error:
        raise UserError(f"{what} cannot be built here: {error}") from None
    land(model, keys, tensors, what)
    return model


def land(module: nn.Module, keys: KeyMap, tensors: Mapping[str, Tensor], what: str) -> None:
    """Every weight of theirs under our name. Raises UserError when one is missing, left over or of another shape."""
    try:
        ours = keys.ours(tensors)
    except ValueError as error:
        raise UserError(f"{what} has an option that has no place here: {error}") from None
    load_strict(module, {name: tensor.float() for name, tensor in ours.items()}, what)


@torch.no_grad()
def compare(ours: Callable[[Any], Tensor], theirs: Callable[[Any], Tensor], given: Any, what: str) -> None:
    """Raises UserError when a tower of ours says anything else than the library's of the same input."""
    mine, other = ours(given).float(), theirs(given).float()
    if mine.shape != other.shape:
        raise UserError(f"{what} gives {tuple(other.shape)} in its library and {tuple(mine.shape)} here.")
    off = float((mine - other).abs().max())
    if not off <= ROUNDING * max(1.0, float(other.abs().max())):
        raise UserError(
            f"{what} does not compute here what it does in its library (outputs differ by {off:.2g}): it has an option "
            "that is not known here, or its tokenizer is another's. It is not used."
        )


def at_size(vit: ViT, args: Args, image_size: int) -> Args:
    """Bring a tower to pictures of another side: learned positions are interpolated, as it does it itself at run time,
    and a fixed table is made anew.

    Raises:
        UserError: the side is not a multiple of the patch size.
    """
    if image_size == vit.image_size:
        return args
    if image_size % vit.patch_size:
        raise UserError(f"image_size={image_size} is not a multiple of the patch size {vit.patch_size}.")
    side = image_size // vit.patch_size
    tower: Any = vit
    if isinstance(vit.positions, nn.Parameter):
        table = resample_positions(vit.positions.detach(), vit.grid, (side, side))
        tower.positions = nn.Parameter(table.clone())
    else:
        tower.positions = sincos_positions((side, side), vit.width)
    vit.image_size, vit.grid = image_size, (side, side)
    return {**args, "image_size": image_size}


def activation_of(module: nn.Module, what: str) -> str:
    """Our name of a library's activation. Raises UserError for one that is not here."""
    if isinstance(module, nn.GELU):
        return "gelu" if module.approximate == "none" else "gelu_tanh"
    own = {
        "QuickGELU": "quick_gelu",
        "GELU": "gelu",
        "GELUTanh": "gelu_tanh",
    }  # timm's and open_clip's classes
    if type(module).__name__ in own:
        return own[type(module).__name__]
    raise UserError(
        f"{what} has the activation {type(module).__name__}; known are gelu, quick_gelu, gelu_tanh."
    )


def named_activation(name: str, what: str) -> str:
    """Our name of what a config of transformers says. Raises UserError for one that is not here."""
    if name not in _ACTIVATIONS:
        raise UserError(f"{what} has the activation {name!r}; known are {', '.join(_ACTIVATIONS)}.")
    return _ACTIVATIONS[name]


def _open_clip_sizes(blocks: Any, width: int) -> Args:
    block = blocks[0]
    return {
        "width": width,
        "depth": len(blocks),
        "heads": block.attn.num_heads,
        "mlp_ratio": block.mlp.c_fc.out_features / width,
        "activation": activation_of(block.mlp.gelu, "open_clip's model"),
    }


def _transformers_sizes(config: Any, what: str) -> Args:
    return {
        "width": config.hidden_size,
        "depth": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "mlp_ratio": config.intermediate_size / config.hidden_size,
        "activation": named_activation(config.hidden_act, what),
        "norm_eps": config.layer_norm_eps,
    }

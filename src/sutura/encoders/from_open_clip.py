"""open_clip's visual towers: its own ViTs and ResNets, and timm's behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sutura.core.checkpoint import load_strict, load_tensors, read_json
from sutura.core.errors import UserError
from sutura.core.runtime import seeded
from sutura.encoders.base import Trunk, VisionEncoder, resolve_layer
from sutura.encoders.config import EncoderConfig
from sutura.encoders.from_timm import resize
from sutura.encoders.transform import Transform, from_numbers
from sutura.encoders.weights import account, find_weights

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
PATTERNS = (CONFIG, "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")


class OpenClipTrunk(Trunk):
    """A visual tower's intermediate features.

    Args:
        visual: with its weights.
        layer: which block, as a config says it.
        final_norm: whether the tower's ln_post (or a timm model's norm) is applied.
        architecture: vision config and activation it was made with.
    """

    def __init__(
        self,
        visual: nn.Module,
        layer: int,
        *,
        final_norm: bool,
        image_size: int,
        architecture: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.visual: Any = visual
        self.architecture, self.final_norm = dict(architecture), final_norm
        inner = getattr(visual, "trunk", None)  # a timm model
        self._native = native = hasattr(visual, "transformer")
        self.num_prefix_tokens = 1 if native else getattr(inner, "num_prefix_tokens", 0)
        size = getattr(visual, "patch_size", None) if native else _patch_size(inner)
        self.patch_size = size[0] if isinstance(size, tuple) else size
        if final_norm and not native and isinstance(getattr(inner, "norm", nn.Identity()), nn.Identity):
            raise UserError("This visual tower has no norm over its patches; leave final_norm off.")
        with torch.no_grad():
            self.depth = len(self._maps(torch.zeros(1, 3, image_size, image_size), None))
        self.layer = resolve_layer(layer, self.depth, "the visual tower")

    def _maps(self, pixels: Tensor, indices: list[int] | None) -> list[Tensor]:
        return self.visual.forward_intermediates(
            pixels,
            indices=indices,
            intermediates_only=True,
            normalize_intermediates=self.final_norm,
            output_fmt="NCHW",
        )["image_intermediates"]

    def blocks(self) -> Sequence[nn.Module]:
        inner = getattr(self.visual, "trunk", None)
        blocks = self.visual.transformer.resblocks if self._native else getattr(inner, "blocks", ())
        return list(blocks)[: self.layer + 1] if len(blocks) == self.depth else ()

    def forward(
        self, pixels: Float[Tensor, "batch 3 height_px width_px"]
    ) -> Float[Tensor, "batch width rows columns"]:
        return self._maps(pixels, [self.layer])[0]


def load_open_clip(folder: Path, config: EncoderConfig, about: Mapping[str, Any]) -> VisionEncoder:
    """An encoder from a folder in open_clip's format.

    The text tower is not built; its weights are counted and left out.

    Raises:
        UserError: no model config, weights that do not fit, or preprocessing that is not written down.
    """
    written = read_json(folder / CONFIG)
    if "model_cfg" not in written:
        raise UserError(f"{folder / CONFIG} holds no model_cfg.")
    model_config = deepcopy(written["model_cfg"])
    vision = {**model_config["vision_cfg"], "timm_model_pretrained": False}
    quick_gelu = bool(model_config.get("quick_gelu", False))
    own = _side(vision["image_size"])
    if config.transform is not None:
        transform = from_numbers(config.transform, config.image_size)
    else:
        transform = open_clip_transform(
            written.get("preprocess_cfg") or {}, config.image_size or own, str(folder)
        )
    timm_inside = "timm_model_name" in vision
    build = own if timm_inside else transform.size()
    with seeded(config.untrained_seed or 0, "untrained"):
        visual = visual_tower(model_config["embed_dim"], {**vision, "image_size": build}, quick_gelu)
    dropped: dict[str, int] = {}
    if config.untrained_seed is None:
        dropped = _load(visual, load_tensors(find_weights(folder, WEIGHTS)), str(folder))
    visual.eval()
    if timm_inside:
        resize(visual.trunk, transform.size(), vision["timm_model_name"])
    trunk = OpenClipTrunk(
        visual,
        config.layer,
        final_norm=config.final_norm,
        image_size=transform.size(),
        architecture={"vision_cfg": vision, "quick_gelu": quick_gelu},
    )
    return VisionEncoder(trunk, transform, config, {"left_out": dropped, **about})


def open_clip_transform(given: Mapping[str, Any], image_size: int, what: str) -> Transform:
    """open_clip's own evaluation transform. Raises UserError when mean or std is not written down."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    if not given.get("mean") or not given.get("std"):
        raise UserError(
            f"The preprocess_cfg of {what} names no mean and std; give the encoder a `transform`."
        )
    keys = ("mean", "std", "interpolation", "resize_mode", "fill_color")
    chosen = PreprocessCfg(size=image_size, **{key: given[key] for key in keys if key in given})
    spec = {"kind": "open_clip", "size": image_size, **{key: getattr(chosen, key) for key in keys}}
    policy = "squash" if chosen.resize_mode == "squash" else "crop"
    apply: Any = image_transform_v2(chosen, is_train=False)
    return Transform(apply, spec, policy)


def visual_tower(embed_dim: int, vision: Mapping[str, Any], quick_gelu: bool) -> Any:
    """open_clip's visual tower with the weights it starts from. Raises UserError when it cannot be built."""
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    try:
        return _build_vision_tower(embed_dim, CLIPVisionCfg(**vision), quick_gelu)
    except (TypeError, AssertionError, RuntimeError) as error:
        raise UserError(f"open_clip cannot build this vision tower: {error}") from None


def _load(visual: nn.Module, tensors: dict[str, Tensor], what: str) -> dict[str, int]:
    from open_clip.model import resize_pos_embed

    resize_pos_embed(tensors, SimpleNamespace(visual=visual))
    own = {name.removeprefix("visual."): t for name, t in tensors.items() if name.startswith("visual.")}
    load_strict(visual, own, what)
    return account((name for name in tensors if not name.startswith("visual.")), what)


def _patch_size(model: nn.Module | None) -> int | None:
    embed: Any = getattr(model, "patch_embed", None)
    return embed.patch_size[0] if hasattr(embed, "patch_size") else None


def _side(size: Any) -> int:
    sides = set(size) if isinstance(size, (list, tuple)) else {size}
    if len(sides) != 1:
        raise UserError(f"Pictures of {tuple(size)} are not square; they are not supported.")
    return int(sides.pop())

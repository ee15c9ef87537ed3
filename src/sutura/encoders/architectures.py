"""What the catalog leaves out of the architectures in transformers' format: heads, inner width, and the like.

With a row of the catalog it makes a whole config, so that a module of the right shape can be built without a download.
Where timm has the same architecture, a test holds heads and inner width against timm's module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sutura.encoders.catalog_rows import Row

_BASE = {"num_attention_heads": 12, "intermediate_size": 3072}
_LARGE = {"num_attention_heads": 16, "intermediate_size": 4096}
_TANH = {"hidden_act": "gelu_pytorch_tanh"}

#: Catalog id → (model_type of the vision config, what the row does not say).
ARCHITECTURES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "openai/clip-vit-base-patch32": ("clip_vision_model", _BASE),
    "openai/clip-vit-base-patch16": ("clip_vision_model", _BASE),
    "openai/clip-vit-large-patch14": ("clip_vision_model", _LARGE),
    "google/vit-base-patch16-224": ("vit", _BASE),
    "google/vit-large-patch16-224": ("vit", _LARGE),
    "facebook/dino-vitb16": ("vit", _BASE),
    "facebook/ijepa_vith14_1k": ("ijepa", {"num_attention_heads": 16, "intermediate_size": 5120}),
    "google/siglip-base-patch16-224": ("siglip_vision_model", _BASE | _TANH),
    "google/siglip-so400m-patch14-384": (
        "siglip_vision_model",
        {"num_attention_heads": 16, "intermediate_size": 4304, **_TANH},
    ),
    "google/siglip2-base-patch16-224": ("siglip_vision_model", _BASE | _TANH),
    "facebook/dinov2-large": ("dinov2", {"num_attention_heads": 16, "mlp_ratio": 4, "image_size": 518}),
    "facebook/dinov2-with-registers-large": (
        "dinov2_with_registers",
        {"num_attention_heads": 16, "mlp_ratio": 4, "num_register_tokens": 4, "image_size": 518},
    ),
    "facebook/dinov3-vitl16-pretrain-lvd1689m": ("dinov3_vit", {**_LARGE, "num_register_tokens": 4}),
    "facebook/vjepa2-vitl-fpc64-256": ("vjepa2", {"num_attention_heads": 16, "mlp_ratio": 4.0}),
}


def vision_values(row: Row, size: str = "image_size") -> dict[str, Any]:
    """The values of a vision config.

    Args:
        row: of the catalog.
        size: what the config calls the picture's size.
    """
    _, extra = ARCHITECTURES[row.id]
    return {
        "hidden_size": row.width,
        "num_hidden_layers": row.depth,
        "patch_size": row.patch_size,
        size: row.image_size,
        **extra,
    }

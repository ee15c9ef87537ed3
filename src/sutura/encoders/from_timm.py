"""timm: any model with forward_intermediates; ViTs give patches, conv nets their map."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sutura.core.checkpoint import load_strict, load_tensors, read_json
from sutura.core.errors import UserError
from sutura.core.registry import suggest
from sutura.core.runtime import seeded
from sutura.encoders.base import Trunk, VisionEncoder, resolve_layer
from sutura.encoders.config import EncoderConfig
from sutura.encoders.transform import Transform, from_numbers
from sutura.encoders.weights import find_weights

WEIGHTS = ("model.safetensors",)
PATTERNS = ("config.json", "model.safetensors")
_NEEDED = ("input_size", "mean", "std", "interpolation", "crop_pct")


class TimmTrunk(Trunk):
    """A timm model's intermediate features.

    Args:
        model: with its weights.
        layer: which block (stage, for a conv net), as a config says it.
        final_norm: whether the model's own norm is applied.
        image_size: side of the pictures it will be given.
        architecture: name and arguments it was made with.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: int,
        *,
        final_norm: bool,
        image_size: int,
        architecture: Mapping[str, Any],
    ) -> None:
        super().__init__()
        what = architecture["architecture"]
        if not hasattr(model, "forward_intermediates"):
            raise UserError(f"timm's {what!r} has no forward_intermediates, so its patches cannot be read.")
        self.model: Any = model
        self.architecture, self.final_norm = dict(architecture), final_norm
        self.num_prefix_tokens = getattr(model, "num_prefix_tokens", 0)
        embed: Any = getattr(model, "patch_embed", None)
        self.patch_size = embed.patch_size[0] if hasattr(embed, "patch_size") else None
        if final_norm and isinstance(getattr(model, "norm", nn.Identity()), nn.Identity):
            raise UserError(f"timm's {what!r} has no norm over its patches; leave final_norm off.")
        self._options = {
            "intermediates_only": True,
            "output_fmt": "NCHW",
            **(
                {"norm": final_norm}
                if "norm" in inspect.signature(self.model.forward_intermediates).parameters
                else {}
            ),
        }
        with torch.no_grad():
            self.depth = len(
                self.model.forward_intermediates(torch.zeros(1, 3, image_size, image_size), **self._options)
            )
        self.layer = resolve_layer(layer, self.depth, what)

    def blocks(self) -> Sequence[nn.Module]:
        blocks = getattr(self.model, "blocks", None)
        return list(blocks)[: self.layer + 1] if blocks is not None and len(blocks) == self.depth else ()

    def forward(
        self, pixels: Float[Tensor, "batch 3 height_px width_px"]
    ) -> Float[Tensor, "batch width rows columns"]:
        return self.model.forward_intermediates(pixels, indices=[self.layer], **self._options)[0]


def load_timm(folder: Path, config: EncoderConfig, about: Mapping[str, Any]) -> VisionEncoder:
    """An encoder from a folder in timm's format: config.json with "architecture", model.safetensors.

    Raises:
        UserError: an unknown architecture, weights that do not fit, or preprocessing that is not written
            down.
    """
    import timm

    written = read_json(folder / "config.json")
    name = written["architecture"]
    if config.id.startswith(
        "timm:"
    ):  # weights of a QuickGELU variant lie under the plain architecture's name
        name = config.id.removeprefix("timm:").split(".")[0]
    if not timm.is_model(name):
        raise UserError(f"timm knows no architecture {name!r}. {suggest(name, timm.list_models())}")
    given = dict(written.get("model_args") or {})
    arguments: dict[str, Any] = {"num_classes": written.get("num_classes", 0), **given}
    if "global_pool" in written and "global_pool" not in given:
        arguments["global_pool"] = written["global_pool"]
    with seeded(config.untrained_seed or 0, "untrained"):
        model = timm.create_model(name, pretrained=False, **arguments)
    if config.untrained_seed is None:
        load_checked(model, load_tensors(find_weights(folder, WEIGHTS)), str(folder))
    model.eval()
    if config.transform is not None:
        transform = from_numbers(config.transform, config.image_size)
    else:
        transform = timm_transform(written.get("pretrained_cfg") or {}, str(folder), config.image_size)
    resize(model, transform.size(), name)
    trunk = TimmTrunk(
        model,
        config.layer,
        final_norm=config.final_norm,
        image_size=transform.size(),
        architecture={"architecture": name, **arguments},
    )
    return VisionEncoder(trunk, transform, config, {"architecture": name, **about})


def load_checked(model: nn.Module, tensors: dict[str, Tensor], what: str) -> None:
    """Load every tensor, through the architecture's own key conversion when the names are not timm's."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if tensors.keys() != model.state_dict().keys() and convert is not None:
        tensors = convert(tensors, model)
    load_strict(model, tensors, what)


def resize(model: Any, image_size: int, name: str) -> None:
    """Bring a model to another picture size by its own position interpolation; conv nets need nothing."""
    embed = getattr(model, "patch_embed", None)
    own = getattr(embed, "img_size", None)
    if own is None or tuple(own) == (image_size, image_size):
        return
    if not hasattr(model, "set_input_size"):
        raise UserError(
            f"timm's {name!r} cannot be given pictures of {image_size}; its own size is {own[0]}."
        )
    try:
        model.set_input_size(img_size=(image_size, image_size))
    except (AssertionError, ValueError, RuntimeError) as error:
        raise UserError(f"timm's {name!r} cannot be brought to pictures of {image_size}: {error}") from None


def timm_transform(given: Mapping[str, Any], what: str, image_size: int | None = None) -> Transform:
    """timm's own evaluation transform from a pretrained config.

    Raises:
        UserError: a constant that is not written down (timm would quietly take ImageNet's).
    """
    from timm.data.config import resolve_data_config
    from timm.data.transforms_factory import create_transform

    missing = [key for key in _NEEDED if given.get(key) is None]
    if missing:
        raise UserError(
            f"The pretrained_cfg of {what} names no {', '.join(missing)}; give the encoder a `transform` "
            "with "
            "image_size, mean, std and resize."
        )
    asked = {} if image_size is None else {"input_size": (3, image_size, image_size)}
    data = resolve_data_config(asked, pretrained_cfg=dict(given))
    policy = "squash" if data.get("crop_mode") == "squash" else "crop"
    spec = {"kind": "timm", **{key: data[key] for key in sorted(data)}}
    apply: Any = create_transform(**data, is_training=False)
    return Transform(apply, spec, policy)

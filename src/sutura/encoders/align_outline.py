"""Both towers of an `align` run without weights, on the meta device, for a plan. Nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sutura.core.checkpoint import read_json
from sutura.core.errors import UserError
from sutura.encoders.align_start import no_text_tower
from sutura.encoders.align_towers import (
    Args,
    at_size,
    from_distilbert,
    from_open_clip,
    from_timm,
    from_transformers,
)
from sutura.encoders.config import EncoderConfig
from sutura.encoders.from_open_clip import CONFIG
from sutura.encoders.outline import outline_encoder
from sutura.encoders.own_text import folder_name, heads_of, own_folder, text_args
from sutura.models.siglip import SigLIP
from sutura.models.text_encoder import build_text
from sutura.models.vit import ViT
from sutura.models.zoo_format import build_zoo_towers, read_zoo_config

#: open_clip's end of text, and DistilBERT's length, where no tokenizer is at hand.
END_ID = 49407
_DISTILBERT = ("distilbert/distilbert-base-uncased", "distilbert-base-uncased")


@dataclass(frozen=True)
class StartOutline:
    """Two towers with shapes and no values; what `AlignStart` has beside them is here as far as a shape needs it.

    Args:
        vision, text: on the meta device.
        image_projection, text_projection: dim × width; None where the start has none.
        length: tokens of the longest text.
        image_shift, text_shift: dim.
        bias: of the sigmoid loss; None where the towers have none.
    """

    vision: ViT
    text: nn.Module
    image_projection: Tensor | None
    text_projection: Tensor | None
    image_size: int
    length: int
    name: str
    vision_args: Args
    text_args: Args
    image_shift: Tensor | None = None
    text_shift: Tensor | None = None
    log_scale: float = 0.0
    bias: float | None = None
    tokenizer: Any = None
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)


def outline_random(vision: Args, text: Args) -> StartOutline:
    """Towers from random weights.

    Args:
        vision: of `ViT`.
        text: of `build_text`, vocabulary and length among them.

    Raises:
        UserError: sizes that build no tower.
    """
    try:
        with torch.device("meta"):
            vit, tower = ViT(**vision), build_text(**text)
    except (TypeError, ValueError) as error:
        raise UserError(f"The sizes of the random towers build none: {error}") from None
    return StartOutline(vit, tower, None, None, vit.image_size, text["length"], "random", vision, text)


def outline_start(
    vision: str, text: str | None = None, *, image_size: int | None = None, length: int | None = None
) -> StartOutline:
    """The shapes of a start, as `load_start` would read it.

    Args:
        vision, text, image_size, length: as there.

    Raises:
        UserError: a checkpoint whose shape is not known here.
    """
    with torch.device("meta"):
        both = _two_towers(vision, image_size, length)
        if both is not None and text is None:
            return both
        if text is None:
            raise no_text_tower(vision)
        tower, args = _distilbert(text)
        seen, vision_args = (
            (both.vision, both.vision_args) if both is not None else _picture_tower(vision, image_size)
        )
    return StartOutline(
        seen,
        tower,
        None if both is None else both.image_projection,
        None,
        seen.image_size,
        min(args["length"], length or args["length"]),
        f"{vision} + {text}",
        vision_args,
        {"kind": "bidirectional", **args},
    )


def _two_towers(spec: str, image_size: int | None, length: int | None) -> StartOutline | None:
    """A model with both towers; None for a picture tower alone."""
    if (own := own_folder(spec)) is not None:
        return _own(own, image_size, length)
    kind, _, rest = spec.partition(":")
    folder = Path(rest if kind == "hf" else spec).expanduser()
    if kind == "open_clip" and rest:
        import open_clip

        name = rest.partition("/")[0]
        known = open_clip.get_model_config(name)
        if known is None:
            raise UserError(f"open_clip knows no model {name!r}.")
        return _open_clip(known, spec, image_size, length)
    if (folder / CONFIG).is_file():
        return _open_clip(read_json(folder / CONFIG)["model_cfg"], spec, image_size, length)
    if (folder / "config.json").is_file() and read_json(folder / "config.json").get("model_type") == "clip":
        from transformers import CLIPConfig, CLIPModel

        config = CLIPConfig.from_pretrained(str(folder), local_files_only=True)
        return _whole(from_transformers(CLIPModel(config), END_ID, spec), spec, image_size, length)
    if kind == "hf" and not folder.is_dir():
        raise UserError(
            f"The text tower of {spec!r} is not known here, and a plan downloads nothing. Give open_clip:NAME/TAG, or "
            "a local folder (its config files are enough)."
        )
    return None


def _open_clip(known: Args, spec: str, image_size: int | None, length: int | None) -> StartOutline:
    import open_clip

    values = {key: value for key, value in known.items() if key not in ("custom_text", "preprocess_cfg")}
    if known.get("custom_text") or "hf_model_name" in known.get("text_cfg", {}):
        raise UserError(f"{spec} reads another library's text tower; a start needs open_clip's own.")
    return _whole(from_open_clip(open_clip.CLIP(**values), END_ID, spec), spec, image_size, length)


def _whole(found: Any, spec: str, image_size: int | None, length: int | None) -> StartOutline:
    towers, args, text_args = found
    args = at_size(towers.vision, args, image_size or args["image_size"])
    towers.requires_grad_(True)
    return StartOutline(
        towers.vision,
        towers.text,
        towers.image_projection.weight,
        towers.text_projection.weight,
        towers.vision.image_size,
        min(text_args["length"], length or text_args["length"]),
        spec,
        args,
        {"kind": "causal", **text_args},
    )


def _own(folder: Path, image_size: int | None, length: int | None) -> StartOutline | None:
    """Towers of a zoo folder by its config; None where it has no text tower."""
    written = read_zoo_config(folder)
    if "text" not in written:
        return None
    model: Any = build_zoo_towers(written)
    side = image_size or written["transform"]["image_size"]
    args = at_size(model.vision, dict(written["args"]), side)
    return StartOutline(
        vision=model.vision,
        text=model.text,
        image_size=side,
        length=min(model.text.length, length or model.text.length),
        name=folder_name(folder),
        vision_args=args,
        text_args=text_args(written),
        bias=0.0 if isinstance(model, SigLIP) else None,
        **heads_of(model),
    )


def _picture_tower(spec: str, image_size: int | None) -> tuple[ViT, Args]:
    trunk: Any = outline_encoder(EncoderConfig(id=spec, image_size=image_size)).trunk
    if hasattr(trunk, "vit"):
        args = {key: value for key, value in trunk.architecture.items() if key != "model"}
        return trunk.vit.requires_grad_(True), at_size(trunk.vit, args, image_size or trunk.vit.image_size)
    if not hasattr(trunk, "model") or not spec.startswith("timm:"):
        raise UserError(
            f"{spec} is read through {type(trunk).__name__}; a picture tower alone is timm's or the zoo's."
        )
    vit, args = from_timm(trunk.model, spec)
    return vit.requires_grad_(True), args


def _distilbert(text: str) -> tuple[nn.Module, Args]:
    from transformers import DistilBertConfig, DistilBertModel

    named = text.removeprefix("hf:")
    if (Path(named).expanduser() / "config.json").is_file():
        config = DistilBertConfig.from_pretrained(str(Path(named).expanduser()), local_files_only=True)
    elif named in _DISTILBERT:
        config = DistilBertConfig()  # the library's defaults are this checkpoint's shape
    else:
        raise UserError(
            f"The shape of text tower {text!r} is not known here, and a plan downloads nothing. Known: "
            f"hf:{_DISTILBERT[0]}; or give a folder with its config.json."
        )
    return from_distilbert(DistilBertModel(config), text)

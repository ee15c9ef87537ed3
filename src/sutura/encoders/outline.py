"""Encoders without weights, on the meta device: what a plan is computed from. Nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from sutura.core.checkpoint import read_json
from sutura.core.errors import UserError
from sutura.core.registry import suggest
from sutura.encoders.architectures import ARCHITECTURES, vision_values
from sutura.encoders.base import Trunk, VisionEncoder
from sutura.encoders.catalog import BY_ID, known_ids, zoo_root
from sutura.encoders.catalog_rows import Row
from sutura.encoders.config import EncoderConfig
from sutura.encoders.families import FAMILIES, Family

Built = tuple[Trunk, int]
"""A trunk on the meta device and the side of the pictures it is given."""


class EncoderOutline(VisionEncoder):
    """A VisionEncoder with shapes and no values: no transform, no fingerprint.

    Args:
        trunk: on the meta device.
        image_size: side of its pictures.
        config: the row that was asked for.
    """

    def __init__(self, trunk: Trunk, image_size: int, config: EncoderConfig) -> None:
        nn.Module.__init__(self)
        self.trunk, self.config, self.image_size = trunk, config, image_size
        self.name, self.id = config.display_name(), config.id
        self.num_prefix_tokens, self.fingerprint = trunk.num_prefix_tokens, ""
        family = getattr(trunk, "family", None)  # of transformers; timm's trunks know their name
        name = family.model if family is not None else dict(trunk.architecture).get("architecture")
        self.about, self._learning = {"architecture": name}, []
        self.requires_grad_(False)
        self.train(False)
        self._measure()


def outline_encoder(config: EncoderConfig) -> EncoderOutline:
    """An encoder's shape: of the catalog, the zoo, a local folder, or timm's or open_clip's own tables.

    Raises:
        UserError: a checkpoint whose shape is in none of them, or a setting that does not fit it.
    """
    try:
        with torch.device("meta"):
            trunk, side = _build(config)
            return EncoderOutline(trunk, side, config)
    except UserError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"Encoder {config.id!r} cannot be planned without its weights: {str(error).splitlines()[0]}"
        ) from None


def _build(config: EncoderConfig) -> Built:
    if config.fuse:
        return _fused(config)
    kind, _, rest = config.id.partition(":")
    row = BY_ID.get(rest if kind == "hf" else config.id)
    if row is not None and row.loader == "transformers":
        return _transformers_row(row, config)
    if row is not None and row.loader == "timm":
        assert row.timm_name is not None
        return _timm_name(row.timm_name, config)
    if kind == "timm":
        return _timm_name(rest, config)
    if kind == "open_clip":
        return _open_clip_name(rest, config)
    folder = zoo_root() / rest if kind == "zoo" else Path(config.id).expanduser()
    if folder.is_dir():
        return _folder(folder, config)
    raise UserError(
        f"The shape of encoder {config.id!r} is not known here, and a plan downloads nothing. "
        f"{suggest(config.id, known_ids())} timm:NAME and open_clip:NAME/TAG are known by their libraries; of any "
        "other give a local folder (its config files are enough)."
    )


def _fused(config: EncoderConfig) -> Built:
    """The parts' trunks on one canvas, as high as all of them together."""
    from sutura.encoders.fused import FusedTrunk, check_grids

    parts = [outline_encoder(part) for part in config.parts()]
    check_grids(parts, config.id)
    return FusedTrunk(parts), sum(part.image_size for part in parts)


def _transformers_row(row: Row, config: EncoderConfig) -> Built:
    import transformers

    family = FAMILIES[ARCHITECTURES[row.id][0]]
    config_class: Any = getattr(transformers, family.model).config_class
    side = config.image_size or row.image_size
    return _family(config_class(**vision_values(row, family.size)), family, side, config), side


def _family(vision: Any, family: Family, side: int, config: EncoderConfig) -> Trunk:
    import transformers

    from sutura.encoders.from_transformers import FamilyTrunk

    if family.resized:
        setattr(vision, family.size, side)
    for name, value in family.settings:
        setattr(vision, name, value)
    model: Any = getattr(transformers, family.model)(vision, **dict(family.arguments)).eval()
    kept = model.get_submodule(family.trunk)
    return FamilyTrunk(kept, family, config.layer, final_norm=config.final_norm)


def _timm_name(name: str, config: EncoderConfig) -> Built:
    import timm
    from timm.models import get_pretrained_cfg

    if not timm.is_model(name.split(".")[0]):
        known = timm.list_models(pretrained=True)
        raise UserError(f"timm knows no model {name!r}. {suggest(name, known)}")
    cfg = get_pretrained_cfg(name)
    size = cfg.input_size if cfg is not None else None
    side = config.image_size or (size[-1] if size else 224)
    classes = cfg.num_classes if cfg is not None else 0
    return _timm(name.split(".")[0], {"num_classes": classes}, side, config), side


def _timm(name: str, arguments: dict[str, Any], side: int, config: EncoderConfig) -> Trunk:
    import timm

    from sutura.encoders.from_timm import TimmTrunk, resize

    model = timm.create_model(name, pretrained=False, **arguments).eval()
    resize(model, side, name)
    return TimmTrunk(
        model,
        config.layer,
        final_norm=config.final_norm,
        image_size=side,
        architecture={"architecture": name, **arguments},
    )


def _open_clip_name(name: str, config: EncoderConfig) -> Built:
    import open_clip

    model, _, _ = name.partition("/")
    known = open_clip.get_model_config(model)
    if known is None:
        raise UserError(f"open_clip knows no model {model!r}. {suggest(model, open_clip.list_models())}")
    return _open_clip(known, config)


def _open_clip(known: dict[str, Any], config: EncoderConfig) -> Built:
    from sutura.encoders.from_open_clip import OpenClipTrunk, visual_tower
    from sutura.encoders.from_timm import resize

    vision = {**known["vision_cfg"], "timm_model_pretrained": False}
    quick = bool(known.get("quick_gelu", False))
    own = vision["image_size"]
    own = own[0] if isinstance(own, (list, tuple)) else int(own)
    side = config.image_size or own
    timm_inside = "timm_model_name" in vision
    visual = visual_tower(known["embed_dim"], {**vision, "image_size": own if timm_inside else side}, quick)
    visual.eval()
    if timm_inside:
        resize(visual.trunk, side, vision["timm_model_name"])
    trunk = OpenClipTrunk(
        visual,
        config.layer,
        final_norm=config.final_norm,
        image_size=side,
        architecture={"vision_cfg": vision, "quick_gelu": quick},
    )
    return trunk, side


def _folder(folder: Path, config: EncoderConfig) -> Built:
    """A folder by its config files; weights need not be there."""
    from sutura.encoders.from_open_clip import CONFIG
    from sutura.encoders.from_zoo import encoder_folder

    folder = encoder_folder(folder)
    written = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    given = config.image_size or (config.transform.image_size if config.transform is not None else None)
    if "model_type" in written:
        return _transformers_folder(folder, config)
    if (folder / CONFIG).is_file():
        return _open_clip(read_json(folder / CONFIG)["model_cfg"], config)
    if "architecture" in written:
        arguments = {"num_classes": written.get("num_classes", 0), **(written.get("model_args") or {})}
        if "global_pool" in written:
            arguments.setdefault("global_pool", written["global_pool"])
        size = (written.get("pretrained_cfg") or {}).get("input_size")
        side = given or (size[-1] if size else 224)
        return _timm(written["architecture"], arguments, side, config), side
    if written.get("model") == "vit":
        from sutura.encoders.from_zoo import ZooTrunk
        from sutura.models.vit import ViT

        vit = ViT(**written["args"]).eval()
        trunk = ZooTrunk(vit, written["args"], config.layer, final_norm=config.final_norm)
        return trunk, given or written["transform"]["image_size"]
    raise UserError(
        f"{folder} holds no encoder's config: config.json with model_type (transformers), architecture (timm) or "
        f"model: vit (the zoo), or {CONFIG}."
    )


def _transformers_folder(folder: Path, config: EncoderConfig) -> Built:
    from transformers import AutoConfig, AutoModel

    from sutura.encoders.from_transformers import OtherTrunk
    from sutura.encoders.transform import from_numbers, from_processor

    if config.transform is not None:
        side = from_numbers(config.transform, config.image_size).size()
    else:
        with torch.device("cpu"):
            side = from_processor(folder, config.image_size).size()
    whole = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    vision = getattr(whole, "vision_config", None) or whole
    family = FAMILIES.get(vision.model_type)
    if family is not None:
        return _family(vision, family, side, config), side
    return OtherTrunk(AutoModel.from_config(vision).eval(), config.layer, side), side

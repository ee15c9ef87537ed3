"""Two-tower models whole: a picture tower and a text tower with its own tokenizer and transform."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from sutura.core.checkpoint import load_strict, load_tensors, read_json
from sutura.core.errors import UserError
from sutura.core.fetch import fetch
from sutura.encoders.config import EncoderConfig
from sutura.encoders.from_open_clip import CONFIG, WEIGHTS, open_clip_transform
from sutura.encoders.own_text import load_towers, own_folder
from sutura.encoders.transform import Transform, from_numbers, from_processor
from sutura.encoders.weights import find_weights, library_model

#: What of a Hub repository a whole model needs, its tokenizer included.
PATTERNS = ("*.json", "*.txt", "*.model", "model*.safetensors", "open_clip_model.safetensors")
#: Families trained on texts padded to one length, with no mask over the padding.
_PADDED = ("siglip", "siglip2")


@dataclass(frozen=True)
class TwoTower:
    """Pictures and texts in one space. Tower, tokenizer and transform come from one folder.

    Args:
        name: for tables.
        model: both towers.
        transform: picture to pixels.
        image: pixels to embeddings, of any length.
        text: texts to embeddings, of any length.
    """

    name: str
    model: nn.Module
    transform: Transform
    image: Callable[[Tensor], Tensor]
    text: Callable[[list[str]], Tensor]

    @torch.no_grad()
    def encode_image(self, pictures: Sequence[Image.Image]) -> Float[Tensor, "pictures dim"]:
        """Embeddings through the model's own pooling and projection."""
        pixels = torch.stack([self.transform(picture) for picture in pictures])
        return self.image(pixels.to(self.device)).float().cpu()

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
        """Embeddings through the model's own pooling and projection.

        Raises:
            UserError: a word that a model with a closed vocabulary does not know.
        """
        return self.text(list(texts)).float().cpu()

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.model.parameters()).device


def load_two_tower(spec: str | EncoderConfig) -> TwoTower:
    """A model with both towers.

    Args:
        spec: a local folder of CLIP or SigLIP in transformers' format or open_clip's; `zoo:NAME`, a zoo folder, or
            the folder of a pretraining run of ours (`runs/zoo/clip-…`); `hf:organisation/name` for either
            format on the Hub.

    Raises:
        UserError: no such folder, one without a text tower, or weights that are not whole.
    """
    config = EncoderConfig(id=spec) if isinstance(spec, str) else spec
    if config.untrained_seed is not None:
        raise UserError("Zero-shot of random weights is chance; leave untrained_seed out.")
    if (own := own_folder(config.id)) is not None:
        towers = load_towers(own)
        model, transform = towers.model, from_numbers(towers.transform)
        tower = TwoTower(config.display_name(), model, transform, model.encode_image, towers.encode)
        tower.model.requires_grad_(False)
        return tower
    if config.id.startswith("hf:"):
        folder = fetch(config.id.removeprefix("hf:"), revision=config.revision, patterns=PATTERNS).folder
    else:
        folder = Path(config.id).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"{config.id!r} has no text tower that can be read: zero-shot takes a folder of CLIP or SigLIP "
            "(transformers or open_clip), hf:organisation/name, zoo:NAME, or the folder of a pretraining run "
            "(runs/zoo/clip-…)."
        )
    if (folder / CONFIG).is_file():
        tower = _open_clip(folder, config)
    elif (folder / "config.json").is_file() and "model_type" in read_json(folder / "config.json"):
        tower = _transformers(folder, config)
    else:
        raise UserError(f"{folder} is no two-tower model: it needs config.json with model_type, or {CONFIG}.")
    tower.model.eval().requires_grad_(False)
    return tower


def _transformers(folder: Path, config: EncoderConfig) -> TwoTower:
    from transformers import AutoModel, AutoTokenizer

    model, info = library_model(AutoModel, folder)
    if not (hasattr(model, "get_text_features") and hasattr(model, "get_image_features")):
        raise UserError(
            f"{folder} is a {type(model).__name__}, which has no text tower; zero-shot needs CLIP or SigLIP."
        )
    missing = sorted(info["missing_keys"])
    if missing or info["mismatched_keys"]:
        raise UserError(
            f"{len(missing) + len(info['mismatched_keys'])} weights of {type(model).__name__} are missing from "
            f"{folder} or have another shape ({', '.join(missing[:4])}); they would be random."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder} holds no tokenizer of its own: {str(error).splitlines()[0]}") from None
    if config.transform is not None:
        transform = from_numbers(config.transform, config.image_size)
    else:
        transform = from_processor(folder, config.image_size)
    padded = model.config.model_type in _PADDED
    length = model.config.text_config.max_position_embeddings

    def text(texts: list[str]) -> Tensor:
        tokens = tokenizer(
            texts,
            padding="max_length" if padded else True,
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
        wanted = ("input_ids",) if padded else ("input_ids", "attention_mask")
        found = {key: tokens[key].to(model.device) for key in wanted if key in tokens}
        return _pooled(model.get_text_features(**found))

    return TwoTower(
        config.display_name(),
        model,
        transform,
        lambda pixels: _pooled(model.get_image_features(pixel_values=pixels)),
        text,
    )


def _pooled(output: Any) -> Tensor:
    """transformers gives the embedding bare or inside an output, by version."""
    return output if isinstance(output, Tensor) else output.pooler_output


def _open_clip(folder: Path, config: EncoderConfig) -> TwoTower:
    import open_clip

    written = read_json(folder / CONFIG)
    values = deepcopy(written.get("model_cfg") or {})
    vision, text = values.get("vision_cfg"), values.get("text_cfg")
    if not vision or not text:
        raise UserError(f"{folder / CONFIG} names no vision_cfg and text_cfg.")
    vision["timm_model_pretrained"] = False
    custom = bool(values.pop("custom_text", False)) or "hf_model_name" in text
    if "hf_model_name" in text:
        text["hf_model_pretrained"] = False
    cls = open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP
    try:
        model = cls(**values)
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    except (OSError, TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise UserError(
            f"open_clip cannot build the model in {folder}: {str(error).splitlines()[0]}"
        ) from None
    load_strict(model, load_tensors(find_weights(folder, WEIGHTS)), str(folder))
    if config.transform is not None:
        transform = from_numbers(config.transform, config.image_size)
    else:
        size = vision["image_size"]
        side = size[0] if isinstance(size, (list, tuple)) else size
        transform = open_clip_transform(
            written.get("preprocess_cfg") or {}, config.image_size or side, str(folder)
        )
    return TwoTower(
        config.display_name(),
        model,
        transform,
        model.encode_image,
        lambda texts: model.encode_text(tokenizer(texts).to(next(model.parameters()).device)),
    )

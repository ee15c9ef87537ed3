"""One tower at a time for an aligned model: a picture tower of timm or the zoo, a text tower of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sutura.core.checkpoint import read_json
from sutura.core.errors import UserError
from sutura.core.fetch import fetch
from sutura.encoders.align_towers import Args, at_size, compare, from_distilbert, from_timm
from sutura.encoders.config import EncoderConfig
from sutura.encoders.text_tokenizer import TransformersTokenizer
from sutura.encoders.transform import Transform
from sutura.encoders.weights import library_model
from sutura.models.text_encoder import TextEncoder
from sutura.models.vit import ViT

#: Read once by a tower of ours and by its library's, to see that they agree.
PROBE_TEXTS = ["a photo of two dogs on a red sofa", "A small cube!"]
#: Heads that a DistilBERT's file may hold beside the encoder; they are left out.
_HEADS = ("vocab_", "classifier.", "pre_classifier.", "qa_outputs.")


def probe_pixels(image_size: int) -> Float[Tensor, "2 3 height columns"]:
    """Two pictures of noise, the same at every call."""
    return torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))


def picture_tower(config: EncoderConfig, plain_gelu: bool) -> tuple[ViT, Args, Transform]:
    """A picture tower alone, its arguments and its transform.

    Args:
        config: of a timm model or a zoo encoder.
        plain_gelu: allows weights trained with QuickGELU under plain GELU.

    Raises:
        UserError: another kind of encoder, or one with an option that has no place here.
    """
    from sutura.encoders.from_timm import TimmTrunk
    from sutura.encoders.from_zoo import ZooTrunk
    from sutura.encoders.loaders import load_encoder

    encoder = load_encoder(config)
    trunk, name = encoder.trunk, config.display_name()
    if isinstance(trunk, ZooTrunk):
        args = {key: value for key, value in trunk.architecture.items() if key != "model"}
        args = at_size(trunk.vit, args, encoder.image_size)
        return trunk.vit.requires_grad_(True), args, encoder.own_transform
    if not isinstance(trunk, TimmTrunk):
        raise UserError(
            f"{name} is read through {type(trunk).__name__}; a picture tower alone is timm's or the zoo's."
        )
    if not plain_gelu:
        _refuse_plain_gelu(config, trunk.architecture["architecture"])
    vit, args = from_timm(trunk.model, name)

    def pooled(given: Tensor) -> Tensor:
        return trunk.model.forward_head(trunk.model.forward_features(given), pre_logits=True)

    compare(
        lambda given: vit.eval()(given)[0],
        pooled,
        probe_pixels(args["image_size"]),
        f"The picture tower of {name}",
    )
    return vit, args, encoder.own_transform


def _refuse_plain_gelu(config: EncoderConfig, architecture: str) -> None:
    """timm keeps some weights under two names, and one of them runs them with another activation than they had."""
    from timm.models import get_pretrained_cfg

    folder = Path(config.id).expanduser()
    if (folder / "config.json").is_file():
        tag = (read_json(folder / "config.json").get("pretrained_cfg") or {}).get("tag")
    else:
        tag = config.id.partition(".")[2]
    try:
        notes = getattr(get_pretrained_cfg(f"{architecture}.{tag}"), "notes", None) if tag else None
    except RuntimeError:  # a tag of somebody's own, of which timm knows nothing
        notes = None
    if "quickgelu" not in architecture and "QuickGELU" in " ".join(notes or ()):
        variant = architecture.replace("_clip_", "_clip_quickgelu_")
        raise UserError(
            f"The weights of {config.id} were trained with QuickGELU and timm's {architecture!r} runs them with GELU: "
            f"their features are other ones. Give timm:{variant}.{tag}, or allow plain_gelu to run them so all the "
            "same."
        )


def text_tower(
    text: str, revision: str | None, length: int | None
) -> tuple[TextEncoder, Args, TransformersTokenizer]:
    """A text tower alone, its arguments and its tokenizer.

    Args:
        text: a DistilBERT: `hf:org/name` or a folder.
        revision: on the Hub.
        length: fewer tokens a text than it holds; None for all.

    Raises:
        UserError: another architecture, weights that are not whole, no tokenizer.
    """
    from sutura.encoders.text import PATTERNS

    if text.startswith("hf:"):
        folder = fetch(text.removeprefix("hf:"), revision=revision, patterns=PATTERNS).folder
    else:
        folder = Path(text).expanduser()
    written = read_json(folder / "config.json")
    if written.get("model_type") != "distilbert":
        raise UserError(f"{text} is a {written.get('model_type')!r}; a text tower alone is a distilbert.")
    library = _distilbert(folder)
    tower, args = from_distilbert(library, text)
    tower.eval()
    tokenizer = TransformersTokenizer.load(folder, min(args["length"], length or args["length"]))
    ids = tokenizer(PROBE_TEXTS)
    seen = (ids != tokenizer.pad_id).long()
    compare(
        lambda given: tower(given)[1]["normed"] * seen[:, :, None],
        lambda given: library(input_ids=given, attention_mask=seen).last_hidden_state * seen[:, :, None],
        ids,
        f"The text tower of {text}",
    )
    return tower, args, tokenizer


def _distilbert(folder: Path) -> Any:
    from transformers import DistilBertModel

    model, info = library_model(DistilBertModel, folder)
    lost = [key for key in info["unexpected_keys"] if not key.startswith(_HEADS)]
    wrong = [*info["missing_keys"], *map(str, info["mismatched_keys"]), *lost]
    if wrong:
        raise UserError(
            f"{len(wrong)} weights in {folder} are missing, of another shape or of no place in a DistilBERT "
            f"({', '.join(sorted(wrong)[:4])}). Nothing was loaded."
        )
    return model.eval()

"""What an aligned model starts from: both towers, their projections, tokenizer and transform, from one place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sutura.core.checkpoint import read_json
from sutura.core.errors import UserError
from sutura.core.fetch import fetch
from sutura.core.hashing import fingerprint, fingerprint_tensors
from sutura.encoders.align_parts import PROBE_TEXTS, picture_tower, probe_pixels, text_tower
from sutura.encoders.align_towers import Args, at_size, compare, from_open_clip, from_transformers
from sutura.encoders.config import EncoderConfig, TransformConfig
from sutura.encoders.from_open_clip import CONFIG
from sutura.encoders.own_text import heads_of, load_towers, no_text, own_folder, text_args
from sutura.encoders.text_tokenizer import (
    OpenClipTokenizer,
    TextTokenizer,
    TransformersTokenizer,
    WordTokenizer,
)
from sutura.encoders.transform import Transform, from_numbers
from sutura.models.siglip import SigLIP
from sutura.models.text_encoder import build_text
from sutura.models.vit import ViT
from sutura.models.zoo_format import has_text
from sutura.nn.block import initialise

#: Where CLIP's and the sigmoid loss's temperatures start, for towers that bring none.
LOG_SCALE = math.log(1 / 0.07)
_RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class AlignStart:
    """Two towers with all that belongs to them.

    Args:
        vision: the picture tower.
        text: the text tower; gives (pooled, intermediates).
        image_projection: dim × width of the picture tower; None where the start has none.
        text_projection: dim × width of the text tower.
        tokenizer: what the text tower reads.
        transform: a picture to pixels, the library's own.
        image_size: side of the pictures, in pixels.
        mean: subtracted from colours in 0 to 1.
        std: divides them after it.
        resize: `squash` or `crop`.
        interpolation: of the resizing.
        crop_pct: share of the resized shorter side that the centre crop keeps.
        log_scale: log of the inverse temperature that the towers were trained to, or CLIP's start.
        bias: of the sigmoid loss; None where the towers have none.
        name: for tables.
        fingerprint: of all of it.
        vision_args: that `ViT` builds the picture tower's shape from.
        text_args: that `models.text_encoder.build_text` builds the text tower's shape from, its `kind` among them.
        image_shift: dim, added behind the projection; None where the start adds nothing.
        text_shift: the same for texts.

    Raises:
        UserError: parts that do not belong together: other ids, longer texts or other sizes than a tower's.
    """

    vision: ViT
    text: nn.Module
    image_projection: Tensor | None
    text_projection: Tensor | None
    tokenizer: TextTokenizer
    transform: Transform
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str
    interpolation: str
    crop_pct: float
    log_scale: float
    bias: float | None
    name: str
    fingerprint: str
    vision_args: Mapping[str, Any]
    text_args: Mapping[str, Any]
    image_shift: Tensor | None = None
    text_shift: Tensor | None = None

    def __post_init__(self) -> None:
        t, a = self.tokenizer, self.text_args
        wrong = []
        if t.words > a["vocabulary"]:
            wrong.append(f"the tokenizer has {t.words} ids, the text tower {a['vocabulary']}")
        if t.length > a["length"]:
            wrong.append(f"the tokenizer gives up to {t.length} tokens, the text tower holds {a['length']}")
        for key, mine in (("end_id", t.end_id), ("pad_id", t.pad_id)):
            if key in a and a[key] != mine:
                wrong.append(f"the tokenizer's {key} is {mine}, the text tower's {a[key]}")
        if not self.transform.size() == self.image_size == self.vision.image_size:
            wrong.append(
                f"the transform makes pictures of {self.transform.size()}, the tower is at {self.vision.image_size}"
            )
        if wrong:
            raise UserError(
                f"The parts of {self.name} do not belong together: {'; '.join(wrong)}. Tower, tokenizer and transform "
                "come from one checkpoint."
            )


def load_start(
    vision: str,
    text: str | None = None,
    *,
    image_size: int | None = None,
    length: int | None = None,
    revision: str | None = None,
    text_revision: str | None = None,
    plain_gelu: bool = False,
) -> AlignStart:
    """Towers, projections, tokenizer and transform of other people's checkpoint, or of one of ours.

    Every tower is run once beside its library's and has to agree with it.

    Args:
        vision: `open_clip:NAME/TAG`; `hf:org/name` or a local folder in open_clip's or transformers' CLIP format;
            `zoo:NAME`, a zoo folder or a pretraining run of ours with a text tower (clip, siglip, eva); or a picture
            tower alone (`timm:NAME`, a timm folder, others of ours).
        text: a DistilBERT (`hf:org/name` or a folder), read as a masked mean; needed for a picture tower alone, and
            takes the place of the text tower where `vision` brings one.
        image_size: another side than the checkpoint's own, by interpolated positions.
        length: fewer tokens a text than the text tower holds.
        revision: of `vision` on the Hub.
        text_revision: of `text` on the Hub.
        plain_gelu: allows weights that were trained with QuickGELU under plain GELU, as an earlier study ran them.

    Raises:
        UserError: no such checkpoint, one that cannot be a start, or parts that do not fit.
    """
    folder = _two_tower_folder(vision, revision)
    if folder is not None:
        start = _two_towers(folder, vision, image_size, length)
        return start if text is None else _with_text(start, text, text_revision, length)
    if text is None:
        raise no_text_tower(vision)
    config = EncoderConfig(id=vision, image_size=image_size, revision=revision)
    found = (*picture_tower(config, plain_gelu), config.display_name())
    return _with_text(found, text, text_revision, length)


def no_text_tower(vision: str) -> UserError:
    """What is said of a name that brings no text tower."""
    if ":" not in vision and not Path(vision).expanduser().exists():
        return UserError(
            f"There is no folder {vision}. A start is open_clip:NAME/TAG, hf:org/name, zoo:NAME, timm:NAME with a "
            "text tower beside, or a folder of a checkpoint or of a pretraining run."
        )
    if (own := own_folder(vision)) is not None:
        return UserError(
            f"{no_text(own)} Or give a text tower beside it (a DistilBERT: hf:org/name or a folder)."
        )
    return UserError(
        f"{vision!r} is a picture tower alone; give the text tower too (a DistilBERT: hf:org/name or a folder)."
    )


def random_start(
    vit_args: Mapping[str, Any],
    text_args: Mapping[str, Any],
    tokenizer: TextTokenizer,
    generator: torch.Generator,
) -> AlignStart:
    """Both towers from random weights.

    Args:
        vit_args: of `ViT`.
        text_args: `kind` (see `build_text`), width, depth, heads and whatever else differs from its defaults; the
            vocabulary, the length and the ids of end and padding are the tokenizer's.
        tokenizer: decides the text tower's vocabulary.
        generator: draws every weight.

    Raises:
        UserError: sizes that build no tower.
    """
    full = full_text_args(text_args, tokenizer)
    try:
        vision, text = ViT(**vit_args), build_text(**full)
    except (TypeError, ValueError) as error:
        raise UserError(f"The sizes of the random towers build none: {error}") from None
    initialise(vision, generator)
    initialise(text, generator)
    half = (0.5, 0.5, 0.5)
    numbers = TransformConfig(image_size=vision.image_size, mean=half, std=half, resize="squash")
    return _start(
        (vision, dict(vit_args), from_numbers(numbers), "random"), (text, full, tokenizer), LOG_SCALE, None
    )


def full_text_args(text_args: Mapping[str, Any], tokenizer: TextTokenizer) -> Args:
    """Arguments of a text tower with what its tokenizer decides: vocabulary, length, the id of end or padding."""
    kind = text_args.get("kind", "causal")
    own = {"pad_id": tokenizer.pad_id} if kind == "bidirectional" else {"end_id": tokenizer.end_id}
    return {"kind": kind, "vocabulary": tokenizer.words, "length": tokenizer.length, **text_args, **own}


Vision = tuple[ViT, Args, Transform, str]
"""The tower, its arguments, its transform, its name."""


def _two_tower_folder(spec: str, revision: str | None) -> Path | None:
    """The folder of a model with both towers; None for a picture tower alone."""
    from sutura.encoders.loaders import open_clip_repo
    from sutura.encoders.text import PATTERNS

    if (own := own_folder(spec)) is not None:
        return own if has_text(own) else None
    kind, _, rest = spec.partition(":")
    if kind == "open_clip" and rest:
        return fetch(open_clip_repo(rest), revision=revision, patterns=PATTERNS).folder
    folder = fetch(rest, revision=revision, patterns=PATTERNS).folder if kind == "hf" and rest else Path(spec)
    folder = folder.expanduser()
    if (folder / CONFIG).is_file():
        return folder
    if (folder / "config.json").is_file() and "model_type" in read_json(folder / "config.json"):
        return folder
    return None


def _two_towers(folder: Path, spec: str, image_size: int | None, length: int | None) -> AlignStart:
    if own_folder(folder) is not None:
        return _from_zoo(folder, image_size, length)
    from sutura.encoders.text import load_two_tower

    name = EncoderConfig(id=spec).display_name()
    library = load_two_tower(EncoderConfig(id=str(folder), image_size=image_size, name=name))
    model: Any = library.model
    if (folder / CONFIG).is_file():
        text_cfg = read_json(folder / CONFIG)["model_cfg"]["text_cfg"]
        if text_cfg.get("hf_tokenizer_name") or text_cfg.get("hf_model_name"):
            raise UserError(f"{name} reads another library's tokenizer; a start needs open_clip's own.")
        own = text_cfg.get("context_length", 77)
        tokenizer: TextTokenizer = OpenClipTokenizer(own, text_cfg.get("tokenizer_kwargs"))
        towers, args, text_args = from_open_clip(model, tokenizer.end_id, name)
    else:
        if model.config.model_type != "clip":
            raise UserError(
                f"{name} is a {type(model).__name__}; in transformers' format a start is a CLIPModel, a picture tower "
                "pooled by attention is not supported."
            )
        tokenizer = TransformersTokenizer.load(folder, model.config.text_config.max_position_embeddings)
        towers, args, text_args = from_transformers(model, tokenizer.end_id, name)
    towers.eval()
    pixels = probe_pixels(args["image_size"])
    compare(towers.encode_image, library.image, pixels, f"The picture tower of {name}")
    compare(
        lambda texts: towers.encode_text(tokenizer(texts)),
        library.text,
        PROBE_TEXTS,
        f"The text tower of {name}",
    )
    args = at_size(towers.vision, args, library.transform.size())
    tokenizer.length = min(tokenizer.length, length or tokenizer.length)
    scale, bias = float(model.logit_scale), getattr(model, "logit_bias", None)
    return _start(
        (towers.vision, args, library.transform, name),
        (towers.text, {"kind": "causal", **text_args}, tokenizer),
        scale,
        None if bias is None else float(bias),
        image_projection=towers.image_projection.weight.detach().clone(),
        text_projection=towers.text_projection.weight.detach().clone(),
    )


def _from_zoo(folder: Path, image_size: int | None, length: int | None) -> AlignStart:
    """Both towers of a zoo folder of ours."""
    own = load_towers(folder)
    model: Any = own.model
    transform = from_numbers(own.transform, image_size)
    args = at_size(model.vision, dict(own.written["args"]), transform.size())
    tokenizer = WordTokenizer(own.vocabulary, min(model.text.length, length or model.text.length))
    return _start(
        (model.vision, args, transform, own.name),
        (model.text, text_args(own.written), tokenizer),
        float(model.log_scale.detach()),
        float(model.bias.detach()) if isinstance(model, SigLIP) else None,
        **heads_of(model),
    )


def _with_text(given: Vision | AlignStart, text: str, revision: str | None, length: int | None) -> AlignStart:
    """A picture tower with a text tower from elsewhere."""
    tower, args, tokenizer = text_tower(text, revision, length)
    full = {"kind": "bidirectional", **args}
    if not isinstance(given, AlignStart):
        name = f"{given[3]} + {Path(text).name}"
        return _start((*given[:3], name), (tower, full, tokenizer), LOG_SCALE, None)
    whole = replace(
        given,
        text=tower,
        text_args=full,
        tokenizer=tokenizer,
        text_projection=None,
        text_shift=None,
        log_scale=LOG_SCALE,
        bias=None,
        name=f"{given.name} + {Path(text).name}",
    )
    return replace(whole, fingerprint=_fingerprint(whole))


def _start(
    vision: Vision,
    text: tuple[nn.Module, Args, TextTokenizer],
    log_scale: float,
    bias: float | None,
    **projections: Tensor | None,
) -> AlignStart:
    (tower, args, transform, name), (text_tower, text_args, tokenizer) = vision, text
    tower.requires_grad_(True).eval()
    text_tower.requires_grad_(True).eval()
    given = {"image_projection": None, "text_projection": None, **projections}
    start = AlignStart(
        vision=tower,
        text=text_tower,
        tokenizer=tokenizer,
        transform=transform,
        image_size=tower.image_size,
        **_facts(transform),
        log_scale=log_scale,
        bias=bias,
        name=name,
        fingerprint="",
        vision_args=args,
        text_args=text_args,
        **given,
    )
    return replace(start, fingerprint=_fingerprint(start))


def _facts(transform: Transform) -> dict[str, Any]:
    """Mean, std and way of resizing, whichever library's transform it is."""
    spec = transform.spec
    interpolation = spec.get("interpolation") or spec.get("resample", "bicubic")
    return {
        "mean": tuple(spec.get("mean") or spec["image_mean"]),
        "std": tuple(spec.get("std") or spec["image_std"]),
        "resize": transform.policy,
        "interpolation": _RESAMPLING.get(interpolation, str(interpolation)),
        "crop_pct": float(spec.get("crop_pct") or 1.0),
    }


def _fingerprint(start: AlignStart) -> str:
    projections = {
        key: part
        for key in ("image_projection", "text_projection", "image_shift", "text_shift")
        if (part := getattr(start, key)) is not None
    }
    return fingerprint(
        [
            *(fingerprint_tensors(part.state_dict()) for part in (start.vision, start.text)),
            fingerprint_tensors(projections),
            start.tokenizer.fingerprint,
            dict(start.transform.spec),
            dict(start.vision_args),
            dict(start.text_args),
            [start.log_scale, start.bias],
        ]
    )

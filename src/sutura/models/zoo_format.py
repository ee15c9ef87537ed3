"""The folder a zoo encoder lives in: config.json, model.safetensors, README.md; text.safetensors, vocabulary.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sutura.core.checkpoint import (
    atomic_directory,
    load_strict,
    load_tensors,
    read_json,
    save_tensors,
    write_json,
)
from sutura.core.errors import UserError
from sutura.models.clip import CLIP, TextTransformer
from sutura.models.siglip import SigLIP
from sutura.models.vit import ViT

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = "README.md"
#: All weights of a two-tower model but its picture tower's, which are in `WEIGHTS`; and the words of its texts.
TEXT = "text.safetensors"
WORDS = "vocabulary.json"
#: Of the weights on disk.
SAVED = torch.bfloat16
#: What the towers of a folder may be.
TOWERS: dict[str, type[CLIP] | type[SigLIP]] = {"clip": CLIP, "siglip": SigLIP}
_VISION = "vision."


def save_zoo_vit(
    folder: Path,
    vit: ViT,
    *,
    args: Mapping[str, Any],
    transform: Mapping[str, Any],
    about: Mapping[str, Any],
    card: str,
    towers: CLIP | SigLIP | None = None,
    words: Sequence[str] = (),
    dtype: torch.dtype = SAVED,
    replace: bool = False,
) -> None:
    """Write an encoder as one folder, whole or not at all.

    Args:
        folder: made here.
        vit: the encoder.
        args: the keyword arguments that `vit` was built with.
        transform: `image_size`, `mean` and `std` a picture is brought to.
        about: facts that go into the config beside these: objective, data, budget, versions.
        card: the README's text.
        towers: the two-tower model around `vit`, whose text tower is kept beside it.
        words: that its text tower reads, in the order of their ids.
        dtype: of the weights on disk; single numbers (temperature, bias) stay float32.
        replace: whether an existing folder may be replaced.

    Raises:
        UserError: `args` do not build this encoder, towers that a folder cannot describe, other words than the
            text tower has, or a weight that does not fit the dtype.
    """
    tensors = {name: tensor.to(dtype) for name, tensor in vit.state_dict().items()}
    _refuse_infinite(tensors, f"as {dtype}; the encoder is not saved")
    load_strict(ViT(**args), vit.state_dict(), f"{folder.name} (built anew from its arguments)")
    texts: dict[str, Tensor] = {}
    if towers is not None:
        if towers.vision is not vit:
            raise ValueError("The encoder is not the picture tower of the two-tower model.")
        about = {**about, "text": _text_facts(towers, args, words, folder.name)}
        texts = {
            name: tensor.to(dtype) if tensor.ndim else tensor.float()
            for name, tensor in towers.state_dict().items()
            if not name.startswith(_VISION)
        }
        _refuse_infinite(texts, f"as {dtype}; the encoder is not saved")
    config = {
        "model": "vit",
        "args": dict(args),
        "transform": dict(transform),
        "dtype": str(dtype).removeprefix("torch."),
        **about,
    }
    with atomic_directory(folder, replace=replace) as temporary:
        save_tensors(temporary / WEIGHTS, tensors)
        if towers is not None:
            save_tensors(temporary / TEXT, texts)
            write_json(temporary / WORDS, list(words))
        write_json(temporary / CONFIG, config)
        (temporary / CARD).write_text(card, encoding="utf-8")


def read_zoo_config(folder: Path) -> dict[str, Any]:
    """The config of a zoo folder. Raises UserError when it is not one."""
    config = read_json(folder / CONFIG)
    missing = [key for key in ("model", "args", "transform") if key not in config]
    if missing or config["model"] != "vit":
        raise UserError(
            f"{folder / CONFIG} is no zoo encoder's: "
            + (
                f"it lacks {', '.join(missing)}."
                if missing
                else f"model={config['model']!r}, expected 'vit'."
            )
        )
    return config


def load_zoo_vit(folder: Path) -> tuple[ViT, dict[str, Any]]:
    """An encoder in float32 and eval mode, and its config; every weight lands or the program stops."""
    config = read_zoo_config(folder)
    try:
        vit = ViT(**config["args"])
    except (TypeError, ValueError) as error:
        raise UserError(f"The arguments in {folder / CONFIG} do not build a ViT: {error}") from None
    tensors = {name: tensor.float() for name, tensor in load_tensors(folder / WEIGHTS).items()}
    load_strict(vit, tensors, str(folder))
    return vit.eval(), config


def has_text(folder: Path) -> bool:
    """Whether a zoo folder holds a text tower. Raises UserError when it is no zoo folder."""
    return "text" in read_zoo_config(folder) and (folder / TEXT).is_file()


def build_zoo_towers(config: Mapping[str, Any]) -> CLIP | SigLIP:
    """Both towers from a zoo folder's config, with weights that nobody trained.

    Args:
        config: as `read_zoo_config` gives it, of a folder with a text tower.

    Raises:
        UserError: arguments that build no towers.
    """
    try:
        given = dict(config["text"])
        cls, dim = TOWERS[given.pop("model")], given.pop("dim")
        return cls(ViT(**config["args"]), TextTransformer(**given), dim)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"`args` and `text` of a zoo folder's {CONFIG} do not build two towers: {error}"
        ) from None


def load_zoo_towers(folder: Path) -> tuple[CLIP | SigLIP, tuple[str, ...], dict[str, Any]]:
    """Both towers in float32 and eval mode, the words of their texts, and the folder's config.

    Args:
        folder: one for which `has_text` is true.

    Raises:
        UserError: a weight that is missing, too many or not finite, or a vocabulary of other words than the text
            tower has.
    """
    vit, config = load_zoo_vit(folder)
    model = build_zoo_towers(config)
    texts = {name: tensor.float() for name, tensor in load_tensors(folder / TEXT).items()}
    _refuse_infinite(texts, f"in {folder / TEXT}; the file is damaged")
    seen = {_VISION + name: tensor for name, tensor in vit.state_dict().items()}
    if twice := sorted(seen.keys() & texts.keys()):
        raise UserError(f"{folder / TEXT} holds {twice[0]!r}, which has its place in {WEIGHTS}.")
    load_strict(model, {**seen, **texts}, f"{folder} with its text tower")
    words = read_json(folder / WORDS)
    _check_words(words, model, str(folder))
    return model.eval(), tuple(words), config


def _text_facts(
    towers: CLIP | SigLIP, args: Mapping[str, Any], words: Sequence[str], name: str
) -> dict[str, Any]:
    """What `build_zoo_towers` builds the towers from; refused where it would build others."""
    kind = next((kind for kind, cls in TOWERS.items() if type(towers) is cls), None)
    if kind is None:
        raise UserError(
            f"{name}: a zoo folder keeps the towers of {' or '.join(TOWERS)}, not of {type(towers).__name__}."
        )
    text: Any = towers.text
    facts = {
        "model": kind,
        "dim": towers.text_projection.out_features,
        "vocabulary": text.words.num_embeddings,
        "length": text.length,
        "width": text.width,
        "depth": len(text.blocks),
        "heads": text.blocks[0].attention.heads,
        "end_id": text.end_id,
    }
    _check_words(words, towers, name)
    again = build_zoo_towers({"args": args, "text": facts})
    load_strict(again, towers.state_dict(), f"{name} (both towers, built anew from their arguments)")
    ids = torch.full((1, text.length), text.end_id, device=text.positions.device)
    again.to(ids.device)
    with torch.no_grad():
        if not torch.allclose(again.encode_text(ids), towers.encode_text(ids), atol=1e-5):
            raise UserError(
                f"{name}: the text tower has an option that {CONFIG} does not tell; it is not saved."
            )
    return facts


def _check_words(words: Any, model: CLIP | SigLIP, name: str) -> None:
    """Refuse a vocabulary that is not the text tower's."""
    if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise UserError(f"The vocabulary of {name} is no list of words.")
    if len(set(words)) != len(words) or len(words) != len(model.text.words.weight):
        raise UserError(
            f"The vocabulary of {name} has {len(set(words))} words, its text tower {len(model.text.words.weight)}; "
            "they do not belong together."
        )


def _refuse_infinite(tensors: Mapping[str, Tensor], where: str) -> None:
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"Weight {name!r} is not finite {where}.")

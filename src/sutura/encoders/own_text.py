"""Both towers of our own CLIP, SigLIP and EVA, from the folder a pretraining run leaves behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sutura.core.checkpoint import load_strict, load_tensors, read_json
from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.data.captions import WordVocabulary, captioned_scenes, words_of
from sutura.encoders.config import TransformConfig
from sutura.models.clip import CLIP, TextTransformer
from sutura.models.siglip import SigLIP
from sutura.models.vit import ViT
from sutura.models.zoo_format import read_zoo_config

VOCABULARY = "vocabulary.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_MODELS: dict[str, type[CLIP] | type[SigLIP]] = {"clip": CLIP, "siglip": SigLIP, "eva": CLIP}
#: Where the second stage of an EVA run keeps CLIP's parts; the encoder stands under the stage that had it first.
_SECOND_STAGE = {"masked.encoder.": "vision.", "contrastive.": ""}


def is_run(folder: Path) -> bool:
    """Whether a folder is a finished pretraining run: the encoder beside the run's checkpoints."""
    return (folder / "encoder" / "config.json").is_file()


def load_run(folder: Path) -> tuple[CLIP | SigLIP, TransformConfig, Callable[[list[str]], Tensor]]:
    """Model, transform, and texts to embeddings.

    The zoo folder itself holds the picture tower alone, rounded; the run's last checkpoint holds everything in
    float32.

    Raises:
        UserError: a run without a text tower, without its checkpoint, or weights that do not fit.
    """
    written = read_zoo_config(folder / "encoder")
    objective, run = written.get("objective"), written.get("config") or {}
    if objective not in _MODELS:
        raise UserError(
            f"{folder.name} was pretrained by {objective!r}, without a text tower; zero-shot takes "
            f"{' or '.join(_MODELS)}."
        )
    found = {int(m[1]): p for p in folder.iterdir() if (m := _CHECKPOINT.fullmatch(p.name))}
    if not found:
        raise UserError(
            f"{folder} holds no checkpoint, and the zoo folder has the picture tower only; train the run again "
            "with checkpoint_every above 0."
        )
    tensors = load_tensors(found[max(found)] / "weights.safetensors")
    if objective == "eva":
        tensors = _second_stage(tensors)
    model = _build(_MODELS[objective], written, run, tensors)
    expected = model.state_dict()
    buffers = {name: t for name, t in model.named_buffers() if name in expected and name not in tensors}
    load_strict(model, {**buffers, **tensors}, f"{folder.name}, step {max(found)}")
    vocabulary = _vocabulary(folder, written, run)
    if len(vocabulary) != len(model.text.words.weight):
        raise UserError(
            f"The vocabulary of {folder.name} has {len(vocabulary)} words, its text tower "
            f"{len(model.text.words.weight)}; they do not belong together."
        )

    known = set(vocabulary.words)

    def text(texts: list[str]) -> Tensor:
        for one in texts:
            unknown = [word for word in words_of(one) if word not in known]
            if unknown:
                raise UserError(
                    f"{unknown[0]!r} in {one!r} is not one of the {len(known)} words that {folder.name} was "
                    "trained with; give other class names (data.classes) or templates (zeroshot.templates)."
                )
        ids = torch.from_numpy(vocabulary.encode(texts).astype("int64"))
        if ids.shape[1] > model.text.length:
            raise UserError(
                f"The longest sentence has {ids.shape[1]} words with its end, the text tower of {folder.name} "
                f"holds {model.text.length}; give shorter templates (zeroshot.templates)."
            )
        return model.encode_text(ids.to(model.text.words.weight.device))

    numbers = parse(TransformConfig, {"resize": "squash", **written["transform"]}, where=str(folder))
    return model, numbers, text


def run_vocabulary(folder: Path) -> WordVocabulary:
    """The words that a run's text tower was trained with. Raises UserError where they are not known."""
    written = read_zoo_config(folder / "encoder")
    return _vocabulary(folder, written, written.get("config") or {})


def _second_stage(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's weights out of an EVA run's; its mask token, first head and teacher are left out."""
    return {
        ours + name.removeprefix(theirs): tensor
        for theirs, ours in _SECOND_STAGE.items()
        for name, tensor in tensors.items()
        if name.startswith(theirs)
    }


def _build(
    cls: type[CLIP] | type[SigLIP],
    written: Mapping[str, Any],
    run: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> CLIP | SigLIP:
    """The model, its sizes read from the weights where they tell."""
    try:
        heads = run["methods"]["clip"]["text_heads"]
        (words, width), length = tensors["text.words.weight"].shape, len(tensors["text.positions"])
        dim = len(tensors["text_projection.weight"])
    except KeyError as error:
        raise UserError(f"The run's config or checkpoint lacks {error}; it is of another version.") from None
    depth = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("text.blocks."))
    text = TextTransformer(words, length, width, depth, heads, end_id=1)
    return cls(ViT(**written["args"]), text, dim)


def _vocabulary(folder: Path, written: Mapping[str, Any], run: Mapping[str, Any]) -> WordVocabulary:
    """The words the text tower was trained with: beside the run, else those of the world's captions."""
    if (folder / VOCABULARY).is_file():
        return WordVocabulary(tuple(read_json(folder / VOCABULARY)))
    if not str(written.get("data", "")).startswith("built-in world"):
        raise UserError(f"{folder} lacks {VOCABULARY}, so its text tower's words are not known.")
    p = run["pictures"]
    found = captioned_scenes(
        Path(p["cache"]),
        split="pretrain",
        count=p["count"],
        size=run["vit"]["image_size"],
        captions_each=p["captions"],
        seed=p["seed"],
    ).vocabulary
    assert found is not None, "the world's pictures always come with captions"
    return found

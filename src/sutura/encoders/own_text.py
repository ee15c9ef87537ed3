"""Both towers of our own CLIP, SigLIP and EVA, from the zoo folder that keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sutura.core.checkpoint import read_json
from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.data.captions import END, WordVocabulary, words_of
from sutura.encoders.catalog import zoo_folder, zoo_row
from sutura.encoders.config import EncoderConfig, TransformConfig
from sutura.encoders.from_zoo import encoder_folder
from sutura.models.clip import CLIP
from sutura.models.siglip import SigLIP
from sutura.models.zoo_format import CONFIG, TEXT, has_text, load_zoo_towers, read_zoo_config

#: Objectives of ours that train a text tower.
OBJECTIVES = ("clip", "siglip", "eva")


@dataclass(frozen=True)
class OwnTowers:
    """A two-tower model of ours with its words.

    Args:
        name: for tables: the zoo member's, or the run's.
        model: both towers.
        transform: that a picture is brought to.
        vocabulary: the words its texts may have.
        written: the zoo folder's config.
    """

    name: str
    model: CLIP | SigLIP
    transform: TransformConfig
    vocabulary: WordVocabulary
    written: dict[str, Any]

    def encode(self, texts: list[str]) -> Float[Tensor, "texts dim"]:
        """Embeddings of texts, of any length.

        Raises:
            UserError: a word that the model was not trained with, or more words than its text tower holds.
        """
        known = set(self.vocabulary.words)
        for one in texts:
            unknown = [word for word in words_of(one) if word not in known]
            if unknown:
                raise UserError(
                    f"{unknown[0]!r} in {one!r} is not one of the {len(known)} words that {self.name} was "
                    "trained with; give other class names (data.classes) or templates (zeroshot.templates)."
                )
        ids = torch.from_numpy(self.vocabulary.encode(texts).astype("int64"))
        if ids.shape[1] > self.model.text.length:
            raise UserError(
                f"The longest sentence has {ids.shape[1]} words with its end, the text tower of {self.name} "
                f"holds {self.model.text.length}; give shorter templates (zeroshot.templates)."
            )
        return self.model.encode_text(ids.to(self.model.text.words.weight.device))


def own_folder(spec: str | Path) -> Path | None:
    """The zoo folder that is meant by `zoo:NAME`, such a folder, or the run's folder around one; None for others.

    Raises:
        UserError: a member that the zoo does not have.
    """
    if str(spec).startswith("zoo:"):
        return zoo_folder(zoo_row(str(spec).removeprefix("zoo:")).id)
    folder = encoder_folder(Path(spec).expanduser())
    written = folder / CONFIG
    return folder if written.is_file() and read_json(written).get("model") == "vit" else None


def load_towers(folder: Path) -> OwnTowers:
    """Both towers from a zoo folder.

    The weights are those on disk, rounded to bfloat16 in the picture tower and in the text tower alike, so pictures
    are embedded by the encoder that every other part of the package reads from this folder.

    Args:
        folder: as `own_folder` gives it.

    Raises:
        UserError: a folder without a text tower, or weights and words that do not fit.
    """
    if not has_text(folder):
        raise no_text(folder)
    name = folder_name(folder)
    model, words, written = load_zoo_towers(folder)
    vocabulary = WordVocabulary(words)
    if END not in words or vocabulary.end_id != model.text.end_id:
        raise UserError(f"{END!r} does not stand at place {model.text.end_id} in the vocabulary of {name}.")
    transform = parse(TransformConfig, {"resize": "squash", **written["transform"]}, where=str(folder))
    return OwnTowers(name, model, transform, vocabulary, written)


def no_text(folder: Path) -> UserError:
    """What is said of a zoo folder without a text tower."""
    written, name = read_zoo_config(folder), folder_name(folder)
    objective = written.get("objective")
    if "text" in written:
        return UserError(
            f"{folder} has lost its {TEXT}, which its config describes; bring the whole folder again."
        )
    if objective not in OBJECTIVES:
        by = f"by {objective!r}, " if objective else ""
        return UserError(
            f"{name} was pretrained {by}without a text tower; texts are read by encoders of "
            f"{', '.join(OBJECTIVES)}."
        )
    return UserError(
        f"{name} was pretrained by {objective!r}, but {folder} holds no {TEXT}: versions before 2026-11-26 kept "
        "picture towers only. Train it again with `sutura pretrain` or `sutura zoo build`."
    )


def folder_name(folder: Path) -> str:
    """A zoo folder's name for tables: the member's, or the run's whose `encoder` it is."""
    return EncoderConfig(id=str(folder.absolute())).display_name()


def text_args(written: Mapping[str, Any]) -> dict[str, Any]:
    """What `models.text_encoder.build_text` builds the text tower from, out of a zoo folder's config."""
    own = {key: value for key, value in written["text"].items() if key not in ("model", "dim")}
    return {"kind": "causal", **own}


def heads_of(model: CLIP | SigLIP) -> dict[str, Any]:
    """Copies of both projections (dim × width) and of what is added behind them (dim; None where nothing is)."""
    assert isinstance(model.image_projection, nn.Linear)
    both = {"image": model.image_projection, "text": model.text_projection}
    return {
        f"{side}_{what}": None if part is None else part.detach().clone()
        for side, head in both.items()
        for what, part in (("projection", head.weight), ("shift", head.bias))
    }

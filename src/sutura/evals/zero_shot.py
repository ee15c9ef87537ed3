"""Zero-shot classification: class names in sentences, and the class whose sentences lie nearest wins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sutura.core.errors import UserError
from sutura.data.labelled import LabelledPictures
from sutura.encoders.text import TwoTower

#: Sentences for photographs of things.
PHOTOS = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of one {}.",
    "a picture of a {}.",
    "a blurry photo of a {}.",
    "a small photo of a {}.",
    "a good photo of a {}.",
)
#: Sentences of the built-in world's own grammar, whose words its models know.
WORLD = ("a {}.", "a picture of a {}.", "there is one {}.")


def templates_for(data: LabelledPictures, given: Sequence[str] | None) -> tuple[str, ...]:
    """The templates given, or those that fit the data.

    Raises:
        UserError: no template, one without a single place for the class name, or classes that have numbers
            for names.
    """
    chosen = tuple(given) if given is not None else WORLD if data.name.startswith("world") else PHOTOS
    wrong = [template for template in chosen if template.count("{}") != 1]
    if wrong or not chosen:
        raise UserError(f"Template {wrong[0] if wrong else ''!r} needs exactly one {{}} for the class name.")
    if all(name.isdigit() for name in data.classes):
        raise UserError(
            f"The classes of {data.name!r} are numbers; zero-shot needs names (data.classes=[cat, dog, …])."
        )
    return chosen


def class_embeddings(text: Float[Tensor, "classes templates dim"]) -> Float[Tensor, "classes dim"]:
    """One unit vector a class: each sentence's embedding normalised, averaged over templates, normalised.

    Source: Radford et al. 2021, arXiv:2103.00020, section 3.1.4 ("ensembling over the embedding space").
    """
    return F.normalize(F.normalize(text.float(), dim=2).mean(dim=1), dim=1)


def zero_shot(
    image: Float[Tensor, "pictures dim"], text: Float[Tensor, "classes templates dim"]
) -> Float[Tensor, "pictures classes"]:
    """Cosine of each picture and each class; scale and bias of the model would change no ranking.

    Args:
        image: embeddings, of any length.
        text: embeddings by class and template, of any length.
    """
    return F.normalize(image.float(), dim=1) @ class_embeddings(text).T


def zero_shot_scores(
    tower: TwoTower, data: LabelledPictures, templates: Sequence[str], batch: int = 64
) -> Float[np.ndarray, "pictures classes"]:
    """Scores of a part's pictures; nothing is fitted.

    Where a picture has several labels, each class ranks all pictures, and a score is the cosine less the picture's
    mean over the classes. What all class sentences say alike (of how many things they speak, for one) lies nearer to
    some pictures than to others and would decide that ranking; within one picture it changes no order of classes.

    Differs: from Radford et al. 2021, who choose one class a picture, by what several labels ask.
    """
    sentences = [template.format(name) for name in data.classes for template in templates]
    parts = [tower.encode_text(sentences[at : at + batch]) for at in range(0, len(sentences), batch)]
    text = torch.cat(parts).unflatten(0, (len(data.classes), len(templates)))
    rows = []
    for at in range(0, len(data), batch):
        pictures = [turns.image.open() for turns in data.pictures[at : at + batch]]
        rows.append(zero_shot(tower.encode_image(pictures), text))
    scores = torch.cat(rows)
    if data.several and len(data.classes) > 1:
        scores = scores - scores.mean(dim=1, keepdim=True)
    return scores.numpy()

"""The pretraining methods: what each builds around the same encoder, and which supervision it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from sutura.core.registry import Registry
from sutura.data.captions import CaptionedPictures
from sutura.losses.prediction import standardise_by_place
from sutura.models.clip import CLIP, TextTransformer
from sutura.models.ijepa import IJEPA
from sutura.models.vit import Classifier, ViT
from sutura.train import objectives
from sutura.train.ema import momentum, update_ema
from sutura.train.loop import Objective
from sutura.train.picture_feed import Supervision
from sutura.train.pretrain_config import MethodConfig


@dataclass(frozen=True)
class Method:
    """One way to pretrain an encoder.

    Args:
        objective: loss of a batch.
        supervision: what the feed brings with the pictures.
        build: puts the method's own parts around the encoder.
        encoder: the encoder to keep, out of the trained model.
        after_step: for a number of steps, what happens after each of them; None for nothing.
        about: one sentence for the card.
    """

    objective: Objective
    supervision: Supervision
    build: Callable[[ViT, MethodConfig, CaptionedPictures], nn.Module]
    encoder: Callable[[Any], ViT]
    about: str
    after_step: Callable[[MethodConfig, int], Callable[[Any, int], None]] | None = None


METHODS: Registry[Method] = Registry("pretraining objective", group="sutura.objectives")


def _build_supervised(vit: ViT, config: MethodConfig, data: CaptionedPictures) -> Classifier:
    return Classifier(vit, data.labels.shape[1])


def _build_clip(vit: ViT, config: MethodConfig, data: CaptionedPictures) -> CLIP:
    c = config.clip
    length = data.words.shape[2]
    words = data.vocabulary
    text = TextTransformer(len(words), length, c.text_width, c.text_depth, c.text_heads, words.end_id)
    return CLIP(vit, text, c.dim)


def _build_ijepa(vit: ViT, config: MethodConfig, data: CaptionedPictures) -> IJEPA:
    c = config.ijepa
    # The paper's layer-normalised targets were tried first. At this size most of a target is what all targets
    # share: after 200 steps guesses spread a fifth as far as targets, and the probe had not moved.
    return IJEPA(vit, c.predictor_width, c.predictor_depth, c.predictor_heads, standardise_by_place)


def _clamp(config: MethodConfig, steps: int) -> Callable[[CLIP, int], None]:
    return lambda model, step: model.clamp_log_scale()


def _follow(config: MethodConfig, steps: int) -> Callable[[IJEPA, int], None]:
    def after(model: IJEPA, step: int) -> None:
        update_ema(
            model.target_encoder, model.context_encoder, momentum(step, steps, start=config.ijepa.momentum)
        )

    return after


METHODS.add(
    "supervised",
    Method(
        objectives.supervised,
        "labels",
        _build_supervised,
        lambda model: model.encoder,
        "Supervised: for each pair of shape and colour, whether the picture shows it.",
    ),
)
METHODS.add(
    "clip",
    Method(
        objectives.clip,
        "captions",
        _build_clip,
        lambda model: model.vision,
        "CLIP: pictures and captions of one batch find each other (symmetric InfoNCE).",
        _clamp,
    ),
)
METHODS.add(
    "ijepa",
    Method(
        objectives.ijepa,
        "masks",
        _build_ijepa,
        lambda model: model.target_encoder,
        "I-JEPA: the latents of hidden rectangles are predicted from the rest; no labels, no captions.",
        _follow,
    ),
)

"""The pretraining methods: what each builds around the same encoder, and which supervision it needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from sutura.core.log import say
from sutura.core.registry import Registry
from sutura.data.captions import CaptionedPictures
from sutura.losses.prediction import standardise_by_place
from sutura.models.clip import CLIP, TextTransformer
from sutura.models.eva import EVA
from sutura.models.ijepa import IJEPA, layer_normalise
from sutura.models.mae import MAE
from sutura.models.siglip import SigLIP
from sutura.models.vit import Classifier, ViT
from sutura.nn.masking import BlockMask, RandomMask
from sutura.train import objectives
from sutura.train.ema import momentum, update_ema
from sutura.train.loop import Objective
from sutura.train.picture_feed import MaskDraw, Supervision
from sutura.train.pretrain_config import MethodConfig
from sutura.train.two_stage import Teacher, TwoStage


@dataclass(frozen=True)
class Parts:
    """What a method is built from.

    Args:
        vit: the encoder.
        config: of all methods.
        data: the training pictures.
        steps: of the run.
        teacher: where the method names one.
    """

    vit: ViT
    config: MethodConfig
    data: CaptionedPictures
    steps: int
    teacher: Teacher | None = None


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
        masks: for a grid of patches, what is hidden; None hides nothing.
        teacher: the zoo folder of a frozen teacher, if any; the model gets it as `teacher`.
        switch: for a number of steps, the first step of a second stage; None for one stage.
        tune: the objective under a config, where that changes it.
        others: for a number of steps, who else sees the pictures, and for which share of the run's passes.
        towers: the two-tower model around the encoder, out of the trained model; None for an objective without texts.
    """

    objective: Objective
    supervision: Supervision
    build: Callable[[Parts], nn.Module]
    encoder: Callable[[Any], ViT]
    about: str
    after_step: Callable[[MethodConfig, int], Callable[[Any, int], None] | None] | None = None
    masks: Callable[[MethodConfig, tuple[int, int]], MaskDraw] | None = None
    teacher: Callable[[MethodConfig], str | None] = lambda config: None
    switch: Callable[[MethodConfig, int], int] | None = None
    tune: Callable[[MethodConfig], Objective] | None = None
    others: Callable[[MethodConfig, int], dict[str, float]] | None = None
    towers: Callable[[Any], CLIP | SigLIP] | None = None


METHODS: Registry[Method] = Registry("pretraining objective", group="sutura.objectives")


def _build_supervised(parts: Parts) -> Classifier:
    return Classifier(parts.vit, parts.data.classes())


def _tune_supervised(config: MethodConfig) -> Objective:
    c = config.supervised
    return partial(objectives.supervised, smoothing=c.smoothing, mixup=c.mixup)


def _text_tower(parts: Parts) -> TextTransformer:
    c, words, captions = parts.config.clip, parts.data.vocabulary, parts.data.words
    assert words is not None
    assert captions is not None
    length = captions.shape[2]
    return TextTransformer(len(words), length, c.text_width, c.text_depth, c.text_heads, words.end_id)


def _build_clip(parts: Parts) -> CLIP:
    return CLIP(parts.vit, _text_tower(parts), parts.config.clip.dim)


def _build_siglip(parts: Parts) -> SigLIP:
    c = parts.config
    return SigLIP(parts.vit, _text_tower(parts), c.clip.dim, c.siglip.log_scale, c.siglip.bias)


def _build_mae(parts: Parts) -> MAE:
    c = parts.config.mae
    return MAE(parts.vit, c.decoder_width, c.decoder_depth, c.decoder_heads)


def _build_eva(parts: Parts) -> TwoStage:
    target = parts.vit.embed.project.in_features if parts.teacher is None else parts.teacher.vit.width
    return TwoStage(EVA(parts.vit, target), _build_clip(parts), _switch(parts.config, parts.steps))


def _build_ijepa(parts: Parts) -> IJEPA:
    c = parts.config.ijepa
    targets = standardise_by_place if c.normalise == "place" else layer_normalise
    return IJEPA(
        parts.vit, c.predictor_width, c.predictor_depth, c.predictor_heads, targets,
        all_levels=c.levels == "all", keep_context=c.keep == "context",
    )  # fmt: skip


def _tune_ijepa(config: MethodConfig) -> Objective:
    return partial(objectives.ijepa, distance=config.ijepa.distance)


def _context_and_targets(config: MethodConfig, grid: tuple[int, int]) -> MaskDraw:
    if config.ijepa.hidden == "scattered":
        return _scattered_targets(RandomMask(grid, config.ijepa.ratio))
    mask = config.ijepa.masks(grid)

    def draw(batch: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return dict(zip(("context", "targets"), mask.sample(batch, generator), strict=True))

    return draw


def _scattered_targets(mask: RandomMask) -> MaskDraw:
    def draw(batch: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        keep, hidden = mask.sample(batch, generator)
        return {"context": keep, "targets": hidden.nonzero()[:, 1].view(1, batch, -1)}

    return draw


def _scattered(config: MethodConfig, grid: tuple[int, int]) -> MaskDraw:
    mask = RandomMask(grid, config.mae.ratio)

    def draw(batch: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return dict(zip(("keep", "hidden"), mask.sample(batch, generator), strict=True))

    return draw


def _blocks(config: MethodConfig, grid: tuple[int, int]) -> MaskDraw:
    mask = BlockMask(grid, config.eva.ratio)
    return lambda batch, generator: {"hidden": mask.sample(batch, generator)}


def _switch(config: MethodConfig, steps: int) -> int:
    return round(config.eva.first * steps)


def _eva_teacher(config: MethodConfig) -> str | None:
    return config.eva.teacher if config.eva.target == "clip" else None


def _eva_others(config: MethodConfig, steps: int) -> dict[str, float]:
    return {"teacher, forward only": _switch(config, steps) / steps} if _eva_teacher(config) else {}


def _clamp(config: MethodConfig, steps: int) -> Callable[[CLIP, int], None]:
    return lambda model, step: model.clamp_log_scale()


def _clamp_second(config: MethodConfig, steps: int) -> Callable[[TwoStage, int], None]:
    return lambda model, step: model.contrastive.clamp_log_scale()


def _follow(config: MethodConfig, steps: int) -> Callable[[IJEPA, int], None] | None:
    if config.ijepa.momentum == 1:
        return None
    left = math.exp(-(1 - config.ijepa.momentum) * steps / 2)
    if left > 0.5 and config.ijepa.keep == "target":
        say(
            f"After {steps:,} steps {left:.0%} of the target encoder's random weights are left, and it is the encoder "
            "that is kept: set methods.ijepa.keep=context, or a lower momentum."
        )

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
        "Supervised: which labels a picture carries.",
        tune=_tune_supervised,
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
        towers=lambda model: model,
    ),
)
METHODS.add(
    "siglip",
    Method(
        objectives.siglip,
        "captions",
        _build_siglip,
        lambda model: model.vision,
        "SigLIP: for each pair of picture and caption, whether they belong together (pairwise sigmoid); "
        "the towers are CLIP's.",
        towers=lambda model: model,
    ),
)
METHODS.add(
    "mae",
    Method(
        objectives.mae,
        "none",
        _build_mae,
        lambda model: model.encoder,
        "MAE: the pixels of hidden patches are predicted from the rest; no labels, no captions.",
        masks=_scattered,
    ),
)
METHODS.add(
    "eva",
    Method(
        objectives.eva,
        "captions",
        _build_eva,
        lambda model: model.masked.encoder,
        "EVA: first hidden patches are predicted (a CLIP teacher's features of them, with target=clip), then "
        "pictures and captions find each other, as in CLIP.",
        _clamp_second,
        masks=_blocks,
        teacher=_eva_teacher,
        switch=_switch,
        others=_eva_others,
        towers=lambda model: model.contrastive,
    ),
)
METHODS.add(
    "ijepa",
    Method(
        objectives.ijepa,
        "none",
        _build_ijepa,
        lambda model: model.encoder,
        "I-JEPA: the latents of hidden patches are predicted from the rest; no labels, no captions.",
        _follow,
        masks=_context_and_targets,
        tune=_tune_ijepa,
        others=lambda config, steps: {"target encoder, forward only": 1.0},
    ),
)

"""Pretraining of the zoo's encoders: the same ViT, pictures and passes, with one objective or another."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sutura.core.errors import UserError
from sutura.core.log import say
from sutura.core.runtime import cpu_count, generator
from sutura.data.captions import CaptionedPictures, captioned_scenes
from sutura.losses.collapse import collapse_alarm
from sutura.models.vit import ViT
from sutura.models.zoo_format import load_zoo_vit, save_zoo_vit
from sutura.nn.block import initialise
from sutura.train.checkpointing import checkpoints_in
from sutura.train.loop import FitResult, fit
from sutura.train.methods import METHODS, Method
from sutura.train.picture_feed import PictureFeed
from sutura.train.pretrain_card import card
from sutura.train.pretrain_config import PretrainConfig
from sutura.train.self_check import ProbeScore, averaged_patches, linear_probe, rank_facts


@dataclass(frozen=True)
class Pretrained:
    """A finished run, before it is written down.

    Args:
        probe: of the encoder with the weights that are saved.
        untrained: the same probe of the same encoder before its first step.
        seconds: of training, looks at the rank included.
        operations: floating-point operations a picture pass, forward and backward.
    """

    config: PretrainConfig
    fit: FitResult
    probe: ProbeScore
    untrained: ProbeScore
    ranks: dict[str, float]
    alarm: str | None
    seconds: float
    operations: float
    parameters: int


def build_encoder(config: PretrainConfig) -> ViT:
    """The encoder before its first step: the same weights for every objective of one seed."""
    vit = ViT(**config.vit.args())
    initialise(vit, generator(config.seed, "vit"))
    return vit


def build_model(config: PretrainConfig, method: Method, data: CaptionedPictures) -> nn.Module:
    """The method's model: its own parts drawn first, then the shared encoder's weights put in."""
    model = method.build(ViT(**config.vit.args()), config.methods, data)
    initialise(model, generator(config.seed, "method", config.objective))
    first = build_encoder(config).state_dict()
    for part in model.modules():
        if isinstance(part, ViT):
            part.load_state_dict(first)
    return model


def pretrain(config: PretrainConfig, on_step: Callable[[int, dict[str, Any]], None] | None = None) -> Path:
    """Train one encoder and write it as a zoo folder; a finished run is returned as it is.

    Args:
        config: the run.
        on_step: called after each step with the number of steps done and the step's metrics.

    Returns:
        The zoo folder, `<directory>/<name>-<hash>/encoder`.
    """
    method = METHODS.get(config.objective)
    work = Path(config.directory) / f"{config.name}-{config.hash()}"
    folder = work / "encoder"
    if folder.is_dir():
        say(f"{folder} is finished; nothing to do.")
        return folder
    train, check = _pictures(config)
    masks = config.methods.ijepa.masks(build_encoder(config).grid) if method.supervision == "masks" else None
    pictures = config.pictures
    feed = PictureFeed(
        train,
        passes=config.passes,
        batch=config.batch,
        seed=config.seed,
        supervision=method.supervision,
        mean=pictures.mean,
        std=pictures.std,
        shift=pictures.shift,
        masks=masks,
    )
    model = build_model(config, method, train)
    operations = _operations(model, method, feed, config)
    began = time.perf_counter()
    result = fit(
        model,
        method.objective,
        feed,
        config.optim,
        seed=config.seed,
        directory=work,
        after_step=method.after_step(config.methods, feed.steps) if method.after_step else None,
        evaluate=lambda trained, step: _look(method.encoder(trained), check, config, step),
        evaluate_every=config.check.every,
        checkpoint_every=config.checkpoint_every,
        resume=bool(checkpoints_in(work)),
        on_step=on_step,
        config_hash=config.hash(),
    )
    say(f"{config.name}: {feed.steps} steps in {time.perf_counter() - began:.0f} s; checking the encoder.")
    return _finish(folder, method.encoder(model), config, method, check, result, operations)


def _pictures(config: PretrainConfig) -> tuple[CaptionedPictures, CaptionedPictures]:
    """Training pictures and, of the selection split, those of the check."""
    p, c = config.pictures, config.check
    if c.watched > c.fitted + c.scored:
        raise UserError(
            f"check.watched={c.watched} is more than the {c.fitted + c.scored} pictures of the check."
        )
    parts = []
    for split, count in (("pretrain", p.count), ("select", c.fitted + c.scored)):
        drawn = 0

        def report(more: int, split: str = split, count: int = count) -> None:
            nonlocal drawn
            drawn += more
            if drawn % 4096 < more or drawn == count:
                say(f"Drew {drawn} of {count} pictures of the split {split!r}.")

        parts.append(
            captioned_scenes(
                Path(p.cache),
                split=split,
                count=count,
                size=config.vit.image_size,
                captions_each=p.captions,
                seed=p.seed,
                threads=cpu_count(),
                on_progress=report,
            )
        )
    return parts[0], parts[1]


def _look(encoder: ViT, check: CaptionedPictures, config: PretrainConfig, step: int) -> dict[str, float]:
    """Collapse measures while training; says so when they trip."""
    features = _features(encoder, check.first(config.check.watched), config)
    alarm = collapse_alarm(features)
    if alarm is not None:
        say(f"{config.name}, step {step}: {alarm}")
    return rank_facts(features)


def _features(encoder: ViT, check: CaptionedPictures, config: PretrainConfig) -> Tensor:
    return averaged_patches(encoder, check, config.pictures.mean, config.pictures.std)


def _finish(
    folder: Path,
    encoder: ViT,
    config: PretrainConfig,
    method: Method,
    check: CaptionedPictures,
    result: FitResult,
    operations: float,
) -> Path:
    """Save the encoder, probe what was saved, and write both into its config and card."""
    pictures = config.pictures
    labels = torch.from_numpy(check.labels)
    saved = {name: tensor.half().float() for name, tensor in encoder.state_dict().items()}
    rounded = ViT(**config.vit.args())
    rounded.load_state_dict(saved)
    features = _features(rounded, check, config)
    before = _features(build_encoder(config), check, config)
    done = Pretrained(
        config,
        result,
        linear_probe(features, labels, config.check.fitted),
        linear_probe(before, labels, config.check.fitted),
        rank_facts(features),
        collapse_alarm(features),
        result.seconds,
        operations,
        sum(p.numel() for p in encoder.parameters()),
    )
    save_zoo_vit(
        folder,
        encoder,
        args=config.vit.args(),
        transform={
            "image_size": config.vit.image_size,
            "mean": list(pictures.mean),
            "std": list(pictures.std),
        },
        about={
            "name": config.name,
            "objective": config.objective,
            "about": method.about,
            "data": f"built-in world, split pretrain, {pictures.count} pictures",
            "passes": config.passes,
            "licence": "Apache-2.0",
            "probe": done.probe.facts(),
            "untrained_probe": done.untrained.facts(),
            "ranks": done.ranks,
            "config": config.resolved(),
            "torch": torch.__version__,
        },
        card=card(done, method.about, platform.machine()),
    )
    load_zoo_vit(folder)
    p, u = done.probe, done.untrained
    say(
        f"{config.name}: probe {p.score:.3f} ({p.low:.3f} to {p.high:.3f}, n={p.scored}), "
        f"untrained {u.score:.3f}, base rate {p.base_rate:.3f}; "
        f"effective rank {done.ranks['effective_rank']:.1f}. {done.alarm or ''}"
    )
    return folder


def _operations(model: nn.Module, method: Method, feed: PictureFeed, config: PretrainConfig) -> float:
    """Counted on the first batch, forward and backward, of matrix products and attention."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        method.objective(model, feed.micro_batches(0)[0], 0)[0].backward()
    model.zero_grad(set_to_none=True)
    return counter.get_total_flops() / config.batch

"""Pretraining of an encoder: the same ViT, pictures and passes, with one objective or another."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.core.log import progress_bars, say
from sutura.core.runtime import generator, pick_device
from sutura.data.captions import END, PAD, CaptionedPictures, WordVocabulary
from sutura.losses.collapse import collapse_alarm
from sutura.models.clip import CLIP
from sutura.models.siglip import SigLIP
from sutura.models.vit import ViT
from sutura.models.zoo_format import SAVED, load_zoo_towers, load_zoo_vit, save_zoo_vit
from sutura.nn.block import initialise
from sutura.train.checkpointing import checkpoints_in
from sutura.train.loop import FitResult, Objective, fit
from sutura.train.methods import METHODS, Method, Parts
from sutura.train.picture_feed import Ahead, PictureFeed
from sutura.train.pretrain_account import hardware, loss_curve, operations, passes
from sutura.train.pretrain_card import card
from sutura.train.pretrain_config import PretrainConfig
from sutura.train.pretrain_data import on_world, pretraining_pictures
from sutura.train.self_check import ProbeScore, averaged_patches, linear_probe, rank_facts
from sutura.train.two_stage import check_teacher, load_teacher


@dataclass(frozen=True)
class Pretrained:
    """A finished run, before it is written down.

    Args:
        about: what the method is, in a sentence.
        data: what the pictures are, in a sentence.
        command: that started the run.
        run: the run's name, as in its directory.
        probe: of the encoder with the weights that are saved; None without labels.
        untrained: the same probe of the same encoder before its first step.
        operations: floating-point operations of the run, forward and backward, of all the method's parts.
        passes: pictures seen, repeats counted, by who saw them.
        curve: steps done, and mean loss since the step before, ten times.
        hardware: that trained.
        towers: the two-tower model around the encoder; None without texts.
        words: that its text tower reads.
    """

    config: PretrainConfig
    about: str
    data: str
    command: str
    run: str
    fit: FitResult
    probe: ProbeScore | None
    untrained: ProbeScore | None
    ranks: dict[str, float]
    alarm: str | None
    operations: float
    passes: dict[str, int]
    curve: list[tuple[int, float]]
    hardware: str
    parameters: int
    towers: CLIP | SigLIP | None = None
    words: tuple[str, ...] = ()

    @property
    def text_parameters(self) -> int:
        """Of all that the towers have beside the encoder: text tower, projections, temperature, bias."""
        total = 0 if self.towers is None else sum(p.numel() for p in self.towers.parameters())
        return max(0, total - self.parameters)


def build_encoder(config: PretrainConfig) -> ViT:
    """The encoder before its first step: the same weights for every objective of one seed."""
    vit = ViT(**config.vit.args())
    initialise(vit, generator(config.seed, "vit"))
    return vit


def build_model(config: PretrainConfig, method: Method, data: CaptionedPictures, steps: int) -> nn.Module:
    """The method's model: its own parts drawn first, then the shared encoder's weights and a teacher put in."""
    vit, teacher = ViT(**config.vit.args()), None
    if (name := method.teacher(config.methods)) is not None:
        teacher = load_teacher(name, vit, config.pictures.mean, config.pictures.std)
    model = method.build(Parts(vit, config.methods, data, steps, teacher))
    initialise(model, generator(config.seed, "method", config.objective))
    first = build_encoder(config).state_dict()
    for part in model.modules():
        if isinstance(part, ViT):
            part.load_state_dict(first)
    if teacher is not None:
        model.teacher = teacher
    return model


def build_feed(config: PretrainConfig, method: Method, data: CaptionedPictures) -> PictureFeed:
    """The batches of the run."""
    p = config.pictures
    return PictureFeed(
        data,
        passes=config.passes,
        batch=config.batch,
        seed=config.seed,
        supervision=method.supervision,
        mean=p.mean,
        std=p.std,
        size=config.vit.image_size,
        shift=p.shift,
        flip=p.flip,
        crop=p.crop,
        masks=method.masks(config.methods, build_encoder(config).grid) if method.masks else None,
    )


def check_settings(config: PretrainConfig, method: Method) -> None:
    """Build everything once around two blank pictures, so that a setting that cannot work is told at once.

    Raises:
        UserError: sizes that do not fit each other, a budget of no whole batches, a teacher that is not there
            or cuts pictures into other patches.
    """
    side = config.vit.image_size
    if side < config.vit.patch_size:
        raise UserError(
            f"vit.image_size={side} is smaller than a patch (vit.patch_size={config.vit.patch_size})."
        )
    blank = CaptionedPictures(
        np.zeros((2, side, side, 3), np.uint8),
        np.eye(2, dtype=np.float32),
        np.ones((2, 1, 2), np.int16),
        WordVocabulary((PAD, END)),
        "blank",
    )
    try:
        feed = build_feed(config, method, blank)
        build_model(config, method, blank, feed.steps)
        if feed.masks is not None:
            feed.masks(2, generator(config.seed, "masks", 0))
    except ValueError as error:
        raise UserError(f"{config.name} cannot be built: {error}") from None


def run_name(config: PretrainConfig, method: Method, data: CaptionedPictures | None = None) -> str:
    """`<name>-<hash>`: of the config, of a teacher's weights, and of pictures that are not the world's."""
    inputs = []
    if (name := method.teacher(config.methods)) is not None:
        inputs.append(check_teacher(name, config.vit.image_size, config.vit.patch_size))
    if data is not None:
        inputs.append(data.fingerprint)
    return f"{config.name}-{fingerprint([config.hash(), *inputs]) if inputs else config.hash()}"


def pretrain(
    config: PretrainConfig,
    on_step: Callable[[int, dict[str, Any]], None] | None = None,
    command: str | None = None,
) -> Path:
    """Train one encoder and write it as a zoo folder; a finished run is returned as it is.

    Args:
        config: the run.
        on_step: called after each step with the number of steps done and the step's metrics.
        command: for the card; the zoo's own by default.

    Returns:
        The zoo folder, `<directory>/<name>-<hash>/encoder`.

    Raises:
        UserError: settings or pictures that the objective cannot be trained with, told before it starts.
    """
    method = METHODS.get(config.objective)
    check_settings(config, method)
    world = on_world(config)
    if world and (done := _finished(config, run_name(config, method))):
        return done
    train, check = pretraining_pictures(config, method)
    run = run_name(config, method, None if world else train)
    if done := _finished(config, run):
        return done
    work = Path(config.directory) / run
    objective = method.tune(config.methods) if method.tune else method.objective
    feed = build_feed(config, method, train)
    model = build_model(config, method, train, feed.steps)
    spent = operations(model, objective, method, feed, config)
    result = _fit(config, method, objective, model, feed, check, work, run, on_step)
    say(f"{config.name}: {feed.steps} steps in {result.seconds:.0f} s; checking the encoder.")
    on, encoder = hardware(model), method.encoder(model).cpu()
    features = _features(saved_weights(encoder), check, config)
    done = Pretrained(
        config,
        method.about,
        train.about or f"{len(train):,} pictures of the built-in world, split `pretrain`",
        command or f"sutura zoo build {config.name}",
        run,
        result,
        _probe(features, check, config),
        _probe(_features(build_encoder(config), check, config), check, config),
        rank_facts(features),
        collapse_alarm(features),
        spent,
        passes(config, method, model, feed.steps),
        loss_curve(result),
        on,
        sum(p.numel() for p in encoder.parameters()),
        method.towers(model).cpu() if method.towers else None,
        train.vocabulary.words if method.towers and train.vocabulary is not None else (),
    )
    return _write(work / "encoder", encoder, done, world=world)


def pretrain_shown(config: PretrainConfig, command: str | None = None) -> Path:
    """`pretrain` with a progress bar."""
    with progress_bars() as bars:
        steps = config.passes // config.batch
        task = bars.add_task(f"training {config.name}", total=steps, note="")

        def on_step(done: int, row: dict[str, Any]) -> None:
            loss = row["loss"]
            bars.update(task, completed=done, note="" if loss is None else f"loss {loss:.3f}")

        return pretrain(config, on_step, command)


def _finished(config: PretrainConfig, run: str) -> Path | None:
    folder = Path(config.directory) / run / "encoder"
    if not folder.is_dir():
        return None
    say(f"{folder} is finished; nothing to do.")
    return folder


def _fit(
    config: PretrainConfig,
    method: Method,
    objective: Objective,
    model: nn.Module,
    feed: PictureFeed,
    check: CaptionedPictures,
    work: Path,
    run: str,
    on_step: Callable[[int, dict[str, Any]], None] | None,
) -> FitResult:
    device = pick_device(config.device)
    if not feed.hold_on(device) and device.type == "cuda":
        say(
            f"{config.name}: too many pictures for a quarter of the GPU's free memory; batches are made on the CPU."
        )
    # The world's pictures lie ready: making their batches in a second thread gains nothing beside a CPU's step.
    ready = on_world(config) and device.type == "cpu"
    with nullcontext(feed) if ready else Ahead(feed) as batches:
        return fit(
            model,
            objective,
            batches,
            config.optim,
            seed=config.seed,
            directory=work,
            after_step=method.after_step(config.methods, feed.steps) if method.after_step else None,
            evaluate=lambda trained, step: _look(method.encoder(trained), check, config, step),
            evaluate_every=config.check.every,
            checkpoint_every=config.checkpoint_every,
            resume=bool(checkpoints_in(work)),
            on_step=on_step,
            device=device,
            config_hash=run,
        )


def _look(encoder: ViT, check: CaptionedPictures, config: PretrainConfig, step: int) -> dict[str, float]:
    """Collapse measures while training; a collapsed encoder is said, or ends the run, as the config has it."""
    features = _features(encoder, check.first(config.check.watched), config)
    alarm = collapse_alarm(features)
    if alarm is not None and config.check.on_collapse == "stop":
        raise UserError(
            f"{config.name}, step {step}: {alarm} The run stops, as check.on_collapse=stop asks; "
            "change the recipe, or set check.on_collapse=warn to go on."
        )
    if alarm is not None:
        say(f"{config.name}, step {step}: {alarm}")
    return rank_facts(features)


def _features(encoder: ViT, check: CaptionedPictures, config: PretrainConfig) -> Tensor:
    return averaged_patches(encoder, check, config.pictures.mean, config.pictures.std)


def _probe(features: Tensor, check: CaptionedPictures, config: PretrainConfig) -> ProbeScore | None:
    labels = check.label_table()
    return None if labels is None else linear_probe(features, torch.from_numpy(labels), config.check.fitted)


def saved_weights(encoder: ViT) -> ViT:
    """The encoder with its weights rounded as they lie on disk."""
    rounded = copy.deepcopy(encoder)
    for weight in rounded.parameters():
        weight.data = weight.data.to(SAVED).float()
    return rounded


def _write(folder: Path, encoder: ViT, done: Pretrained, *, world: bool) -> Path:
    """Save the encoder with the facts of its run."""
    config, p, u = done.config, done.probe, done.untrained
    about = {
        "name": config.name,
        "objective": config.objective,
        "about": done.about,
        "data": f"built-in world, split pretrain, {config.pictures.count} pictures" if world else done.data,
        "passes": config.passes,
        "passes_by": done.passes,
        "operations": done.operations,
        "licence": "Apache-2.0" if world else None,
        "probe": p.facts() if p else None,
        "untrained_probe": u.facts() if u else None,
        "ranks": done.ranks,
        "config": config.resolved(),
        "torch": torch.__version__,
    }
    transform = {
        "image_size": config.vit.image_size,
        "mean": list(config.pictures.mean),
        "std": list(config.pictures.std),
        **({} if world else {"resize": "crop"}),
    }
    save_zoo_vit(
        folder,
        encoder,
        args=config.vit.args(),
        transform=transform,
        about=about,
        card=card(done, world=world),
        towers=done.towers,
        words=done.words,
    )
    load_zoo_vit(folder)
    if done.towers is not None:
        load_zoo_towers(folder)
    scores = "no labels, so no probe"
    if p and u:
        scores = (
            f"probe {p.score:.3f} ({p.low:.3f} to {p.high:.3f}, n={p.scored}), "
            f"untrained {u.score:.3f}, base rate {p.base_rate:.3f}"
        )
    say(f"{config.name}: {scores}; effective rank {done.ranks['effective_rank']:.1f}. {done.alarm or ''}")
    return folder

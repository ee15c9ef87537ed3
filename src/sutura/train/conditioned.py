"""Text-conditioned masked prediction: what is built, what it is trained for, and how it is run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.core.log import progress_bars, say
from sutura.core.runtime import generator
from sutura.encoders.base import VisionEncoder
from sutura.encoders.loaders import load_encoder
from sutura.encoders.own_vit import AveragedTrunk, Colours, colours_of, own_vit
from sutura.encoders.transform import Transform
from sutura.losses.collapse import collapse_alarm, collapse_measures
from sutura.losses.prediction import cosine_by_token, smooth_l1_by_token
from sutura.models.vit import ViT
from sutura.models.vljepa_conditioned import TextConditionedPredictor, VLJEPAConditioned
from sutura.nn.block import initialise
from sutura.nn.masking import gather_patches
from sutura.train.checkpointing import checkpoints_in
from sutura.train.conditioned_config import ConditionedConfig, OnlineConfig
from sutura.train.conditioned_data import (
    ConditionedBatch,
    ConditionedFeed,
    Part,
    assemble,
    load_parts,
    make_part,
)
from sutura.train.ema import momentum, update_ema
from sutura.train.loop import FitResult, Objective, fit
from sutura.train.optim import Group

#: `loss` of a config -> the distance of every token to its target.
DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": cosine_by_token,
    "smooth-l1": smooth_l1_by_token,
}
#: Pictures that a trained online encoder is watched on for collapse.
WATCHED = 128


@dataclass(frozen=True)
class Prepared:
    """What a run needs before its first step.

    Args:
        train, held: pictures to train on and to measure on, with what lies on disk for them.
        online: as it was loaded.
        vit: its weights in our ViT, some of them trainable where the config says so.
        target: the frozen network that makes the targets; None where they come from a moving average.
        run: the run's name: of its config and of all that went into it.
    """

    config: ConditionedConfig
    train: Part
    held: Part
    online: VisionEncoder
    vit: ViT
    target: VisionEncoder | None
    colours: Colours
    run: str

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patches."""
        return self.vit.grid


def prepare(config: ConditionedConfig) -> Prepared:
    """Load the networks and the pictures, and make what no mask changes.

    Raises:
        UserError: an encoder that cannot leave patches out, a target that is the online network, grids that do not
            fit, no pictures, or a text network that is not whole.
    """
    online = load_encoder(config.online.encoder)
    vit = own_vit(online)
    target = _target(config, online, vit)
    if config.online.train != "none":
        vit = unfrozen(copy.deepcopy(vit), config.online)
    train, held = load_parts(config, online.image_size, vit.patch_size)
    parts = make_part(config, train, target), make_part(config, held, target)
    inputs = [
        online.fingerprint,
        target.fingerprint if target else "moving",
        train.fingerprint,
        held.fingerprint,
    ]
    inputs += [part.text.fingerprint for part in parts if part.text]
    run = f"{config.name}-{fingerprint([config.hash(), *inputs])}"
    return Prepared(config, *parts, online, vit, target, colours_of(online), run)


def _target(config: ConditionedConfig, online: VisionEncoder, vit: ViT) -> VisionEncoder | None:
    """The frozen network whose patches are the targets."""
    t = config.target
    if t.kind == "ema":
        return None
    if t.kind == "average":
        check_blocks(config, vit, online.name)
        trunk = AveragedTrunk(copy.deepcopy(vit), t.blocks, {"of": online.fingerprint})
        seen = Transform(online.transform, {"of": online.fingerprint}, "squash")
        name = f"{online.name}, last {t.blocks} blocks"
        row = config.online.encoder.model_copy(update={"name": name})
        return VisionEncoder(trunk, seen, row, online.about)
    assert t.encoder is not None
    target = load_encoder(t.encoder)
    if target.token_grid != vit.grid:
        target = load_encoder(t.encoder, tokens=vit.grid[0] * vit.grid[1])
    if target.token_grid != vit.grid:
        raise UserError(
            f"Target {target.name!r} has a grid of {target.grid[0]} × {target.grid[1]} patches, the online encoder one "
            f"of {vit.grid[0]} × {vit.grid[1]}; choose encoders whose pictures are cut alike, or encoder.image_size."
        )
    if target.fingerprint == online.fingerprint:
        raise UserError(
            f"target.kind=other, and {target.name!r} has the weights of the online encoder {online.name!r}; with the "
            "same network, say target.kind=average."
        )
    return target


def check_blocks(config: ConditionedConfig, vit: ViT, name: str) -> None:
    """Refuse to average more blocks than there are. Raises UserError."""
    if config.target.blocks > vit.depth:
        raise UserError(f"target.blocks={config.target.blocks}: {name!r} has {vit.depth} blocks.")


def unfrozen(vit: ViT, config: OnlineConfig) -> ViT:
    """Let the last blocks with the final norm, or everything, train."""
    if config.train == "all":
        return vit.requires_grad_(True)
    count = int(config.train)
    if not 1 <= count <= vit.depth:
        raise UserError(f"online.train={count}: the encoder has 1 to {vit.depth} blocks to train.")
    for part in (*list(vit.blocks)[-count:], vit.norm):
        part.requires_grad_(True)
    return vit


def build(prepared: Prepared) -> VLJEPAConditioned:
    """The model at its first step; the predictor's weights depend on the seed alone."""
    c, vit = prepared.config, prepared.vit
    text, target = prepared.train.text, prepared.target
    predictor = build_predictor(c, vit, text.width if text else None, target.width if target else vit.width)
    initialise(predictor, generator(c.seed, "predictor"))
    return VLJEPAConditioned(vit, predictor, moving=target is None, blocks=c.target.blocks)


def build_predictor(
    config: ConditionedConfig, vit: ViT, text_width: int | None, target_width: int
) -> TextConditionedPredictor:
    """The predictor of an online encoder; its text side is frozen where there is no text.

    Raises:
        UserError: sizes that build none.
    """
    p = config.predictor
    try:
        predictor = TextConditionedPredictor(
            vit.grid, vit.width, text_width or 1, target_width, p.width, p.depth, p.heads
        )
    except ValueError as error:
        raise UserError(f"predictor: {error}") from None
    if text_width is None:  # no weight may wait for a gradient that never comes
        predictor.enter_text.requires_grad_(False)
        predictor.text_kind.requires_grad_(False)
    return predictor


def token_losses(
    model: VLJEPAConditioned, batch: ConditionedBatch, config: ConditionedConfig
) -> tuple[
    Float[Tensor, "batch asked"], Float[Tensor, "batch asked width"], Float[Tensor, "batch asked width"]
]:
    """The loss of every hidden place, with what was predicted there and what was wanted."""
    guesses = model(batch.pixels, batch.keep, batch.asked, batch.text, batch.padding)
    wanted = gather_patches(target_patches(model, batch, config), batch.asked)
    return DISTANCES[config.loss](guesses, wanted), guesses, wanted


def target_patches(
    model: VLJEPAConditioned, batch: ConditionedBatch, config: ConditionedConfig
) -> Float[Tensor, "batch patches width"]:
    """Targets of all places as the loss takes them, without gradient."""
    found = model.targets(batch.pixels) if batch.targets is None else batch.targets
    found = found.detach().float()
    return F.layer_norm(found, found.shape[-1:]) if config.target.normalise == "layer" else found


def objective(config: ConditionedConfig) -> Objective:
    """What is said of the hidden patches against what the target says of them; hidden places only count.

    No picture is compared with another: there are no negatives.
    """

    def loss(
        model: VLJEPAConditioned, batch: ConditionedBatch, step: int
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        losses, guesses, _ = token_losses(model, batch, config)
        flat = guesses.detach().float().flatten(0, 1)
        spread = flat.std(dim=0).square().mean().sqrt() / flat.square().mean().sqrt().clamp_min(1e-12)
        return losses.mean() * batch.share, {"hidden": float(batch.asked.shape[1]), "spread": spread}

    return loss


def groups(config: ConditionedConfig) -> Callable[[nn.Module], Sequence[Group]]:
    """The predictor at the run's learning rate; the online encoder, where it trains, at its share of it."""

    def of(model: nn.Module) -> Sequence[Group]:
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        own = [name for name in names if name.startswith("online.")]
        rest = Group("predictor", [name for name in names if name not in set(own)])
        return [rest, Group("online", own, lr_scale=config.online.lr_scale)] if own else [rest]

    return of


def train(prepared: Prepared, model: VLJEPAConditioned, directory: Path) -> FitResult:
    """Run the loop, from the newest checkpoint where there is one."""
    c = prepared.config
    feed = ConditionedFeed(c, prepared.train, prepared.grid, prepared.colours)

    def follow(trained: Any, step: int) -> None:
        update_ema(trained.target, trained.online, momentum(step, feed.steps, start=c.target.momentum))

    def look(trained: Any, step: int) -> dict[str, float]:
        return _look(trained, prepared, step)

    learns = c.online.train != "none"
    with progress_bars() as bars:
        bar = bars.add_task(f"training {c.name}", total=feed.steps, note="")

        def on_step(done: int, row: dict[str, Any]) -> None:
            shown = "" if row["loss"] is None else f"loss {row['loss']:.3f}"
            bars.update(bar, completed=done, note=shown)

        return fit(
            model,
            objective(c),
            feed,
            c.optim,
            seed=c.seed,
            directory=directory,
            groups=groups(c),
            after_step=follow if model.target is not None else None,
            evaluate=look if learns else None,
            evaluate_every=c.checkpoint_every,
            checkpoint_every=c.checkpoint_every,
            resume=bool(checkpoints_in(directory)),
            on_step=on_step,
            device=c.device,
            config_hash=prepared.run,
        )


@torch.no_grad()
def _look(model: VLJEPAConditioned, prepared: Prepared, step: int) -> dict[str, float]:
    """Whether an online encoder that trains still tells pictures apart."""
    on, held = next(model.parameters()).device, prepared.held
    rows = list(range(min(WATCHED, len(held.data))))
    none = torch.empty(len(rows), 0, dtype=torch.long)
    batch = assemble(held, rows, none, none, [None] * len(rows), prepared.colours)
    features = model.online(batch.pixels.to(on))[1]["normed"].mean(dim=1)
    alarm = collapse_alarm(features)
    if alarm is not None:
        say(f"{prepared.config.name}, step {step}: {alarm}")
    return collapse_measures(features)

"""What a run of the `conditioned` form needs: targets and text states once, then the predictor's steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sutura.compare.plan_captions import caption_sizes
from sutura.compare.plan_config import PlanSettings
from sutura.compare.plan_needs import JepaPlan, Once, Stage, count_parts, trained_parts
from sutura.compare.plan_pass import encoding_pass, forward_pass, loss_pass
from sutura.compare.plan_shapes import ADAM_STATES
from sutura.compare.plan_texts import outline_text_network
from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.data.caption_source import CaptionSource
from sutura.encoders.outline import EncoderOutline, outline_encoder
from sutura.encoders.own_vit import own_vit_outline
from sutura.models.vit import ViT
from sutura.models.vljepa_conditioned import VLJEPAConditioned
from sutura.train.conditioned import build_predictor, check_blocks, objective, unfrozen
from sutura.train.conditioned_config import ConditionedConfig
from sutura.train.conditioned_data import ENCODED, ConditionedBatch, draw_masks

NAMES = {
    "online": "online encoder",
    "target": "target encoder (moving average)",
    "predictor": "predictor",
}
#: Bytes of a number on disk: text states and targets lie in half precision.
HALF = 2


def plan_conditioned(values: Mapping[str, Any], settings: PlanSettings) -> JepaPlan:
    """Compute a `conditioned` run's needs.

    Args:
        values: of the form's config.
        settings: what the plan assumes beside it.
    """
    config = parse(ConditionedConfig, values, where="the preset of form conditioned")
    p = config.pictures
    online = outline_encoder(config.online.encoder)
    vit = own_vit_outline(online)
    source = parse(CaptionSource, {"path": p.path, "captions_each": p.captions, **p.source}, where="pictures")
    sizes = caption_sizes(
        source.model_copy(update={"limit": p.count}), p.split, config.text.longest, settings
    )
    pictures = None if sizes.pictures is None else sizes.pictures + p.held
    draw_masks(config.mask, vit.grid, 1, torch.Generator())  # refuses a ratio that hides all or nothing
    once, text_width = [], 1
    target_width = vit.width
    if config.target.kind != "ema":
        target = _target(config, vit)
        target_width = target.width if isinstance(target, EncoderOutline) else vit.width
        places = vit.grid[0] * vit.grid[1]
        cost = (
            encoding_pass(target, ENCODED) if isinstance(target, EncoderOutline) else _whole(target, ENCODED)
        )
        once.append(Once("targets", pictures, ENCODED, cost, places * target_width * HALF))
    if config.text.use:
        network, text_width = outline_text_network(config.text.id)
        texts = None if pictures is None else pictures * sizes.captions
        cost = _text(network, config.text.batch, sizes.tokens)
        once.append(Once("text states", texts, config.text.batch, cost, sizes.tokens * text_width * HALF))
    with torch.device("meta"):
        online_vit = unfrozen(copy.deepcopy(vit), config.online) if config.online.train != "none" else vit
        predictor = build_predictor(config, vit, text_width if config.text.use else None, target_width)
        model = VLJEPAConditioned(
            online_vit, predictor, moving=config.target.kind == "ema", blocks=config.target.blocks
        )
    learns = [name for name, weight in model.named_parameters() if weight.requires_grad]
    parts = count_parts(model, learns, NAMES)
    cost = loss_pass(
        model,
        _inputs(config, model, vit, sizes.tokens, text_width, target_width),
        autocast=config.optim.precision == "bfloat16",
        accumulating=config.micro_batch < config.batch,
    )
    passes = config.batch // config.micro_batch
    stage = Stage(
        "training",
        trained_parts(learns, NAMES),
        config.steps,
        config.micro_batch,
        passes,
        cost,
        ADAM_STATES * cost.gradients,
    )
    side = online.image_size
    return JepaPlan(
        name=config.name,
        form="conditioned",
        settings=settings,
        sizes=f"Training data: {sizes.told()}; {p.held:,} held out; pictures of {side} pixels.",
        batch=config.batch,
        half=config.optim.precision == "bfloat16",
        parts=parts,
        once=tuple(once),
        stages=(stage,),
        pictures_bytes=None if pictures is None else pictures * side * side * 3,
    )


def _target(config: ConditionedConfig, vit: ViT) -> nn.Module:
    """The network that makes the targets once."""
    t = config.target
    if t.kind == "average":
        check_blocks(config, vit, config.online.encoder.display_name())
        return copy.deepcopy(vit)
    assert t.encoder is not None
    target = outline_encoder(t.encoder)
    if tuple(target.grid) != tuple(vit.grid):
        target = outline_encoder(t.encoder.model_copy(update={"tokens": vit.grid[0] * vit.grid[1]}))
    if tuple(target.grid) != tuple(vit.grid):
        raise UserError(
            f"Target {target.name!r} has a grid of {target.grid[0]} × {target.grid[1]} patches, the online encoder one "
            f"of {vit.grid[0]} × {vit.grid[1]}; choose encoders whose pictures are cut alike, or encoder.image_size."
        )
    return target


def _whole(vit: nn.Module, rows: int) -> Any:
    side: Any = vit.image_size

    def given() -> Callable[[], Tensor]:
        pixels = torch.empty(rows, 3, side, side)
        return lambda: vit(pixels)[1]["normed"]

    return forward_pass(vit, given)


def _text(network: Any, rows: int, tokens: int) -> Any:
    def given() -> Callable[[], Tensor]:
        ids = torch.zeros(rows, tokens, dtype=torch.long)
        return lambda: network(input_ids=ids).last_hidden_state

    return forward_pass(network, given)


def _inputs(
    config: ConditionedConfig,
    model: VLJEPAConditioned,
    vit: ViT,
    tokens: int,
    text_width: int,
    target_width: int,
) -> Callable[[], Callable[[], Tensor]]:
    rows, side = config.micro_batch, vit.image_size
    places = vit.grid[0] * vit.grid[1]
    hidden = round(config.mask.ratio * places)
    compute: Any = objective(config)

    def given() -> Callable[[], Tensor]:
        text = padding = targets = None
        if config.text.use:
            text = torch.empty(rows, tokens, text_width)
            padding = torch.zeros(rows, tokens, dtype=torch.bool)
        if config.target.kind != "ema":
            targets = torch.empty(rows, places, target_width)
        batch = ConditionedBatch(
            torch.empty(rows, 3, side, side),
            list(range(rows)),
            torch.zeros(rows, places - hidden, dtype=torch.long),
            torch.zeros(rows, hidden, dtype=torch.long),
            1.0,
            text,
            padding,
            targets,
        )
        return lambda: compute(model, batch, 0)[0]

    return given

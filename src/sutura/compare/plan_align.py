"""What an `align` run needs: every phase's own passes, and towers that are computed once while they are frozen."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from sutura.compare.plan_captions import CaptionSizes, caption_sizes, vocabulary
from sutura.compare.plan_config import PlanSettings
from sutura.compare.plan_needs import JepaPlan, Once, Stage, count_parts, trained_parts
from sutura.compare.plan_pass import Pass, forward_pass, loss_pass
from sutura.compare.plan_shapes import ADAM_STATES
from sutura.core.config import parse
from sutura.encoders.align_outline import StartOutline, outline_random, outline_start
from sutura.encoders.align_start import AlignStart, full_text_args
from sutura.losses.queue import NegativeQueue
from sutura.train.align import PLACES, AlignObjective, AlignTraining, embed
from sutura.train.align_build import Towers, head_rates, random_towers
from sutura.train.align_config import AlignConfig
from sutura.train.align_feed import AlignBatch, micro_sizes
from sutura.train.align_look import TOGETHER
from sutura.train.align_phases import Freezer, Plan, plan
from sutura.train.align_run import cached_until, check_sizes, rectangles

#: Steps of an epoch where the number of pictures is not known: only the order of phases is taken from it.
_NOMINAL = 1_000
NAMES = {
    "model.context_encoder": "picture tower",
    "model.target_encoder": "target encoder (moving average)",
    "model.text": "text tower",
    "model.predictor": "predictor",
    "model.image_head": "picture head",
    "model.text_head": "text head",
    "model.log_scale": "scale and bias",
    "model.bias": "scale and bias",
    "momentum": "moving average of towers and heads",
}


class FullQueue(NegativeQueue):
    """A queue as it is from the step on at which it has filled up."""

    def __len__(self) -> int:
        return self.size


class Outlined(Towers):
    """Towers of a run on the meta device, whatever they start from."""

    outline: StartOutline

    @classmethod
    def of(cls, config: AlignConfig) -> Outlined:
        """Nothing is downloaded."""
        s = config.start
        if s.vision is None:
            words = vocabulary(config.data.source, s.words.most_words)
            vision, text, tokenizer = random_towers(config, words)
            outline = outline_random(vision, full_text_args(text, tokenizer))
        else:
            outline = outline_start(s.vision, s.text, image_size=s.image_size, length=s.length)
        start = cast(AlignStart, outline)
        made = cls(config, None if s.vision is None else start)
        made.outline = outline
        return made

    def _random(self, captions: Any) -> AlignStart:
        return cast(AlignStart, self.outline)

    def training(self) -> AlignTraining:
        """The model as training has it."""
        own = replace(
            self.outline, vision=copy.deepcopy(self.outline.vision), text=copy.deepcopy(self.outline.text)
        )  # a pass consumes what it is given
        with torch.device("meta"):
            start = cast(AlignStart, own)
            made = type(self)(self.config, None if self.start is None else start)
            made.outline = own
            return made.build(()).training


def plan_align(values: Mapping[str, Any], settings: PlanSettings) -> JepaPlan:
    """Compute an `align` run's needs.

    Args:
        values: of the form's config.
        settings: what the plan assumes beside it.
    """
    config = parse(AlignConfig, values, where="the preset of form align")
    towers = Outlined.of(config)
    d = config.data
    sizes = caption_sizes(d.of(d.train_limit), d.train, towers.outline.length, settings)
    check_sizes(config, towers.size, sizes.pictures)
    rectangles(config, towers.outline.vision.grid)
    per_epoch = _NOMINAL if sizes.pictures is None else sizes.pictures / config.batch
    steps = max(1, round(config.epochs * per_epoch))
    phases = plan(config.phases, steps, per_epoch, config.epochs)
    side = d.store or towers.size
    until = {
        part: cached_until(config, phases, part, same_size=side == towers.size) for part in ("vision", "text")
    }
    ever: set[str] = set()
    stages, model = [], towers.training()
    for number in range(len(phases.phases)):
        stages.append(_stage(config, towers, phases, number, sizes, until, ever))
    return JepaPlan(
        name=config.name,
        form="align",
        settings=settings,
        sizes=f"Training data: {sizes.told()}; pictures of {towers.size} pixels.",
        batch=config.batch,
        half=config.optim.precision == "bfloat16",
        parts=count_parts(model, sorted(ever), NAMES),
        once=tuple(_once(towers, until, sizes)),
        stages=tuple(stages),
        pictures_bytes=None if sizes.pictures is None else sizes.pictures * side * side * 3,
        flags=tuple(phases.flags()),
    )


def _stage(
    config: AlignConfig,
    towers: Outlined,
    phases: Plan,
    number: int,
    sizes: CaptionSizes,
    until: Mapping[str, int],
    ever: set[str],
) -> Stage:
    """A phase: what trains in it, and one forward pass of it. `ever` collects the names of all that trained so far."""
    training = towers.training()
    freezer = Freezer(training, PLACES, phases, config.rates, config.optim.lr, head_rates(config))
    start, end = phases.starts[number], (*phases.starts, phases.steps)[number + 1]
    freezer.before_step(training, start)
    learns = {name for name, weight in training.named_parameters() if weight.requires_grad}
    ever |= learns
    states = sum(weight.nbytes for name, weight in training.named_parameters() if name in ever)
    cut = micro_sizes(config.batch, config.forward)
    rows = max(cut)
    steps = None if sizes.pictures is None else end - start
    objective = AlignObjective(phases, config.loss, config.views)
    cached = config.negatives == "cached" and len(cut) > 1
    if training.queue is not None:
        with torch.device("meta"):
            training.queue = FullQueue(config.loss.queue, config.dim)
    given = _batches(config, towers, rows, sizes, start, phases, until)

    def inputs() -> Callable[[], Tensor]:
        batch = given()

        def loss() -> Tensor:
            if cached:
                with torch.no_grad():
                    embed(training.model, batch)
            return objective(training, batch, start)[0]

        return loss

    cost = loss_pass(
        training,
        inputs,
        autocast=config.optim.precision == "bfloat16",
        accumulating=len(cut) > 1,
    )
    return Stage(
        f"phase {number + 1}",
        trained_parts(learns, NAMES),
        steps,
        rows,
        len(cut),
        cost,
        ADAM_STATES * states,
        whole=config.batch,
    )


def _batches(
    config: AlignConfig,
    towers: Outlined,
    rows: int,
    sizes: CaptionSizes,
    step: int,
    phases: Plan,
    until: Mapping[str, int],
) -> Callable[[], AlignBatch]:
    """Makes a batch of shapes where no tensor has values."""
    start, phase = towers.outline, phases.at(step)
    places = start.vision.grid[0] * start.vision.grid[1]
    hidden = round(config.predictor.ratio * places)
    width, text_width, size = start.vision.width, cast(Any, start.text).width, towers.size

    def make() -> AlignBatch:
        found: dict[str, Tensor | None] = {}
        if step < until["text"]:
            found["text_features"] = torch.empty(rows, text_width)
        else:
            found["words"] = torch.zeros(rows, sizes.tokens, dtype=torch.long)
        if step < until["vision"]:
            found["image_features"] = torch.empty(rows, width)
        else:
            found["pixels"] = torch.empty(rows, 3, size, size)
            if config.views.local:
                found["views"] = torch.empty(
                    rows, config.views.local, 3, config.views.size, config.views.size
                )
            if phase.alpha:
                found["context"] = torch.zeros(rows, places - hidden, dtype=torch.long)
                found["target"] = torch.zeros(rows, hidden, dtype=torch.long)
        text = torch.zeros(rows, dtype=torch.long)
        own = torch.zeros(rows, sizes.captions, dtype=torch.long)
        return AlignBatch(list(range(rows)), text, own, 1.0, **found)

    return make


def _once(towers: Outlined, until: Mapping[str, int], sizes: CaptionSizes) -> list[Once]:
    """Towers that are read from disk in the beginning."""
    found, start, size = [], towers.outline, towers.size
    made = towers.training()
    whole = sum(tensor.nbytes for tensor in [*made.parameters(), *made.buffers()])
    if until["vision"]:
        tower = towers.training().model.context_encoder

        def pictures() -> Callable[[], Tensor]:
            pixels = torch.empty(TOGETHER, 3, size, size)
            return lambda: tower(pixels)[0]

        cost: Pass = forward_pass(tower, pictures)
        width = 4 * start.vision.width
        found.append(
            Once("frozen picture tower", sizes.pictures, TOGETHER, cost, width, whole - cost.weights)
        )
    if until["text"]:
        text: Any = towers.training().model.text

        def captions() -> Callable[[], Tensor]:
            ids = torch.zeros(TOGETHER, sizes.tokens, dtype=torch.long)
            return lambda: text(ids)[0]

        count = None if sizes.pictures is None else sizes.pictures * sizes.captions
        cost = forward_pass(text, captions)
        found.append(Once("frozen text tower", count, TOGETHER, cost, 4 * text.width, whole - cost.weights))
    return found

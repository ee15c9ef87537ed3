"""An `align` run from its config to its folder: data, towers, phases, the loop, and the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sutura.core.checkpoint import save_tensors
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint, fingerprint_tensors
from sutura.core.log import say
from sutura.core.runtime import pick_device
from sutura.data.caption_source import load_image_texts
from sutura.data.image_texts import ImageTexts
from sutura.nn.masking import RectangleMask
from sutura.train.align import PLACES, AlignObjective, AlignTraining
from sutura.train.align_build import Built, Towers, head_rates
from sutura.train.align_cache import Rows, tower_rows
from sutura.train.align_calibrate import calibrate
from sutura.train.align_config import AlignConfig
from sutura.train.align_feed import AlignFeed
from sutura.train.align_look import embed_ids, embed_pictures, look
from sutura.train.align_phases import Freezer, Plan, plan
from sutura.train.align_saved import AVERAGE, START, WEIGHTS, saved
from sutura.train.align_texts import Texts, tokenise
from sutura.train.ema import momentum, update_ema
from sutura.train.grad_cache import CachedStep
from sutura.train.loop import FitResult, fit
from sutura.train.picture_feed import Ahead
from sutura.train.run_folder import begin, write_settings

#: Parts of a phase that have a moving average, under their names in the model.
PLACED: dict[str, str] = {
    "vision": "context_encoder",
    "text": "text",
    "image_head": "image_head",
    "text_head": "text_head",
}


@dataclass
class Prepared:
    """A run before its first step.

    Args:
        folder: of the run.
        built: model, tokenizer and transform.
        train, look, test: pictures with captions.
        texts, looked: of `train`, and of `look`, as token ids.
        plan: of the phases.
        first: weights of towers and heads before the first step, on the CPU.
    """

    config: AlignConfig
    folder: Path
    built: Built
    train: ImageTexts
    look: ImageTexts
    test: ImageTexts
    texts: Texts
    looked: Texts
    plan: Plan
    first: dict[str, Tensor]


def prepare(config: AlignConfig) -> Prepared:
    """Load, build and check everything that a run needs, before any of it costs long.

    Raises:
        UserError: captions, towers, phases or sizes that do not fit each other.
    """
    d = config.data
    cache, towers = Path(d.cache), Towers.open(config)
    size = towers.size
    check_sizes(config, size, None)
    train = load_image_texts(d.of(d.train_limit), split=d.train, side=d.store or size, cache=cache)
    check_sizes(config, size, len(train))
    per_epoch = len(train) / config.batch
    steps = max(1, round(config.epochs * per_epoch))
    planned = plan(config.phases, steps, per_epoch, config.epochs)
    looked = load_image_texts(d.of(d.look_limit), split=d.look, side=size, cache=cache)
    test = load_image_texts(d.of(d.test_limit), split=d.test, side=size, cache=cache)
    built = towers.build([one for own in train.captions for one in own])
    rectangles(config, built.grid)
    texts = tokenise(looked, built.tokenizer, cache)
    if built.uncalibrated and config.loss.calibrate:
        calibrate(config, built, looked, texts)
    Freezer(built.training, PLACES, planned, config.rates, config.optim.lr, head_rates(config))
    first = {name: weight.detach().clone() for name, weight in saved(built.training.model).items()}
    name = fingerprint(
        [
            config.hash(),
            *(data.fingerprint for data in (train, looked, test)),
            built.tokenizer.fingerprint,
            fingerprint_tensors(first),
        ]
    )
    return Prepared(
        config,
        Path(config.directory) / f"{config.name}-{name}",
        built,
        train,
        looked,
        test,
        tokenise(train, built.tokenizer, cache),
        texts,
        planned,
        first,
    )


def run_align(
    ready: Prepared,
    *,
    fresh: bool = False,
    resume: bool = False,
    command: str = "",
    on_step: Callable[[int, dict[str, Any]], None] | None = None,
) -> FitResult:
    """Train, and write the weights; what was stopped goes on from its last checkpoint.

    Args:
        ready: the run.
        fresh: remove what an unfinished run left, and begin anew.
        resume: refuse to begin anew.
        command: for the record.
        on_step: called after each step.

    Raises:
        UserError: `resume` without a checkpoint of this config, or whatever the loop refuses.
    """
    config, folder, training = ready.config, ready.folder, ready.built.training
    unfinished = begin(folder, fresh=fresh, resume=resume)
    write_settings(folder, "align", config.resolved(), command)
    for line in announced(ready):
        say(line)
    freezer = Freezer(training, PLACES, ready.plan, config.rates, config.optim.lr, head_rates(config))
    device = pick_device(config.device)
    training.to(device)
    objective = AlignObjective(ready.plan, config.loss, config.views, config.look.gradient_every)

    def before_step(model: nn.Module, step: int) -> None:
        training.pending = []
        freezer.before_step(model, step)

    with Ahead(feed_of(ready, device)) as batches:
        result = fit(
            training,
            objective,
            batches,
            config.optim,
            seed=config.seed,
            directory=folder,
            groups=freezer.groups,
            whole_step=CachedStep(objective) if config.negatives == "cached" else None,
            before_step=before_step,
            after_step=follow(config, ready.plan),
            evaluate=lambda model, step: watch(ready, model, step),
            evaluate_every=config.look.every,
            checkpoint_every=config.checkpoint_every,
            resume=unfinished,
            on_step=on_step,
            device=device,
            config_hash=folder.name,
        )
    ready.built.save(folder)
    save_tensors(folder / START, ready.first)
    if training.momentum is not None:
        save_tensors(folder / AVERAGE, saved(training.model, training.momentum))
    save_tensors(folder / WEIGHTS, saved(training.model))
    return result


def announced(ready: Prepared) -> list[str]:
    """What a reader should know before the first step: negatives, phases, flags."""
    config = ready.config
    return [
        f"{config.name}: {ready.plan.steps:,} steps of {config.batch} pairs; {negatives(config)}",
        *(f"{config.name}: WARNING: {flag}" for flag in ready.plan.flags()),
    ]


def negatives(config: AlignConfig) -> str:
    """How many wrong texts a picture is told apart from, and what accumulation does to that."""
    compared, passes = config.compared(), -(-config.batch // config.forward)
    told = f"effective negatives of a picture: {compared - 1:,}"
    if config.loss.queue:
        told += f", and up to {config.loss.queue:,} of the queue"
    if passes > 1 and config.negatives == "cached":
        told += f" (all of the batch: gradients are cached over {passes} micro-batches)"
    elif passes > 1:
        told += f" (those of its micro-batch: accumulating over {passes} of them adds none; negatives=cached does)"
    return told + "."


def feed_of(ready: Prepared, device: torch.device) -> AlignFeed:
    """The batches; what a frozen tower will always say is computed first, once."""
    config, built, planned = ready.config, ready.built, ready.plan
    return AlignFeed(
        ready.train,
        ready.texts,
        planned,
        batch=config.batch,
        micro_batch=config.forward,
        seed=config.seed,
        size=built.size,
        mean=built.mean,
        std=built.std,
        masks=rectangles(config, built.grid),
        augment=config.augment,
        views=config.views,
        image_rows=_image_rows(ready, device),
        text_rows=_text_rows(ready, device),
    )


def check_sizes(config: AlignConfig, size: int, pictures: int | None) -> None:
    """Refuse what does not fit the pictures.

    Args:
        config: of the run.
        size: of the picture tower's pictures.
        pictures: to train on; None where not known yet.

    Raises:
        UserError: pictures that are stored smaller than that, or fewer than a batch holds.
    """
    store = config.data.store
    if store is not None and store < size:
        raise UserError(f"data.store={store} is less than the {size} pixels that the picture tower takes.")
    if pictures is not None and config.batch > pictures:
        raise UserError(
            f"batch={config.batch} is more than the {pictures:,} training pictures; a batch holds different pictures. "
            "Lower it, or raise data.train_limit."
        )


def rectangles(config: AlignConfig, grid: tuple[int, int]) -> RectangleMask:
    """What draws the hidden patches. Raises UserError for a share that hides all or nothing of the grid."""
    try:
        return RectangleMask(grid, config.predictor.ratio)
    except ValueError as error:
        raise UserError(f"predictor.ratio: {error}") from None


def cached_until(config: AlignConfig, planned: Plan, part: str, *, same_size: bool) -> int:
    """The first step that a tower itself is needed at; before it, what it says of an unchanged input is known.

    Args:
        config: of the run.
        planned: its phases.
        part: `vision` or `text`.
        same_size: pictures are kept at the side that the tower takes.
    """
    phases = planned.phases
    if not config.cache_towers or config.loss.queue:
        return 0
    if part == "text":
        return planned.first_step(["text" not in phase.frozen for phase in phases])
    if config.augment.changes() or config.views.local or not same_size:
        return 0
    return planned.first_step([phase.trains_vision() or phase.alpha > 0 for phase in phases])


def _until(ready: Prepared, part: str) -> int:
    same = ready.train.side == ready.built.size
    return cached_until(ready.config, ready.plan, part, same_size=same)


def _image_rows(ready: Prepared, device: torch.device) -> tuple[Rows, int] | None:
    until, tower = _until(ready, "vision"), ready.built.training.model.context_encoder.eval()
    if not until:
        return None
    b = ready.built

    def encode(which):
        part = ready.train.pick(which)
        return embed_pictures(lambda pixels: tower(pixels)[0], part, b.mean, b.std, device)

    say(f"{ready.config.name}: the picture tower is frozen until step {until}; its output is computed once.")
    # The recipe too: equal weights under another activation, or with other heads, give other vectors.
    key = [
        fingerprint_tensors(tower.state_dict()),
        ready.train.fingerprint,
        fingerprint([b.recipe["vision"], b.size, list(b.mean), list(b.std)]),
    ]
    return tower_rows(encode, len(ready.train), Path(ready.config.data.cache), key), until


def _text_rows(ready: Prepared, device: torch.device) -> tuple[Rows, int] | None:
    until, tower = _until(ready, "text"), ready.built.training.model.text.eval()
    if not until:
        return None
    texts = ready.texts

    def encode(which):
        return embed_ids(lambda ids: tower(ids)[0], texts.rows(which), device)

    say(f"{ready.config.name}: the text tower is frozen until step {until}; its output is computed once.")
    key = [
        fingerprint_tensors(tower.state_dict()),
        ready.train.fingerprint,
        ready.built.tokenizer.fingerprint,
        fingerprint(ready.built.recipe["text"]),
    ]
    return tower_rows(encode, len(texts.ids), Path(ready.config.data.cache), key), until


def follow(config: AlignConfig, planned: Plan) -> Callable[[Any, int], None]:
    """What happens once a step has moved the weights: the scale's range, moving averages, the queue."""
    predicts = any(phase.alpha for phase in planned.phases)

    def after(training: AlignTraining, step: int) -> None:
        model = training.model
        model.clamp_scale()
        moved = {PLACED[part] for part in planned.trained_until(step) if part in PLACED}
        if predicts and model.target_encoder is not None and "context_encoder" in moved:
            tau = momentum(step, planned.steps, config.ema.start, config.ema.end, "cosine")
            update_ema(model.target_encoder, model.context_encoder, tau, moved=True)
        if training.momentum is not None:
            for copy, part in training.momentum.pairs(model, moved):
                update_ema(copy, part, config.average.decay, moved=True)
        training.remember()

    return after


def watch(ready: Prepared, training: AlignTraining, step: int) -> dict[str, float]:
    """Collapse measures and NCE@1 of held-out pairs while training; a collapse is said, or ends the run."""
    config, built, model = ready.config, ready.built, training.model
    some = ready.look.pick(range(min(len(ready.look), config.look.pictures)))
    device = model.log_scale.device
    image = embed_pictures(model.encode_image, some, built.mean, built.std, device)
    text = embed_ids(model.encode_text, ready.looked.rows(ready.looked.own[: len(some), 0]), device)
    found, alarms = look(image, text)
    for alarm in alarms:
        if config.look.on_collapse == "stop":
            raise UserError(
                f"{config.name}, step {step}: {alarm} The run stops, as look.on_collapse=stop asks; change the recipe, "
                "or set look.on_collapse=warn to go on."
            )
        say(f"{config.name}, step {step}: {alarm}")
    return found

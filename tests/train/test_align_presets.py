"""Every `align` preset loads, says what it should, and takes a step at toy width."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
import torch

from sutura.core.config import apply_overrides, parse, preset_names, read_preset
from sutura.core.errors import UserError
from sutura.nn.masking import RectangleMask
from sutura.train.align import PLACES, AlignObjective
from sutura.train.align_build import Towers, head_rates
from sutura.train.align_config import AlignConfig
from sutura.train.align_feed import AlignFeed
from sutura.train.align_phases import Freezer, plan
from sutura.train.align_texts import tokenise
from sutura.train.grad_cache import CachedStep
from tiny_align import SIDE, pictures

PRESETS = [name for name in preset_names("jepa") if read_preset(f"jepa/{name}").get("form") == "align"]
TOY = (
    "start.vision=null",
    "start.text=null",
    f"start.vit={{image_size: {SIDE}, patch_size: 4, width: 16, depth: 4, heads: 2}}",
    "start.words.width=16",
    "start.words.depth=1",
    "start.words.heads=2",
    "start.words.length=8",
    "dim=8",
    "predictor.width=8",
    "predictor.heads=2",
    "batch=8",
    "micro_batch=4",
    "augment={}",
)


def config_of(name: str, *overrides: str) -> AlignConfig:
    values = apply_overrides(read_preset(f"jepa/{name}"), overrides)
    values.pop("form")
    return parse(AlignConfig, values)


def test_the_named_ones_are_there():
    wanted = {"tiny", "hybrid", "openclip-mlp", "openclip-aligned", "mae-init", "random-infonce-queue65k"}
    assert wanted | {"coco-published", "coco-corrected"} <= set(PRESETS)


class Plain:
    def autocast(self):
        return torch.autocast("cpu", enabled=False)

    def backward(self, loss):
        loss.backward()


@pytest.mark.parametrize("name", PRESETS)
def test_a_step_of_every_phase_at_toy_width(name, tmp_path):
    config = config_of(name, *TOY)
    config = config.model_copy(update={"augment": config.augment.model_copy(update={"shift": 0})})
    data = pictures(16)
    built = Towers.open(config).build([one for own in data.captions for one in own])
    training = built.training
    steps = 10 * len(config.phases)
    planned = plan(config.phases, steps, steps / config.epochs, config.epochs)
    freezer = Freezer(training, PLACES, planned, config.rates, config.optim.lr, head_rates(config))
    feed = AlignFeed(
        data, tokenise(data, built.tokenizer, tmp_path), planned, batch=8, micro_batch=4, seed=0, size=SIDE,
        mean=built.mean, std=built.std, masks=RectangleMask(built.grid, config.predictor.ratio),
        augment=config.augment, views=config.views,
    )  # fmt: skip
    objective = AlignObjective(planned, config.loss, config.views, 1)
    for start, phase in zip(planned.starts, planned.phases, strict=True):
        freezer.before_step(training, start)
        batches = feed.micro_batches(start)
        if config.negatives == "cached":
            loss, metrics = CachedStep(objective)(training, batches, start, Plain())
        else:
            loss, metrics = objective(training, batches[0], start)
            loss.backward()
        assert torch.isfinite(loss)
        moving = {n for n, p in training.named_parameters() if p.grad is not None}
        assert any("context_encoder" in n for n in moving) == phase.trains_vision()
        assert any(n.startswith("model.text.") for n in moving) == ("text" not in phase.frozen)
        assert any("predictor" in n for n in moving) == (phase.alpha > 0)
        assert {n for n in phase.weights() if phase.weights()[n]} == {
            n.removesuffix("_share") for n in metrics if n.endswith("_share")
        }
        training.remember()
        training.zero_grad(set_to_none=True)


def test_the_published_order_is_flagged_and_the_corrected_one_is_not():
    for name, flagged in (
        ("coco-published", True),
        ("hybrid", True),
        ("coco-corrected", False),
        ("tiny", False),
    ):
        config = config_of(name)
        told = plan(config.phases, 1500, 1500 / config.epochs, config.epochs).flags()
        assert any("EMA OF A FROZEN NETWORK" in line for line in told) is flagged, name


@pytest.mark.parametrize("name", PRESETS)
def test_headers_say_command_time_and_licence_or_source(name):
    path = Path(str(files("sutura"))) / "presets" / "jepa" / f"{name}.yaml"
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"sutura jepa train --preset jepa/{name}" in line for line in header)
    assert any(line.startswith("# time") for line in header)
    assert all(len(line) <= 140 for line in header)


@pytest.mark.parametrize("name", PRESETS)
def test_unknown_keys_are_refused(name):
    with pytest.raises(UserError, match=r"optmi: unknown key"):
        config_of(name, "optmi.lr=0.1")

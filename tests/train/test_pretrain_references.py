"""The speed benchmark compares like with like."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from sutura.train.methods import METHODS
from sutura.train.pretrain import build_feed, build_model

FOLDER = Path(__file__).parents[2] / "benchmarks"
STEP = {"image_size": 32, "patch_size": 4, "width": 16, "depth": 2, "heads": 2}
SMALL = {"image_size": 16, "patch_size": 4, "width": 16, "depth": 2, "heads": 2}


@pytest.fixture
def references(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark's module, as its scripts import it."""
    return _script("pretrain_references", monkeypatch)


def _script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("method", ["supervised", "clip", "mae"])
def test_both_sides_train_the_same_number_of_weights(
    method: str, references: ModuleType, tmp_path: Path
) -> None:
    if method == "mae" and importlib.util.find_spec("lightly") is None:
        pytest.skip("lightly is not installed; it is no dependency")
    run = references.Run(SMALL, 4, 1, "float32", "cpu", 0)
    data = references.make_pictures(tmp_path, 8, 16)
    config = run.config(method)
    ours = build_model(config, METHODS.get(method), data, 3)
    plain = references.PLAIN[method](run)
    theirs = _size(plain)
    if (
        method == "mae"
    ):  # lightly's positions are fixed, and its encoder keeps a mask token that MAE has no use for
        theirs += plain.encoder.vit.pos_embed.numel() - plain.encoder.mask_token.numel()
    assert theirs == _size(ours)


def test_both_sides_are_given_the_same_pictures(references: ModuleType, tmp_path: Path) -> None:
    run: Any = references.Run(SMALL, 4, 1, "float32", "cpu", 0)
    data = references.make_pictures(tmp_path, 12, 16)
    batch = build_feed(run.config("clip"), METHODS.get("clip"), data).micro_batches(0)[0]
    theirs = references.OneByOne(data, 16)
    pixels, labels, words = theirs[0]
    assert pixels.shape == batch.pixels.shape[1:]
    assert labels.shape == (references.LABELS,)
    assert batch.words is not None
    assert words.shape == (references.LENGTH,)
    assert batch.words.shape[1] <= references.LENGTH
    assert set(words.tolist()) >= {1}
    assert torch.isclose(pixels.min(), batch.pixels.min(), atol=0.2)
    assert all((data.words[i] == 1).any(axis=1).all() for i in range(12))  # every caption ends


@pytest.mark.parametrize("method", ["supervised", "clip", "mae", "ijepa"])
def test_both_sides_of_the_step_alone_train_the_same_number_of_weights(
    method: str, references: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of timm's and torch's modules, as where open_clip and lightly are missing."""
    timm_side = _script("pretrain_timm", monkeypatch)
    device_side = _script("pretrain_device", monkeypatch)
    missing, find = ("open_clip", "lightly"), importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else find(name))
    run = references.Run(STEP, 4, 1, "float32", "cpu", 0)
    ours = device_side.build_ours(run, method)
    other = timm_side.reference(method)
    plain = other.build(run)
    assert _size(plain) == _size(ours)
    batch = device_side.draw_batch(run, 0)
    assert torch.isfinite(other.call(plain, batch))
    assert torch.isfinite(METHODS.get(method).objective(ours, batch, 0)[0])
    few = device_side.part_of(batch, 2)
    assert (few.pixels.shape[0], few.targets.shape[1], few.positives.shape) == (2, 2, (2, 2))


def test_a_row_ends_when_its_time_is_up_but_not_without_a_figure(
    references: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    _script("pretrain_timm", monkeypatch)
    device_side = _script("pretrain_device", monkeypatch)
    run = references.Run(STEP, 4, 1, "float32", "cpu", 0)
    batches = [device_side.draw_batch(run, seed) for seed in range(2)]
    for side in ("ours", "reference"):
        facts = device_side.row(run, "supervised", side, batches, device_side.Clock(run, 50, 0.0))
        assert facts["repeats"] == 1
        assert facts["pictures_per_second"] > 0
    whole = device_side.row(run, "supervised", "ours", batches, device_side.Clock(run, 3, 60.0))
    assert whole["repeats"] == 3
    assert whole["operations"] > 0

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
SMALL = {"image_size": 16, "patch_size": 4, "width": 16, "depth": 2, "heads": 2}


@pytest.fixture
def references(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark's module, as its scripts import it."""
    spec = importlib.util.spec_from_file_location("pretrain_references", FOLDER / "pretrain_references.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "pretrain_references", module)  # dataclasses look themselves up there
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

"""The preset for CIFAR-10 on a part of it; nothing of the test split is looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from sutura.core.errors import UserError
from sutura.encoders.text import load_two_tower
from sutura.evals.zero_shot import PHOTOS
from sutura.models.zoo_format import load_zoo_vit
from sutura.train.pretrain import pretrain
from sutura.train.pretrain_config import PretrainConfig, pretrain_settings

DATA = Path(__file__).parents[3] / "shared" / "data" / "cifar10"
SMALL = [
    "vit.width=16", "vit.depth=1", "vit.heads=2", "passes=32", "batch=16", "pictures.source.limit=200",
    "check={fitted: 40, scored: 20, watched: 32, every: 0}", "checkpoint_every=2", "optim.precision=float32",
]  # fmt: skip


def _config(objective: str, place: Path) -> PretrainConfig:
    if not DATA.is_dir():
        pytest.skip("no CIFAR-10 in ../shared/data")
    places = [f"directory={place / 'runs'}", f"pictures.cache={place / 'cache'}"]
    return pretrain_settings(objective, str(DATA), "pretrain/cifar10", [*SMALL, *places])


def test_an_encoder_is_trained_on_the_training_split_alone(tmp_path: Path) -> None:
    vit, facts = load_zoo_vit(pretrain(_config("supervised", tmp_path)))
    assert (vit.image_size, vit.patch_size) == (32, 4)
    assert facts["transform"]["mean"] == [0.4914, 0.4822, 0.4465]
    assert "split train; 60 pictures of the split were held out" in facts["data"]
    assert facts["probe"]["labels"] <= 10
    assert facts["probe"]["scored"] == 20


def test_captions_are_made_of_the_names_of_classes(tmp_path: Path) -> None:
    """Zero-shot reads the run with its own templates."""
    encoder = pretrain(_config("siglip", tmp_path))
    tower = load_two_tower(str(encoder.parent))
    assert tower.encode_text([template.format("truck") for template in PHOTOS]).shape == (len(PHOTOS), 128)


def test_a_teacher_of_other_patches_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Patches must be the same"):
        pretrain(_config("eva", tmp_path))


def test_whole_batches_are_in_the_budget() -> None:
    config = pretrain_settings("mae", "world", "pretrain/cifar10")
    assert config.passes % config.batch == 0
    assert config.check.watched <= config.check.fitted + config.check.scored

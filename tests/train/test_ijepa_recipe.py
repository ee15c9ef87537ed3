"""I-JEPA's settings away from the paper: scattered patches, and a target encoder that hardly moves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sutura.core.checkpoint import load_tensors
from sutura.core.config import load_config, preset_names
from sutura.core.errors import UserError
from sutura.core.log import read_metrics
from sutura.models.zoo_format import load_zoo_vit
from sutura.train.methods import METHODS
from sutura.train.pretrain import build_encoder, build_feed, build_model, pretrain
from sutura.train.pretrain_config import PretrainConfig, pretrain_settings
from sutura.train.pretrain_data import pretraining_pictures

TINY = (
    "passes=32", "batch=8", "vit={image_size: 32, width: 16, depth: 2, heads: 2}", "pictures.count=24",
    "methods.ijepa={predictor_width: 8, predictor_depth: 1, predictor_heads: 2, hidden: scattered, ratio: 0.75}",
    "check={fitted: 40, scored: 40, watched: 40, every: 2}", "checkpoint_every=2", "optim.precision=float32",
)  # fmt: skip
METHOD = METHODS.get("ijepa")


def config_of(folder: Path, *changes: str) -> PretrainConfig:
    places = (f"directory={folder}/runs", f"pictures.cache={folder}/cache")
    return pretrain_settings("ijepa", overrides=[*TINY, *places, *changes])


def test_scattered_patches_share_the_grid_out_and_depend_on_the_seed_alone(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    data, _ = pretraining_pictures(config, METHOD)
    feed = build_feed(config, METHOD, data)
    (batch,), (again,) = feed.micro_batches(1), feed.micro_batches(1)
    assert batch.context is not None
    assert batch.targets is not None
    assert batch.context.shape == (8, 4)
    assert batch.targets.shape == (1, 8, 12)
    for seen, hidden in zip(batch.context.tolist(), batch.targets[0].tolist(), strict=True):
        assert sorted(seen + hidden) == list(range(16))
    assert len({tuple(row) for row in batch.context.tolist()}) > 1
    assert torch.equal(batch.context, again.context)  # type: ignore[arg-type]
    assert torch.equal(batch.targets, again.targets)  # type: ignore[arg-type]


def test_what_never_learns_cannot_be_kept() -> None:
    with pytest.raises(UserError, match="keep=context"):
        pretrain_settings("ijepa", overrides=["methods.ijepa.momentum=1.0"])


@pytest.mark.parametrize("momentum", [0.9, 1.0])
def test_the_context_encoder_is_the_one_that_is_saved(tmp_path: Path, momentum: float) -> None:
    """Fault: the random or half random weights of a target encoder that hardly moves are the result."""
    still = "{momentum: %s, keep: context, levels: all, distance: l2}" % momentum  # noqa: UP031
    config = config_of(tmp_path, f"methods.ijepa={still}")
    data, _ = pretraining_pictures(config, METHOD)
    model = build_model(config, METHOD, data, 4)
    folder = pretrain(config)
    weights = load_tensors(folder.parent / "checkpoint-4" / "weights.safetensors")
    kept, first = load_zoo_vit(folder)[0].state_dict(), build_encoder(config).state_dict()
    for name, weight in kept.items():
        assert torch.equal(weight, weights[f"context_encoder.{name}"].bfloat16().float()), name
    assert any(not torch.equal(weight, first[name].bfloat16().float()) for name, weight in kept.items())
    targets = {
        name: weights[f"target_encoder.{name}"] for name in first if f"target_encoder.{name}" in weights
    }
    # A checkpoint holds frozen weights that moved.
    assert bool(targets) == (momentum < 1)
    assert all(not torch.equal(target, first[name]) for name, target in targets.items())
    assert METHOD.after_step is not None
    assert (METHOD.after_step(config.methods, 4) is None) == (momentum == 1)
    assert METHOD.tune is not None
    loss, _ = METHOD.tune(config.methods)(model, build_feed(config, METHOD, data).micro_batches(0)[0], 0)
    first_row = next(iter(read_metrics(folder.parent / "metrics.jsonl")))
    assert first_row["loss"] == pytest.approx(float(loss.detach()), rel=1e-4)


def test_a_target_that_stays_nearly_random_is_not_kept_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fault: a momentum near 1 in a short run, and the encoder that is saved is four fifths random."""
    assert METHOD.after_step is not None
    for change, told in (
        ("{momentum: 0.9999}", True),
        ("{momentum: 0.9999, keep: context}", False),
        ("{momentum: 0.9}", False),
    ):
        METHOD.after_step(config_of(tmp_path, f"methods.ijepa={change}").methods, 4800)
        assert (
            "79% of the target encoder's random weights" in " ".join(capsys.readouterr().err.split())
        ) is told


def test_the_zoos_recipe_is_one_of_its_settings() -> None:
    found = {
        load_config(PretrainConfig, f"zoo/{n}", []).methods.ijepa
        for n in preset_names("zoo")
        if n != "world-lm"
    }
    assert len(found) == 1
    (recipe,) = found
    assert (recipe.hidden, recipe.keep, recipe.levels) == ("scattered", "context", "all")

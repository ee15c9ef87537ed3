import json

import pytest
import torch

from sutura.core.checkpoint import load_tensors, save_tensors
from sutura.core.errors import UserError
from sutura.models.vit import ViT
from sutura.models.zoo_format import load_zoo_vit, save_zoo_vit

ARGS = {"image_size": 16, "patch_size": 4, "width": 12, "depth": 1, "heads": 3}
TRANSFORM = {"image_size": 16, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "encoder"
    save_zoo_vit(
        path, ViT(**ARGS), args=ARGS, transform=TRANSFORM, about={"objective": "none"}, card="# card\n"
    )
    return path


def test_a_saved_encoder_comes_back_whole(tmp_path):
    torch.manual_seed(0)
    vit = ViT(**ARGS)
    path = tmp_path / "exact"
    save_zoo_vit(path, vit, args=ARGS, transform=TRANSFORM, about={}, card="", dtype=torch.float32)
    loaded, config = load_zoo_vit(path)
    for (name, mine), other in zip(vit.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(mine, other), name
    assert not loaded.training
    assert config["transform"] == TRANSFORM


def test_half_precision_on_disk_float32_in_memory(folder):
    assert {t.dtype for t in load_tensors(folder / "model.safetensors").values()} == {torch.bfloat16}
    loaded, config = load_zoo_vit(folder)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert config["dtype"] == "bfloat16"
    assert config["objective"] == "none"
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


@pytest.mark.parametrize("fault", ["missing", "extra", "shape"])
def test_a_weight_lands_or_the_program_stops(folder, fault):
    tensors = load_tensors(folder / "model.safetensors")
    if fault == "missing":
        tensors.pop("norm.bias")
    elif fault == "extra":
        tensors["blocks.7.mlp.up.bias"] = torch.zeros(3)
    else:
        tensors["norm.bias"] = torch.zeros(13)
    save_tensors(folder / "model.safetensors", tensors)
    with pytest.raises(UserError, match="do not fit"):
        load_zoo_vit(folder)


def test_a_config_of_something_else_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"args": config["args"] | {"wings": 2}}))
    with pytest.raises(UserError, match=r"do not build a ViT.*wings"):
        load_zoo_vit(folder)
    (folder / "config.json").write_text(json.dumps(config | {"model": "resnet"}))
    with pytest.raises(UserError, match="resnet"):
        load_zoo_vit(folder)


def test_arguments_of_another_encoder_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="do not fit"):
        save_zoo_vit(
            tmp_path / "x", ViT(**ARGS), args=ARGS | {"depth": 2}, transform=TRANSFORM, about={}, card=""
        )
    assert not (tmp_path / "x").exists()


def test_weights_too_large_for_the_disks_precision_are_refused(tmp_path):
    vit = ViT(**ARGS)
    with torch.no_grad():
        vit.norm.weight.fill_(1e6)
    with pytest.raises(UserError, match=r"norm.weight.*not finite as torch.float16"):
        save_zoo_vit(
            tmp_path / "x", vit, args=ARGS, transform=TRANSFORM, about={}, card="", dtype=torch.float16
        )

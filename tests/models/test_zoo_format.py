import json

import pytest
import torch

from sutura.core.checkpoint import load_tensors, save_tensors
from sutura.core.errors import UserError
from sutura.models.clip import CLIP, TextTransformer
from sutura.models.siglip import SigLIP
from sutura.models.vit import ViT
from sutura.models.zoo_format import has_text, load_zoo_towers, load_zoo_vit, save_zoo_vit
from tiny_encoders import scramble

ARGS = {"image_size": 16, "patch_size": 4, "width": 12, "depth": 1, "heads": 3}
TRANSFORM = {"image_size": 16, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}


def save_towers(folder, kind=CLIP, words=("<pad>", "<end>", "red", "cube"), **changes):
    """A folder with a text tower, and the model in it; `changes` of the text tower or the model."""
    text_changes = {k: changes.pop(k) for k in ("activation", "mlp_ratio", "norm_eps") if k in changes}
    model = kind(ViT(**ARGS), TextTransformer(4, 5, 8, 2, 2, 1, **text_changes), 6, **changes)
    scramble(model.eval())
    given = {"args": ARGS, "transform": TRANSFORM, "about": {"objective": "clip"}, "card": ""}
    save_zoo_vit(folder, model.vision, towers=model, words=words, **given)
    return model


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


@pytest.mark.parametrize("kind", [CLIP, SigLIP])
def test_both_towers_come_back_rounded_and_single_numbers_exact(kind, tmp_path):
    model = save_towers(tmp_path / "x", kind)
    loaded, words, config = load_zoo_towers(tmp_path / "x")
    assert type(loaded) is kind
    assert words == ("<pad>", "<end>", "red", "cube")
    mine, other = model.state_dict(), loaded.state_dict()
    assert mine.keys() == other.keys()
    for name, tensor in mine.items():
        assert torch.equal(other[name], tensor.bfloat16().float() if tensor.ndim else tensor), name
    assert not torch.equal(other["log_scale"].bfloat16().float(), other["log_scale"])
    assert not loaded.training
    assert config["text"] == {
        "model": kind.__name__.lower(), "dim": 6, "vocabulary": 4, "length": 5, "width": 8, "depth": 2, "heads": 2,
        "end_id": 1,
    }  # fmt: skip
    vit, _ = load_zoo_vit(tmp_path / "x")
    assert all(torch.equal(w, other[f"vision.{name}"]) for name, w in vit.state_dict().items())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("text.norm.bias", None, r"1 missing \(text.norm.bias\)"),
        ("log_scale", None, r"1 missing \(log_scale\)"),
        ("text.norm.more", torch.zeros(2), r"1 not of this model \(text.norm.more\)"),
        ("text.norm.bias", torch.zeros(3), "1 of another shape"),
        (
            "text_projection.weight",
            torch.full((6, 8), float("nan")),
            r"'text_projection.weight' is not finite",
        ),
        ("vision.norm.bias", torch.zeros(12), "which has its place in model.safetensors"),
    ],
)
def test_a_weight_of_the_text_tower_lands_or_the_program_stops(name, value, message, tmp_path):
    save_towers(tmp_path / "x")
    tensors = load_tensors(tmp_path / "x" / "text.safetensors")
    tensors.pop(name, None)
    if value is not None:
        tensors[name] = value
    save_tensors(tmp_path / "x" / "text.safetensors", tensors)
    with pytest.raises(UserError, match=message):
        load_zoo_towers(tmp_path / "x")


def test_words_that_do_not_fit_the_text_tower_are_refused_written_and_read(tmp_path):
    for words in (("<pad>", "<end>", "red"), ("<pad>", "<end>", "red", "red"), ("a", "b", "c", "d", "e"), ()):
        with pytest.raises(UserError, match=rf"has {len(set(words))} words, its text tower 4"):
            save_towers(tmp_path / "x", words=words)
        assert not (tmp_path / "x").exists()
    save_towers(tmp_path / "x")
    for words in (["<pad>", "<end>", "red"], {"<pad>": 0}, ["<pad>", "<end>", "red", 3]):
        (tmp_path / "x" / "vocabulary.json").write_text(json.dumps(words))
        with pytest.raises(UserError, match=r"has 3 words, its text tower 4|is no list of words"):
            load_zoo_towers(tmp_path / "x")
    (tmp_path / "x" / "vocabulary.json").unlink()
    with pytest.raises(UserError, match=r"vocabulary\.json is missing"):
        load_zoo_towers(tmp_path / "x")


def test_towers_that_the_config_cannot_tell_are_not_saved(tmp_path):
    """Fault: a text tower with another activation comes back as one that computes something else."""

    class Other(CLIP):
        pass

    for given, message in (
        ({"activation": "quick_gelu"}, "has an option that config.json does not tell"),
        ({"mlp_ratio": 2.0}, "of another shape"),
        ({"kind": SigLIP, "pooling": "attention"}, "not of this model"),
        ({"kind": Other}, "not of Other"),
    ):
        with pytest.raises(UserError, match=message):
            save_towers(tmp_path / "x", **given)
        assert not (tmp_path / "x").exists()
    model = CLIP(ViT(**ARGS), TextTransformer(4, 5, 8, 1, 2, 1), 6)
    with pytest.raises(ValueError, match="not the picture tower"):
        save_zoo_vit(
            tmp_path / "x", ViT(**ARGS), args=ARGS, transform=TRANSFORM, about={}, card="", towers=model
        )


def test_a_text_tower_is_there_or_not(tmp_path, folder):
    assert not has_text(folder)
    save_towers(tmp_path / "x")
    assert has_text(tmp_path / "x")
    config = json.loads((tmp_path / "x" / "config.json").read_text())
    (tmp_path / "x" / "config.json").write_text(
        json.dumps(config | {"text": {**config["text"], "model": "lit"}})
    )
    with pytest.raises(UserError, match="do not build two towers: 'lit'"):
        load_zoo_towers(tmp_path / "x")
    (tmp_path / "x" / "text.safetensors").unlink()
    assert not has_text(tmp_path / "x")

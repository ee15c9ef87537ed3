import copy
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from yaml import safe_load as read_yaml

from sutura.core.checkpoint import load_tensors, save_tensors
from sutura.core.config import load_config, merge, parse, preset_path
from sutura.core.errors import UserError
from sutura.core.log import read_metrics
from sutura.encoders import load_encoder
from sutura.encoders.text import load_two_tower
from sutura.models.vit import ViT
from sutura.models.zoo_format import load_zoo_vit, save_zoo_vit
from sutura.train.loop import fit
from sutura.train.methods import METHODS
from sutura.train.pretrain import build_encoder, build_feed, build_model, pretrain, run_name
from sutura.train.pretrain_config import PretrainConfig
from sutura.train.pretrain_data import pretraining_pictures

OBJECTIVES = ("supervised", "clip", "siglip", "mae", "eva", "ijepa")
TINY = {
    "passes": 32,
    "batch": 8,
    "vit": {"image_size": 32, "width": 16, "depth": 2, "heads": 2},
    "pictures": {"count": 24, "captions": 2, "shift": 1},
    "methods": {
        "clip": {"dim": 8, "text_width": 8, "text_depth": 1, "text_heads": 2},
        "mae": {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2},
        "ijepa": {
            "predictor_width": 8,
            "predictor_depth": 1,
            "predictor_heads": 2,
            "targets": 2,
            "target_scale": [0.2, 0.3],
            "least_context": 3,
            "momentum": 0.9,
        },
    },
    "optim": {"lr": 1e-3, "warmup": 1},
    "check": {"fitted": 40, "scored": 40, "watched": 40, "every": 2},
    "checkpoint_every": 2,
}


def config_of(objective: str, cache, directory, **changes) -> PretrainConfig:
    places = {"directory": str(directory), "pictures": {"cache": str(cache)}}
    return parse(
        PretrainConfig, merge(merge(TINY, {"name": objective, "objective": objective} | places), changes)
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> str:
    """A teacher of another width, whose colours are scaled otherwise than the pictures come."""
    folder = tmp_path_factory.mktemp("zoo") / "teacher"
    args = {"image_size": 32, "patch_size": 8, "width": 12, "depth": 1, "heads": 2}
    torch.manual_seed(0)
    save_zoo_vit(
        folder,
        ViT(**args),
        args=args,
        transform={"image_size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
        about={"passes": 640, "operations": 1e9},
        card="",
    )
    return str(folder)


@pytest.fixture(autouse=True)
def _with_teacher(teacher, monkeypatch):
    monkeypatch.setitem(TINY["methods"], "eva", {"teacher": teacher})


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_run_leaves_an_encoder_its_facts_and_its_metrics(objective, cache, tmp_path):
    config = config_of(objective, cache, tmp_path)
    steps = []
    folder = pretrain(config, lambda step, row: steps.append(step))
    assert steps == [1, 2, 3, 4]
    vit, facts = load_zoo_vit(folder)
    first = build_encoder(config).state_dict()
    moved = [n for n, w in vit.state_dict().items() if not torch.equal(w, first[n].bfloat16().float())]
    assert any(name.startswith("blocks.1.") for name in moved)
    assert facts["transform"] == {"image_size": 32, "mean": [0.7, 0.69, 0.69], "std": [0.14, 0.14, 0.14]}
    assert facts["passes"] == 32
    assert facts["probe"]["scored"] == 40
    rows = list(read_metrics(folder.parent / "metrics.jsonl"))
    assert rows[1]["evaluation"]["effective_rank"] > 1
    card = (folder / "README.md").read_text()
    assert config.hash() in card
    assert f"{facts['probe']['score']:.3f}" in card

    changed = list(folder.parent.rglob("*"))
    assert pretrain(config) == folder  # finished: nothing is trained or written again
    assert list(folder.parent.rglob("*")) == changed


def test_all_objectives_start_from_the_same_encoder(cache, tmp_path):
    """Encoders that are compared differ in the objective and in nothing else."""
    first = build_encoder(config_of("clip", cache, tmp_path)).state_dict()
    data, check = pretraining_pictures(config_of("clip", cache, tmp_path), METHODS.get("clip"))
    assert data.fingerprint != check.fingerprint
    for objective in OBJECTIVES:
        config = config_of(objective, cache, tmp_path)
        model = build_model(config, METHODS.get(objective), data, 4)
        model.teacher = None
        encoders = [part for part in model.modules() if isinstance(part, ViT)]
        assert len(encoders) == (2 if objective == "ijepa" else 1)
        for encoder in encoders:
            for name, weight in encoder.state_dict().items():
                assert torch.equal(weight, first[name]), (objective, name)
    other = build_encoder(config_of("clip", cache, tmp_path, seed=1)).state_dict()
    assert not torch.equal(other["positions"], first["positions"])


def test_the_kept_encoder_of_ijepa_is_the_target_that_followed(cache, tmp_path):
    """The moving average moved, by less than the encoder it follows."""
    config = config_of("ijepa", cache, tmp_path)
    kept, _ = load_zoo_vit(pretrain(config))
    start = build_encoder(config).state_dict()
    from safetensors.torch import load_file

    weights = load_file(tmp_path / f"ijepa-{config.hash()}" / "checkpoint-4" / "weights.safetensors")
    name = "blocks.0.mlp.up.weight"
    online = weights[f"context_encoder.{name}"] - start[name]
    target = kept.state_dict()[name] - start[name]
    assert 0 < float(target.norm()) < 0.5 * float(online.norm())


def test_a_stopped_run_goes_on_to_the_same_bits(cache, tmp_path):
    whole = pretrain(config_of("ijepa", cache, tmp_path / "whole"))

    def stop(step: int, row: dict) -> None:
        if step == 3:
            raise KeyboardInterrupt

    config = config_of("ijepa", cache, tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        pretrain(config, stop)
    steps = []
    parts = pretrain(config, lambda step, row: steps.append(step))
    assert steps == [3, 4]
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_collapsed_encoder_is_said_and_written_on_its_card(cache, tmp_path, monkeypatch):
    """Fault: collapse found after days."""
    said = []
    monkeypatch.setattr("sutura.train.pretrain.say", said.append)
    follow = METHODS.get("ijepa").after_step

    def collapse(config, steps):
        def after(model, step):
            follow(config, steps)(model, step)
            with torch.no_grad():
                model.target_encoder.embed.project.weight.zero_()
                model.target_encoder.blocks[0].attention.out.weight.zero_()

        return after

    import dataclasses

    planted = dataclasses.replace(METHODS.get("ijepa"), after_step=collapse)
    monkeypatch.setitem(METHODS._items, "ijepa", planted)
    folder = pretrain(config_of("ijepa", cache, tmp_path))
    assert sum("have collapsed" in line for line in said) >= 2
    look = TINY["check"] | {"on_collapse": "stop"}
    with pytest.raises(UserError, match=r"step 2: The features have collapsed.*on_collapse=stop"):
        pretrain(config_of("ijepa", cache, tmp_path, check=look))
    assert "have collapsed" in (folder / "README.md").read_text()
    facts = json.loads((folder / "config.json").read_text())
    assert facts["probe"]["score"] == pytest.approx(facts["probe"]["base_rate"], abs=0.02)


def test_presets_differ_in_the_objective_and_nothing_else():
    configs = [load_config(PretrainConfig, f"zoo/{objective}") for objective in OBJECTIVES]
    shared = [{k: v for k, v in c.resolved().items() if k not in ("name", "objective")} for c in configs]
    assert all(one == shared[0] for one in shared)
    files = [read_yaml(preset_path(f"zoo/{objective}").read_text()) for objective in OBJECTIVES]
    assert sum("base" not in file for file in files) == 1
    assert all(set(file) == {"base", "name", "objective"} for file in files if "base" in file)
    assert [c.objective for c in configs] == list(OBJECTIVES)


def test_wrong_settings_are_told_before_any_work(cache, tmp_path):
    with pytest.raises(UserError, match=r"no pretraining objective named 'clipp'.*'clip'"):
        pretrain(config_of("clipp", cache, tmp_path))
    for changes, message in (
        ({"passes": 33}, "passes=33 is not a multiple of batch=8"),
        ({"batch": 1}, "batch: Input should be greater than or equal to 2"),
        ({"vit": {"image_size": 8, "patch_size": 16}}, "vit.image_size=8 is smaller than a patch"),
        ({"vit": {"image_size": 60, "patch_size": 8}}, "image_size=60 is not a multiple"),
        ({"vit": {"width": 18, "heads": 4}}, "cannot be built: .*18"),
        ({"pictures": {"crop": [0.5, 1.2]}}, "no range of shares"),
        ({"methods": {"eva": {"teacher": "zoo:clpi"}}, "objective": "eva"}, "no teacher at 'zoo:clpi'"),
        (
            {"vit": {"patch_size": 16}, "objective": "eva"},
            "in patches of 8, the encoder pictures of 32 in patches",
        ),
        ({"vit": {"image_size": 64}, "objective": "eva"}, "sees pictures of 32 pixels"),
        ({"methods": {"ijepa": {"least_context": 40}}, "objective": "ijepa"}, "fewer than 40"),
        ({"check": {"watched": 400}}, "check.watched=400"),
    ):
        with pytest.raises(UserError, match=message):
            pretrain(config_of(**{"objective": "clip", "cache": tmp_path, "directory": tmp_path, **changes}))
        assert not list(tmp_path.iterdir()), changes


def test_an_encoder_that_did_not_collapse_is_not_stopped(cache, tmp_path):
    """The alarm that stops a collapsed run lets the others pass."""
    look = TINY["check"] | {"on_collapse": "stop", "every": 1}
    assert pretrain(config_of("mae", cache, tmp_path, check=look)).is_dir()


def test_cards_account_for_everybody_who_sees_pictures(cache, tmp_path):
    """A teacher's passes, and those of its own training, stand beside the encoder's."""
    told = {
        name: load_zoo_vit(pretrain(config_of(name, cache, tmp_path)))[1] for name in ("eva", "ijepa", "mae")
    }
    assert told["eva"]["passes_by"] == {
        "encoder": 32,
        "encoder, first stage": 16,
        "encoder, second stage": 16,
        "teacher, forward only": 16,
        "teacher, its own training before": 640,
    }
    assert told["ijepa"]["passes_by"] == {"encoder": 32, "target encoder, forward only": 32}
    assert told["mae"]["passes_by"] == {"encoder": 32}
    card = next(tmp_path.glob("eva-*/encoder/README.md")).read_text()
    assert "| teacher, its own training before | 640 |" in card
    assert "| step | 1 | 2 | 3 | 4 |" in card
    assert "`sutura zoo build eva`, " in card
    assert "commit" in card
    assert told["eva"]["operations"] > told["mae"]["operations"] > 0


def test_the_teacher_keeps_its_own_weights_and_only_the_student_learns(cache, tmp_path, teacher):
    config, method = config_of("eva", cache, tmp_path), METHODS.get("eva")
    data, _ = pretraining_pictures(config, method)
    model = build_model(config, method, data, 4)
    theirs, _ = load_zoo_vit(Path(teacher))
    optim = config.optim.model_copy(update={"warmup": 0})
    fit(model, method.objective, build_feed(config, method, data), optim, seed=0, directory=None)
    for name, weight in model.teacher.vit.state_dict().items():
        assert torch.equal(weight, theirs.state_dict()[name]), name
    assert all(parameter.grad is None for parameter in model.teacher.parameters())
    moved = model.masked.mask_token, model.contrastive.text_projection.weight
    fresh = build_model(config, method, data, 4)
    for after, before in zip(
        moved, (fresh.masked.mask_token, fresh.contrastive.text_projection.weight), strict=True
    ):
        assert not torch.equal(after, before)  # both stages had their turn


def test_both_stages_of_eva_count_into_its_arithmetic(cache, tmp_path):
    spent = {}
    for first in (0.01, 0.5, 0.99):
        eva = TINY["methods"]["eva"] | {"first": first}
        folder = pretrain(config_of("eva", cache, tmp_path, methods={"eva": eva}))
        spent[first] = load_zoo_vit(folder)[1]["operations"]
    assert spent[0.5] == pytest.approx((spent[0.01] + spent[0.99]) / 2)
    assert spent[0.01] != pytest.approx(spent[0.99], rel=0.01)


def test_another_teacher_is_another_run(cache, tmp_path, teacher):
    config = config_of("eva", cache, tmp_path)
    name = run_name(config, METHODS.get("eva"))
    weights = Path(teacher) / "model.safetensors"
    was = weights.read_bytes()
    try:
        save_tensors(weights, {k: v * 2 for k, v in load_tensors(weights).items()})
        assert run_name(config, METHODS.get("eva")) != name
    finally:
        weights.write_bytes(was)
    assert run_name(config, METHODS.get("eva")) == name


@pytest.mark.parametrize("objective", ["clip", "siglip", "eva"])
def test_a_text_tower_is_kept_with_the_encoder(objective, cache, tmp_path, monkeypatch):
    """Without the run's checkpoints, both towers are those that were trained, rounded, to the bit."""
    kept = []

    def save(*given, **named):
        kept.append(copy.deepcopy(named["towers"]))
        save_zoo_vit(*given, **named)

    monkeypatch.setattr("sutura.train.pretrain.save_zoo_vit", save)
    config = config_of(objective, cache, tmp_path)
    folder = pretrain(config)
    for old in folder.parent.glob("checkpoint-*"):
        shutil.rmtree(old)
    trained = kept[0].eval()
    for weight in trained.parameters():
        weight.data = weight.data.bfloat16().float() if weight.ndim else weight.data
    tower = load_two_tower(str(folder))
    texts = ["a red cube", "two small things"]
    data, _ = pretraining_pictures(config, METHODS.get(objective))
    ids = torch.from_numpy(data.vocabulary.encode(texts)).long()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(tower.encode_text(texts), trained.encode_text(ids))
        assert torch.equal(tower.image(pixels), trained.encode_image(pixels))
    assert torch.equal(tower.model.log_scale, trained.log_scale)
    start = {"clip": math.log(1 / 0.07), "siglip": math.log(10), "eva": math.log(1 / 0.07)}[objective]
    assert tower.model.log_scale.item() != pytest.approx(start, abs=1e-6)
    saved = load_tensors(folder / "text.safetensors")
    single = ["bias", "log_scale"] if objective == "siglip" else ["log_scale"]
    assert sorted(name for name, t in saved.items() if t.dtype == torch.float32) == single
    assert {t.dtype for t in saved.values() if t.ndim} == {torch.bfloat16}
    assert not any(name.startswith("vision.") for name in saved)
    count = sum(t.numel() for t in saved.values())
    words = json.loads((folder / "vocabulary.json").read_text())
    assert words == list(data.vocabulary.words)
    told = f"`vocabulary.json`): {count:,} parameters with both projections, {len(words)} words."
    assert told in (folder / "README.md").read_text()


@pytest.mark.parametrize("objective", ["supervised", "mae", "ijepa"])
def test_an_encoder_without_texts_has_three_files(objective, cache, tmp_path):
    folder = pretrain(config_of(objective, cache, tmp_path))
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert "text" not in json.loads((folder / "config.json").read_text())
    assert "text tower" not in (folder / "README.md").read_text()
    with pytest.raises(UserError, match=f"by '{objective}', without a text tower"):
        load_two_tower(str(folder))


def test_a_run_that_kept_its_last_checkpoint_writes_its_encoder_anew(cache, tmp_path):
    """Both towers, without a step."""
    config = config_of("clip", cache, tmp_path)
    folder = pretrain(config)
    whole = {p.name: p.read_bytes() for p in folder.iterdir()}
    shutil.rmtree(folder)
    steps = []
    assert pretrain(config, lambda step, row: steps.append(step)) == folder
    assert not steps
    for name in ("model.safetensors", "text.safetensors", "vocabulary.json"):
        assert (folder / name).read_bytes() == whole[name], name


def test_a_text_tower_does_not_change_what_the_encoder_is(cache, tmp_path):
    """Features that were cached and stitches that were trained before the text tower was kept stay valid."""
    folder = pretrain(config_of("siglip", cache, tmp_path))
    before = load_encoder(str(folder)).fingerprint
    facts = json.loads((folder / "config.json").read_text())
    del facts["text"]
    (folder / "config.json").write_text(json.dumps(facts))
    (folder / "text.safetensors").unlink()
    (folder / "vocabulary.json").unlink()
    assert load_encoder(str(folder)).fingerprint == before
    with pytest.raises(UserError, match=r"by 'siglip', but .* holds no text\.safetensors"):
        load_two_tower(str(folder))

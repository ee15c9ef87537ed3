"""`sutura pretrain` on anybody's pictures: from a file to an encoder that loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from sutura.cli import app
from sutura.core.errors import UserError
from sutura.encoders import load_encoder
from sutura.encoders.text import load_two_tower
from sutura.models.zoo_format import load_zoo_vit
from sutura.train.methods import METHODS
from sutura.train.pretrain import build_feed, pretrain
from sutura.train.pretrain_config import pretrain_settings
from sutura.train.pretrain_data import pretraining_pictures

COUNT = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photographs of three classes of one colour each, of many sizes, with captions."""
    rng, lines = np.random.default_rng(0), []
    for i in range(COUNT):
        name = ("blue", "green", "red")[i % 3]
        colour = np.zeros((4, 5, 3), np.int64)
        colour[..., 2 - i % 3] = 200
        noisy = (colour + rng.integers(0, 55, colour.shape)).astype(np.uint8)
        (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
        size = (int(rng.integers(12, 50)), int(rng.integers(12, 50)))
        Image.fromarray(noisy).resize(size).save(tmp_path / "set" / name / f"{i}.png")
        lines.append(
            json.dumps({"file_name": f"set/{name}/{i}.png", "label": i % 3, "caption": f"{name} {i % 5}"})
        )
    (tmp_path / "set.jsonl").write_text("\n".join(lines))
    return tmp_path


def small(folder: Path, *more: str) -> list[str]:
    return [
        "vit={image_size: 16, patch_size: 4, width: 16, depth: 2, heads: 2}", "passes=48", "batch=8",
        "methods.clip={dim: 8, text_width: 8, text_depth: 1, text_heads: 2}",
        "methods.mae={decoder_width: 8, decoder_depth: 1, decoder_heads: 2}",
        "check={fitted: 16, scored: 12, watched: 28, every: 3}", "pictures.shift=1",
        f"pictures.cache={folder / 'cache'}", f"directory={folder / 'runs'}", "checkpoint_every=3", *more,
    ]  # fmt: skip


def test_the_command_trains_an_encoder_that_loads(folder, monkeypatch):
    """From class folders: labels train it, others of them check it, and the card has the command."""
    command = ["pretrain", "--objective", "supervised", "--data", str(folder / "set")]
    asked = [
        *command,
        *small(folder, "methods.supervised={smoothing: 0.1, mixup: 0.2}", "pictures.crop=[0.5, 1.0]"),
    ]
    monkeypatch.setattr("sys.argv", ["sutura", *asked])
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    encoder = Path(done.stdout.split()[-1])
    vit, facts = load_zoo_vit(encoder)
    assert facts["probe"]["labels"] == 3
    assert facts["probe"]["scored"] == 12
    assert "32 pictures of" in facts["data"]
    assert facts["licence"] is None
    card = (encoder / "README.md").read_text()
    assert "sutura pretrain --objective supervised --data" in card
    assert "Licence" not in card
    assert facts["transform"]["resize"] == "crop"
    assert facts["transform"]["mean"] == [0.485, 0.456, 0.406]
    loaded = load_encoder(str(encoder), tokens=4)
    assert (loaded.width, vit.width) == (16, 16)


@pytest.mark.parametrize("objective", ["mae", "siglip"])
def test_pictures_of_mixed_sizes_with_captions_or_nothing(folder, objective):
    config = pretrain_settings(objective, str(folder / "set.jsonl"), overrides=small(folder))
    encoder = pretrain(config)
    words = encoder / "vocabulary.json"
    assert words.is_file() == (objective == "siglip")
    if words.is_file():
        assert {"blue", "green", "red", "<unknown>"} < set(json.loads(words.read_text()))
    said = []
    assert pretrain(config, lambda step, row: said.append(step)) == encoder
    assert not said  # finished: not trained again


@pytest.mark.parametrize("objective", ["clip", "siglip", "eva"])
def test_class_folders_train_what_learns_from_texts(objective, folder):
    """Pictures of one class share their captions, and SigLIP takes no one of them for a negative."""
    templates = "pictures.source.caption_templates=['a photo of a {}.', 'a small {}']"
    asked = small(folder, templates, "methods.eva.target=pixels")
    config = pretrain_settings(objective, str(folder / "set"), overrides=asked)
    method = METHODS.get(objective)
    train, _ = pretraining_pictures(config, method)
    batch = build_feed(config, method, train).micro_batches(0)[0]
    labels = train.labels[batch.ids]
    assert len(set(labels.tolist())) < len(labels)
    assert (batch.positives.numpy() == (labels[:, None] == labels)).all()
    encoder = pretrain(config)
    tower = load_two_tower(str(encoder.parent))
    told = tower.encode_text(["a photo of a red.", "a small blue"])
    assert told.shape == (2, 8)
    assert not torch.allclose(told[0], told[1])
    vit, _ = load_zoo_vit(encoder)
    kept = tower.model.vision.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in vit.state_dict().items())


def test_pictures_that_changed_are_another_run(folder):
    config = pretrain_settings("mae", str(folder / "set"), overrides=small(folder))
    first = pretrain(config)
    Image.new("RGB", (20, 20), "white").save(folder / "set" / "red" / "new.png")
    assert pretrain(config) != first


def test_what_the_command_line_says_wins_over_the_preset():
    config = pretrain_settings("mae", "some/where", overrides=["passes=640", "pictures.mean=[0, 0, 0]"])
    assert (config.objective, config.passes, config.pictures.source.path) == ("mae", 640, "some/where")
    assert (config.pictures.mean, config.pictures.std) == ((0, 0, 0), (0.229, 0.224, 0.225))
    assert pretrain_settings("clip").pictures.mean == (0.70, 0.69, 0.69)


@pytest.mark.parametrize(
    ("objective", "data", "changes", "message"),
    [
        ("clip", "set", [], "captions are needed"),
        ("supervised", "set/red", [], "outside of any class folder"),
        ("mae", "nothing", [], "There are no pictures at"),
        ("clip", "set.jsonl", ["batch=1"], "batch: Input should be greater than or equal to 2"),
        ("clip", "set.jsonl", ["batch=40", "passes=40"], "batch=40 is more than the 32 pictures"),
        ("supervised", "set.jsonl", ["pictures.source.classes=2"], "Label 2 is out of range: 2 classes"),
        ("mae", "set", ["check.scored=100"], r"check takes 116 .*60 different"),
        ("mae", "set", ["vit.image_size=128", "vit.patch_size=64"], "60 smaller than a patch of 64 pixels"),
        ("mae", "set", ["pictures.source.split=test"], "no folder 'test'"),
    ],
)
def test_bad_input_is_told_before_anything_is_trained(folder, objective, data, changes, message, monkeypatch):
    monkeypatch.setattr("sutura.train.pretrain.fit", None)
    with pytest.raises(UserError, match=message):
        pretrain(pretrain_settings(objective, str(folder / data), overrides=small(folder, *changes)))
    assert not (folder / "runs").exists()


def test_a_set_of_one_class_is_no_set_to_learn_labels_from(folder):
    for name in ("blue", "green"):
        for path in (folder / "set" / name).iterdir():
            path.unlink()
    with pytest.raises(UserError, match=r"All 20 pictures carry the same label \(red\)"):
        pretrain(pretrain_settings("supervised", str(folder / "set"), overrides=small(folder)))


def test_labels_of_the_check_are_those_of_training(folder):
    config = pretrain_settings("supervised", str(folder / "set.jsonl"), overrides=small(folder))
    train, check = pretraining_pictures(config, METHODS.get("supervised"))
    for data in (train, check):
        brightest = data.pixels[:].mean(axis=(1, 2)).argmax(axis=1)  # of red, green, blue
        assert (brightest == 2 - data.labels).all()
    assert train.label_names == check.label_names == ("0", "1", "2")

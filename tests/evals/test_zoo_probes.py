"""The page of probes: encoders beside an untrained one, and zero-shot of those whose folder holds a text tower."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

import sutura
from scripts import load_script
from sutura.core.checkpoint import read_json
from sutura.data.captions import WordVocabulary
from sutura.encoders import catalog
from sutura.evals.zero_shot import PHOTOS
from sutura.models.clip import CLIP, TextTransformer
from sutura.models.vit import ViT
from sutura.models.zoo_format import save_zoo_vit
from tiny_encoders import MEAN, STD, scramble

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "zoo_probes.py"
ARGS = {"image_size": 16, "patch_size": 8, "width": 16, "depth": 1, "heads": 2, "pooling": "mean"}
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220)}
QUICK = [
    "linear.penalties=[0.1]", "attentive={lrs: [0.01], weight_decays: [0.01], epochs: 2}",
    "fewshot={shots: [1, 2], draws: 2}", "knn.ks=[1]", "resamples=100", "device=cpu",
]  # fmt: skip


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_script("zoo_probes", monkeypatch)


def save_run(folder: Path, objective: str, seed: int, *, with_text: bool = True) -> CLIP:
    """The folder of a pretraining run; its text tower, if kept, knows the templates' words."""
    vocabulary = WordVocabulary.of([template.format(name) for template in PHOTOS for name in COLOURS])
    torch.manual_seed(seed)
    text = TextTransformer(len(vocabulary), 9, 12, 1, 2, vocabulary.end_id)
    model = scramble(CLIP(ViT(**ARGS), text, 8).eval(), seed)
    transform = {"image_size": 16, "mean": MEAN, "std": STD}
    about = {"name": objective, "objective": objective, "data": "elsewhere"}
    towers = model if with_text else None
    save_zoo_vit(
        folder / "encoder", model.vision, args=ARGS, transform=transform, about=about, card="card",
        towers=towers, words=vocabulary.words,
    )  # fmt: skip
    return model


@pytest.fixture
def colours(tmp_path: Path) -> str:
    """Class folders of noisy colours."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6), ("test", 8)):
        for name, base in COLOURS.items():
            place = tmp_path / "set" / split / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(np.array(base) + rng.integers(-60, 60, (16, 16, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{i}.png")
    return str(tmp_path / "set")


def test_the_page_has_every_encoder_and_probe_and_zero_shot_where_there_is_a_text_tower(
    script: ModuleType, colours: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member of the zoo, and runs without a text tower: one that should have it is named, the other is not."""
    monkeypatch.chdir(tmp_path)
    save_run(tmp_path / "clip-1", "clip", seed=1)
    (tmp_path / "zoo").mkdir()
    (tmp_path / "clip-1/encoder").rename(tmp_path / "zoo/clip")
    monkeypatch.setattr(catalog, "zoo_root", lambda: tmp_path / "zoo")
    save_run(tmp_path / "mae-1", "mae", seed=2, with_text=False)
    save_run(tmp_path / "eva-1", "eva", seed=3, with_text=False)
    out, given = tmp_path / "page.md", ["zoo:clip", *(str(tmp_path / name) for name in ("mae-1", "eva-1"))]
    script.main(["--data", colours, "--encoders", *given, "--out", str(out), "--set", *QUICK])
    saved = json.loads(out.with_suffix(".json").read_text())
    found = {(row["encoder"], row["probe"]): row for row in saved["rows"]}
    kinds = ("linear", "knn", "attentive", "fewshot-1", "fewshot-2")
    assert set(found) == {(e, k) for e in ("clip", "mae", "eva", "untrained") for k in kinds} | {
        ("clip", "zeroshot")
    }
    assert all(row["n"] == 24 and row["low"] <= row["score"] <= row["high"] for row in found.values())
    text = out.read_text()
    assert "| encoder | linear | knn | attentive | fewshot-1 | fewshot-2 | zeroshot |" in text
    assert sum(line.startswith("| untrained |") for line in text.splitlines()) == 1
    assert "Zero-shot of eva: its folder holds no text tower." in text
    assert "Zero-shot of mae" not in text
    assert "none is in two parts" in text
    assert "--data" in text
    kept = read_json(tmp_path / "runs/probes/page.json")
    assert kept["rows"] == [row for row in saved["rows"] if row["probe"] != "zeroshot"]


def test_a_runs_folder_serves_every_kind_and_runs_are_told_apart(
    colours: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: zero-shot takes a run's folder and linear its `encoder`, and two of those have one name."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("clip-1", "clip-2")):
        save_run(tmp_path / "runs" / name, "clip", seed=seed)
    result = sutura.probe(["runs/clip-1", "runs/clip-2/encoder"], colours, "zeroshot,linear", QUICK)
    found = {(row["encoder"], row["probe"]): row["score"] for row in result.rows}
    assert set(found) == {(name, kind) for name in ("clip-1", "clip-2") for kind in ("zeroshot", "linear")}
    inside = sutura.probe("runs/clip-1/encoder", colours, "linear", QUICK)
    assert inside.rows[0]["score"] == found["clip-1", "linear"]

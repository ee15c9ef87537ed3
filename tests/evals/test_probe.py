"""`sutura.probe` from pictures to a table: parts that share no picture, floors, and figures that repeat."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import sutura
from sutura.core.errors import UserError
from sutura.evals.probe_record import reread
from sutura.models.vit import ViT
from sutura.models.zoo_format import save_zoo_vit
from tiny_encoders import MEAN, STD, scramble

ARGS = {"image_size": 16, "patch_size": 8, "width": 16, "depth": 1, "heads": 2, "pooling": "mean"}
QUICK = {
    "linear": {"penalties": [0.01, 0.1]},
    "attentive": {"lrs": [1e-2], "weight_decays": [0.01], "epochs": 4, "batch": 32},
    "fewshot": {"shots": [1, 2], "draws": 2},
    "resamples": 100,
    "device": "cpu",
}
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220)}


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    """A ViT with random weights: enough to tell colours apart."""
    torch.manual_seed(0)
    vit = scramble(ViT(**ARGS))
    transform = {"image_size": 16, "mean": MEAN, "std": STD}
    save_zoo_vit(tmp_path / "eye", vit, args=ARGS, transform=transform, about={}, card="card")
    return str(tmp_path / "eye")


def colour(number: int, noise: int = 60) -> bytes:
    """A noisy picture whose colour is number % 3."""
    rng = np.random.default_rng(number)
    base = np.array(list(COLOURS.values())[number % 3])
    pixels = np.clip(base + rng.integers(-noise, noise, (16, 16, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes splits of picture numbers; a label is the number's colour unless it is given."""
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    monkeypatch.chdir(tmp_path)

    def write(name: str = "set", labels: Any = None, **splits: Any) -> str:
        folder = tmp_path / name
        folder.mkdir()
        for split, numbers in splits.items():
            label = [list(COLOURS)[n % 3] if labels is None else labels(n) for n in numbers]
            rows = {"image": [colour(n) for n in numbers], "label": label}
            pq.write_table(pa.table(rows), folder / f"{split}.parquet")
        return str(folder)

    return write


def test_every_probe_finds_colours_and_the_table_says_what_beside(
    encoder: str, colours: Any, tmp_path: Path
) -> None:
    path = colours(train=range(60), val=range(100, 121), test=range(200, 260))
    kinds = "linear,knn,attentive,fewshot"
    result = sutura.probe(encoder, path, kinds, out=tmp_path / "out.json", **QUICK)
    rows = {row["probe"]: row for row in result.rows}
    assert list(rows) == ["linear", "knn", "attentive", "fewshot-1", "fewshot-2"]
    for name in ("linear", "knn", "attentive"):
        assert rows[name]["score"] > 0.9, name
        assert rows[name]["fitted"] == 81
    for row in rows.values():
        assert (row["n"], row["base"]) == (60, pytest.approx(1 / 3))
        assert row["low"] <= row["score"] <= row["high"]
    assert (rows["fewshot-2"]["fitted"], rows["fewshot-2"]["draws"]) == (6, 2)
    assert "60 / 21 / 60; none is in two parts" in result.markdown()
    assert "33.3" in result.markdown()

    # Nothing is printed that does not follow from the pictures' scores.
    again = reread(tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    for row in written["rows"]:
        told = again[row["encoder"], row["probe"]].facts()
        assert {key: row[key] for key in told} == told
    ledger = pl.read_parquet(tmp_path / "out.parquet")
    assert len(ledger) == 60 * (3 + 2 * 2)
    other = ledger.with_columns(labels=ledger["labels"].reverse())
    other.write_parquet(tmp_path / "out.parquet")
    assert reread(tmp_path / "out.json")["eye", "linear"].score < 0.9


def test_shuffled_labels_score_the_floor(encoder: str, colours: Any) -> None:
    """Fault: a probe scored on its own training images; on labels that mean nothing it would still shine."""
    draw = np.random.default_rng(0)
    path = colours(
        labels=lambda n: "xyz"[draw.integers(3)], train=range(90), val=range(100, 130), test=range(200, 320)
    )
    result = sutura.probe(encoder, path, "linear,knn", **{**QUICK, "linear": {"penalties": [1e-4]}})
    for row in result.rows:
        assert row["score"] < 0.5, row["probe"]
        assert row["low"] < row["base"] + 0.12


@pytest.mark.parametrize(("one", "other"), [("train", "test"), ("train", "val"), ("val", "test")])
def test_a_picture_in_two_parts_stops_the_probe(encoder: str, colours: Any, one: str, other: str) -> None:
    """Fault: linear probe scored on its own training images. Here: one picture planted in two parts."""
    splits = {"train": list(range(30)), "val": list(range(100, 110)), "test": list(range(200, 230))}
    splits[other] += splits[one][3:5]
    names = {"train": "fit", "val": "select", "test": "test"}
    with pytest.raises(
        UserError, match=rf"share pictures \(2 in {names[one]} and {names[other]}.*on_overlap=drop"
    ):
        sutura.probe(encoder, colours(**splits), "linear", **QUICK)


def test_shared_pictures_can_be_left_out_of_the_earlier_part(encoder: str, colours: Any) -> None:
    path = colours(train=range(30), val=[*range(100, 110), 5], test=[*range(200, 230), 6, 7, 101])
    result = sutura.probe(encoder, path, "linear", ["data.on_overlap=drop"], **QUICK)
    parts = result.about["parts"]
    assert [parts[p]["pictures"] for p in ("fit", "select", "test")] == [27, 10, 33]
    assert parts["fit"]["set_aside"] == {"also in a later part": 3}
    assert result.rows[0]["fitted"] == 37
    assert "left out of the earlier one" in result.markdown()


SMALL = {"train": range(12), "test": range(20, 29)}


@pytest.mark.parametrize(
    ("splits", "labels", "kinds", "sentence"),
    [
        (SMALL, lambda n: "same", "linear", "has one class to fit on"),
        ({**SMALL, "test": range(20, 22)}, None, "linear", "2 pictures to test on and 3 classes"),
        (
            {**SMALL, "train": range(8)},
            lambda n: f"c{n % 12}",
            "linear",
            "8 pictures to fit on and 12 classes",
        ),
        (
            SMALL,
            lambda n: "abc"[n % 3] if n < 12 else "abd"[n % 3],
            "knn",
            r"3 test pictures .* 1 classes .*\(d\)",
        ),
        (SMALL, None, "fewshot", "fewer than 40 pictures to draw from"),
        (SMALL, None, "zeroshot", "eye was pretrained without a text tower"),
    ],
    ids=["one class", "few to test", "few to fit", "unseen class", "few shots", "no text tower"],
)
def test_a_set_that_cannot_be_probed_is_refused_before_anything_is_encoded(
    encoder: str,
    colours: Any,
    splits: Any,
    labels: Any,
    kinds: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = colours(labels=labels, val=range(70, 79), **splits)
    monkeypatch.setattr("sutura.evals.probe.encode_parts", lambda *_: pytest.fail("features were computed"))
    options = {**QUICK, "fewshot": {"shots": [40]}}
    with pytest.raises(UserError, match=sentence):
        sutura.probe(encoder, path, kinds, **options)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"kinds": "linaer"}, "there is no probe 'linaer'. Did you mean 'linear'"),
        ({"overrides": ["knn.k=3"]}, r"knn.k: unknown key. Did you mean 'ks'"),
        ({"encoders": []}, "No encoder to probe"),
        ({"encoders": ["zoo:clip", "zoo:clip"]}, "two encoders are called 'clip'"),
        ({"data": "nowhere"}, "no labelled data at 'nowhere'"),
        ({"out": Path("table.csv")}, r"does not end in \.json"),
    ],
)
def test_a_mistake_is_answered_with_a_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        sutura.probe(**{"encoders": "zoo:clip", **given})


def test_the_world_by_its_labels_through_the_stitches_cache(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = {"source": "world", "limit": 40, "select_limit": 20, "test_limit": 30, "image_size": 16}
    options: dict[str, Any] = {**QUICK, "fewshot": {"shots": [1], "draws": 2}}
    result = sutura.probe(encoder, data, "linear,knn,fewshot", **options)
    assert {row["metric"] for row in result.rows} == {"mAP"}
    assert result.about["several_labels"]
    for row in result.rows:
        assert 0 < row["base"] < row["score"] + 0.05
        assert row["base_of"] == "a constant"
    kept = sorted((tmp_path / "runs" / "features").iterdir())
    assert len(kept) == 3

    from sutura.data.sources import VqaSource
    from sutura.data.world_vqa import load_world
    from sutura.encoders import cached_features, load_encoder

    asked = load_world(VqaSource(source="world", split="train", limit=40, image_size=16))
    store = cached_features(
        load_encoder(encoder),
        asked.pictures,
        tmp_path / "runs/features",
        data_fingerprint=asked.pictures_fingerprint,
    )
    assert store.directory in kept

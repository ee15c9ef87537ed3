"""The conditioned form as a command: trained once, written down, probed on pictures nobody trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from sutura.core.checkpoint import read_json
from sutura.core.errors import UserError
from sutura.data.labelled import load_labelled
from sutura.evals import jepa_conditioned
from sutura.evals.conditioned_probe import PredictedTrunk, _eyes, refuse_seen
from sutura.evals.jepa_conditioned import load_run, train
from sutura.evals.text_helps import score_captions, summary
from sutura.train import conditioned
from sutura.train.conditioned import build, prepare
from tiny_conditioned import config, furnish, save_bert, values
from tiny_encoders import build as build_encoder
from tiny_encoders import write_processor

PROBE = {"data": {"source": "world", "image_size": 32, "limit": 60, "select_limit": 30, "test_limit": 40}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnish(tmp_path_factory.mktemp("runs"))


def run(given: dict[str, Any], *, fresh: bool = False, resume: bool = False, out: Path | None = None) -> str:
    return train(given, fresh=fresh, resume=resume, out=out, command="sutura jepa train")


@pytest.fixture(scope="module")
def finished(place: Path) -> tuple[str, dict[str, Any]]:
    text = run(values(place, probe=PROBE), out=place / "out.json")
    return text, read_json(place / "out.json")


def test_a_run_leaves_a_whole_folder(finished: tuple[str, dict[str, Any]], place: Path) -> None:
    text, report = finished
    folder = Path(report["run"])
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "weights.safetensors", "metrics.jsonl", "report.json", "report.md"} <= names
    written = read_json(folder / "config.json")
    assert written["form"] == "conditioned"
    assert folder.name == f"test-{written['hash']}"
    assert written["command"] == "sutura jepa train"
    assert read_json(folder / "report.json") == report
    again = summary(pl.read_parquet(folder / "captions.parquet"))
    assert again == report["text_helps"]
    assert str(folder) in text


def test_the_report_says_which_network_gives_the_targets_and_that_there_are_no_negatives(
    finished: tuple[str, dict[str, Any]],
) -> None:
    text, report = finished
    for said in (
        "another frozen network's patches of the whole picture (target)",
        "nothing of it trains",
        "Mask: random, 10 of 16 patches",
        "No negatives are used",
        "another picture's caption",
        "constant guess",
        "planned",
    ):
        assert said in text
    assert report["about"]["negatives"] == 0
    assert report["verdict"] in text


def test_what_is_probed_is_named_and_its_parts_are_apart(finished: tuple[str, dict[str, Any]]) -> None:
    text, report = finished
    assert list(report["probe"]) == ["online", "target", "predictor, untrained", "predictor"]
    assert (
        "`predictor`: the predictor's output for every place, from the whole picture without a caption"
        in text
    )
    assert "none is in two parts" in text
    assert "share no scene" in text
    assert report["probe"]["predictor"]["n"] == 40


def test_a_finished_run_is_not_trained_again(
    finished: tuple[str, dict[str, Any]], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditioned, "train", None)
    for fresh, resume in ((False, False), (True, False), (False, True)):
        assert run(values(place, probe=PROBE), fresh=fresh, resume=resume) == finished[0]


def test_a_run_is_loaded_and_gives_its_figures_again(finished: tuple[str, dict[str, Any]]) -> None:
    _, report = finished
    model, prepared = load_run(Path(report["run"]))
    assert summary(score_captions(model, prepared))["right"] == pytest.approx(report["text_helps"]["right"])


def test_resume_needs_a_checkpoint_and_fresh_begins_anew(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = values(place, seed=5)
    with pytest.raises(UserError, match="no checkpoint of this run"):
        run(given, resume=True)

    def stopped(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(jepa_conditioned, "save_tensors", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(given)
    folder = Path(given["directory"]) / prepare(config(place, seed=5)).run
    (folder / "old").write_text("of the run before")
    run(given, resume=True)
    assert (folder / "old").is_file()
    (folder / "report.json").unlink()
    run(given, fresh=True)
    assert not (folder / "old").exists()


def test_weights_of_a_moving_target_are_kept(place: Path) -> None:
    given = values(place, target={"kind": "ema", "encoder": None}, online={"train": 1}, probe=PROBE)
    text = run(given, out=place / "ema.json")
    report = read_json(place / "ema.json")
    assert "a moving average of the online encoder, which trains" in text
    assert list(report["probe"]) == [
        "online",
        "online, trained",
        "moving average",
        "predictor, untrained",
        "predictor",
    ]
    model, prepared = load_run(Path(report["run"]))
    assert model.target is not None
    first = prepared.vit.state_dict()["blocks.1.mlp.up.weight"]
    assert not torch.equal(model.target.state_dict()["blocks.1.mlp.up.weight"], first)
    assert summary(score_captions(model, prepared))["none"] == pytest.approx(report["text_helps"]["none"])
    assert "effective_rank" in (Path(report["run"]) / "metrics.jsonl").read_text()


def test_a_probe_on_its_own_training_pictures_is_refused(place: Path) -> None:
    """The fault, planted: one of the probe's test pictures is one that the model was trained on."""
    parts = load_labelled(PROBE["data"])
    prepared = prepare(config(place))
    assert "None of the probe's 40" in refuse_seen(prepared.train.data, parts, world=False)
    content = (*prepared.train.data.content[:-1], parts.test.hashes[3])
    from dataclasses import replace

    with pytest.raises(UserError, match="1 of 40 pictures that the probe is tested on"):
        refuse_seen(replace(prepared.train.data, content=content), parts, world=False)


def test_pictures_to_measure_on_are_none_of_those_to_train_on(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sutura.train import conditioned_data

    real = conditioned_data.world_image_texts
    monkeypatch.setattr(
        conditioned_data, "world_image_texts", lambda *a, **k: real(*a, **{**k, "split": "test"})
    )
    with pytest.raises(UserError, match="are among those to train on"):
        prepare(config(place))


@torch.no_grad()
def test_the_probed_features_are_the_predictors_guesses_for_every_place(place: Path) -> None:
    prepared = prepare(config(place))
    model = build(prepared).eval()
    pixels = torch.randn(2, 3, 32, 32)
    told = PredictedTrunk(model, {})(pixels)
    every = torch.arange(16).expand(2, -1)
    wanted = model(pixels, every, every)
    assert np.allclose(told.flatten(2).transpose(1, 2), wanted, atol=1e-6)


def test_the_published_preset_takes_steps_with_small_checkpoints(tmp_path: Path) -> None:
    """ViTs in transformers' format, BERT, batch 1 with accumulation, bfloat16: all but the sizes and the pictures."""
    from sutura.core.config import apply_overrides, read_preset

    for seed, name in enumerate(("online", "target")):
        build_encoder("vit", seed).save_pretrained(tmp_path / name)
        write_processor(tmp_path / name)
    preset = apply_overrides(
        read_preset("jepa/conditioned-coco"),
        [
            f"online.encoder.id={tmp_path / 'online'}",
            f"target.encoder.id={tmp_path / 'target'}",
            f"text.id={save_bert(tmp_path / 'text')}",
            f"pictures.cache={tmp_path / 'cache'}",
            f"directory={tmp_path / 'runs'}",
            "pictures.path=world",
            "pictures.count=20",
            "pictures.held=8",
            "passes=32",
            "device=cpu",
        ],
    )
    assert preset.pop("form") == "conditioned"
    run(preset, out=tmp_path / "report.json")
    report = read_json(tmp_path / "report.json")
    assert report["about"]["mask"] == {"kind": "random", "ratio": 0.6, "hidden": 10, "of": 16}
    assert report["training"]["steps"] == 2
    assert report["training"]["bad_batches"] == 0
    assert report["memory"]["planned"]["peak"] < 4e9


def test_the_untrained_predictor_is_probed_on_the_encoder_as_it_was(tmp_path: Path) -> None:
    """Fault: beside an encoder that trained, the row of random weights reads the trained one."""
    prepared = prepare(config(furnish(tmp_path), online={"train": 1}, target={"kind": "ema"}))
    model = build(prepared)
    loaded = {name: weight.clone() for name, weight in model.online.named_parameters()}
    with torch.no_grad():
        for weight in model.online.parameters():
            weight.add_(1.0)
    trunks: dict[str, Any] = {name: encoder.trunk for name, encoder in _eyes(prepared, model)}
    for name, weight in trunks["predictor, untrained"].online.named_parameters():
        assert torch.equal(weight, loaded[name]), name
    assert not torch.equal(trunks["predictor"].online.norm.weight, loaded["norm.weight"])

"""A run of the answer form from values to report, on the built-in world at toy length."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from sutura.core.checkpoint import read_json, write_json
from sutura.core.config import apply_overrides, read_preset
from sutura.core.errors import UserError
from sutura.data.scenes.streams import make_stream
from sutura.evals import jepa_answer
from sutura.evals.answer_inputs import load_inputs, look_up
from sutura.evals.answer_tasks import predict
from sutura.evals.answer_world import gallery, watch_streams
from sutura.evals.jepa_answer import LEDGER, PAGE, REPORT, load_answer, train
from sutura.evals.ledger import read_ledger
from sutura.train.answer_config import AnswerConfig

TOY = (
    "train.limit=10",
    "test.limit=6",
    "feed={batch: 24, micro_batch: 24, epochs: 1}",
    "predictor.layers=1",
    "dim=16",
    "tasks={streams: 2, frames: 16, decodes: [1, 2, 4, 16], classify: 3, gallery: 0, least: 1}",
    "checkpoint_every=1",
    "device=cpu",
)


def values(place: Path, *more: str) -> dict[str, Any]:
    found = apply_overrides(
        read_preset("jepa/answer-tiny"),
        [*TOY, f"directory={place / 'runs'}", f"features.directory={place / 'features'}", *more],
    )
    assert found.pop("form") == "answer"
    return found


def go(place: Path, *more: str, fresh: bool = False, resume: bool = False, out: Path | None = None) -> str:
    return train(values(place, *more), fresh=fresh, resume=resume, out=out, command="sutura jepa train")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("answer")
    go(place, out=place / "out.json")
    return place


def folder_of(place: Path) -> Path:
    (folder,) = [p for p in (place / "runs").iterdir() if (p / REPORT).is_file()]
    return folder


def test_a_run_leaves_a_report_and_a_ledger(done: Path) -> None:
    folder = folder_of(done)
    text = (folder / PAGE).read_text()
    for said in (
        "Discriminative VQA",
        "blind",
        "wrong-picture",
        "majority",
        "held out",
        "Selective decoding",
        "chance",
    ):
        assert said in text
    report = json.loads((done / "out.json").read_text())
    assert report == json.loads((folder / REPORT).read_text())
    ledger = read_ledger(folder / LEDGER)
    assert set(ledger["condition"]) == {"picture", "wrong-picture", "blind", "majority", "majority-overall"}
    for condition, found in ledger.group_by("condition"):
        assert report["vqa"][str(condition[0])]["mean"] == pytest.approx(found["exact"].mean())
    assert ledger.filter(pl.col("condition") == "picture").height == report["test"]["questions"]
    assert report["training"]["answer-tiny"]["answers"] == report["training"]["blind"]["answers"]
    assert not list(folder.glob("checkpoint-*"))


def test_a_finished_run_is_not_trained_again(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(jepa_answer, "fit_answer", refuse)
    told = f"{(folder_of(done) / PAGE).read_text().rstrip()}\n\n{folder_of(done)}"
    assert go(done) == told
    assert go(done, fresh=True) == told
    with pytest.raises(AssertionError, match="trained again"):
        go(done, "seed=1")


def test_a_finished_run_loads_whole(done: Path) -> None:
    built, config = load_answer(folder_of(done))
    inputs = load_inputs(config)
    data = inputs.test
    ledger = read_ledger(folder_of(done) / LEDGER).filter(pl.col("condition") == "picture")
    rows = jepa_answer.answer_rows(
        built,
        data,
        jepa_answer.candidate_answers(inputs.train.samples, least=1),
        inputs.features,
        run="r",
        encoder="clip",
        seed=0,
        condition="picture",
        benchmark="b",
    )
    assert [row["prediction"] for row in rows] == ledger["prediction"].to_list()
    with pytest.raises(UserError, match=r"is missing"):
        load_answer(done)


def test_a_run_beside_other_frozen_weights_does_not_load(done: Path, tmp_path: Path) -> None:
    """Fault: an encoder that was exchanged under the same name answers with other features, and nobody is told."""
    folder = tmp_path / "run"
    shutil.copytree(folder_of(done), folder)
    report = read_json(folder / REPORT)
    assert set(report["fingerprints"]) == {"encoder", "networks"}
    report["fingerprints"]["encoder"] = "another"
    write_json(folder / REPORT, report)
    with pytest.raises(UserError, match=r"trained beside other frozen weights: .*another"):
        load_answer(folder)


def test_texts_that_do_not_fit_are_refused_before_training(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: an hour of training, and then an error about a candidate's length."""

    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(jepa_answer, "fit_answer", refuse)
    with pytest.raises(UserError, match=r"text.max_tokens is 4"):
        go(done, "seed=3", "text.max_tokens=4", "tasks.gallery=8")


def test_streams_are_seen_frame_by_frame(done: Path) -> None:
    """Frames encoded once and shared are what each frame alone would be."""
    built, config = load_answer(folder_of(done))
    inputs = load_inputs(config)
    watched, texts = watch_streams(built, config, inputs)
    stream = make_stream(config.test.seed, 1, 16)
    assert watched[1].changes == stream.changes
    assert set(watched[1].truth) <= set(texts)
    from PIL import Image

    for frame in (0, 7, 15):
        pixels = inputs.encoder.transform(Image.fromarray(stream.pictures(64)[frame]))
        features = inputs.encoder(pixels[None]).half()
        alone = predict(built, lambda names, f=features: f, [("x", config.tasks.describe)])
        torch.testing.assert_close(
            torch.from_numpy(watched[1].embeddings[frame]), alone[0], atol=1e-3, rtol=0
        )


def test_a_gallery_has_one_true_text_a_picture(done: Path) -> None:
    config = AnswerConfig(**values(done, "tasks.gallery=4"))
    ids, texts = gallery(config, load_inputs(config))
    assert len(ids) == len(texts) == 4
    assert all(set(text.split()) & {"cube", "sphere", "cylinder"} for text in texts)


def test_resuming_needs_a_checkpoint_of_these_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: resume that begins at step 0 without a word; a run stopped in the middle goes on."""
    with pytest.raises(UserError, match="no checkpoint of this run"):
        go(tmp_path, resume=True)
    fit = jepa_answer.fit_answer

    def stopped(*args: Any, **more: Any) -> Any:
        def on_step(step: int, row: dict[str, Any]) -> None:
            if step == 2:
                raise KeyboardInterrupt

        return fit(*args, **{**more, "on_step": on_step})

    monkeypatch.setattr(jepa_answer, "fit_answer", stopped)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path)
    monkeypatch.undo()
    with pytest.raises(UserError, match="Runs of that name with other settings: answer-tiny-"):
        go(tmp_path, "optim.lr=0.5", resume=True)
    assert "Discriminative VQA" in go(tmp_path, resume=True)
    steps = [
        json.loads(line)["step"] for line in (folder_of(tmp_path) / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == list(range(1, len(steps) + 1))


def test_data_in_two_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="6 pictures are in the training and the test data"):
        go(tmp_path, "test.split=train")


def test_features_are_looked_up_in_order(done: Path) -> None:
    inputs = load_inputs(AnswerConfig(**values(done)))
    names = [
        inputs.test.pictures[1].image_id,
        inputs.train.pictures[2].image_id,
        inputs.test.pictures[0].image_id,
    ]
    found = look_up(inputs.stores, names)
    for row, (store, name) in enumerate(zip((1, 0, 1), names, strict=True)):
        torch.testing.assert_close(found[row], inputs.stores[store].rows([name])[0], rtol=0, atol=0)
    with pytest.raises(UserError, match="1 pictures have no features"):
        look_up(inputs.stores, ["nowhere"])
